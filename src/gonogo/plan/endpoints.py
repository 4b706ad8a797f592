"""Which replicas the gateway may send requests to, and when an old one has nothing left to do. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Sequence

from gonogo.actions.model import ClusterPlan, EndpointPlan, ExternalPlan, FallbackPlan
from gonogo.engines.asked import LLAMACPP, engine_name
from gonogo.facts.replica import Health, ReplicaFacts
from gonogo.facts.server import HEALTH
from gonogo.facts.world import World
from gonogo.plan.model import DesiredService
from gonogo.spec import Spec

POLICY_STALE_S = 6.0
"""A policy server that could not read the store for 5 s refuses; after so long none sends to the old revision."""
LEFT_S = 3.0
"""A replica's counters are read each second: so long after it left the gateway, idle means that nothing comes."""
DRAIN_LIMIT_S = 900.0
"""A stream may run so long after its revision was replaced; then it is cut."""


def clusters(services: Sequence[DesiredService], world: World) -> tuple[ClusterPlan, ...]:
    """One cluster per service and revision that is served, proven or drained, with the replicas that generate.

    External ones are all there whatever their health: the gateway itself skips those that are not well.
    """
    wanted: dict[str, list[EndpointPlan]] = {}
    specs = dict(world.asked)
    by_name = {service.name: service for service in services}
    for service in services:
        for revision in (service.serving, service.desired):
            if revision is not None:
                specs[revision.name] = revision.spec
            serves = revision is not None and not service.removed
            if revision is not None and serves and not (revision == service.desired and _rejected(service)):
                wanted.setdefault(revision.name, [])
    for replica in world.replicas or ():
        owner = by_name.get(replica.name.service)
        if owner is None or replica.health is not Health.READY or _finished(replica, owner, world):
            continue
        found = wanted.setdefault(f"{replica.name.service}/{replica.name.revision}", [])
        if replica.url is None:
            found.append(EndpointPlan(name=replica.name, address=replica.address, port=replica.port))
    return tuple(_cluster(name, found, specs.get(name)) for name, found in sorted(wanted.items()))


def _cluster(name: str, endpoints: Sequence[EndpointPlan], spec: Spec | None) -> ClusterPlan:
    """`spec` None: of a revision that nobody knows any more; its replicas drain."""
    plan = ClusterPlan(name=name, endpoints=tuple(sorted(endpoints, key=lambda one: one.name.index)))
    if spec is None:
        return plan
    return replace(
        plan,
        outlives_its_parts=engine_name(spec) != LLAMACPP,
        balancing=spec.gateway.balancing,
        connect_timeout_s=spec.gateway.connect_timeout_s,
        external=_external(spec),
        fallback=_fallback(spec),
    )


def _external(spec: Spec) -> ExternalPlan | None:
    if spec.replicas is None or not spec.external:
        return None
    path = spec.replicas.health_path or HEALTH
    return ExternalPlan(servers=spec.external, health_path=path, ca_file=spec.replicas.ca_file)


def _fallback(spec: Spec) -> FallbackPlan | None:
    if spec.fallback is None:
        return None
    return FallbackPlan(api=spec.fallback.api, key_file=spec.fallback.key_file, ca_file=spec.fallback.ca_file)


def drained(replica: ReplicaFacts, service: DesiredService, world: World) -> bool:
    """Whether this replica of a replaced, rejected or leaving revision or removed service has nothing left to do."""
    if replica.health in (Health.HUNG, Health.DEAD, Health.STARTING):
        return True
    leaving = service.leaving is not None
    since = service.in_place_since if leaving else service.serving_since
    waited_s = world.at - since if since is not None else DRAIN_LIMIT_S
    if waited_s < (LEFT_S if leaving else POLICY_STALE_S):
        return False
    return waited_s >= DRAIN_LIMIT_S or replica.requests_running == 0


def _rejected(service: DesiredService) -> bool:
    return service.rejected is not None and service.serving != service.desired


def _finished(replica: ReplicaFacts, service: DesiredService, world: World) -> bool:
    number = replica.name.revision
    if not service.removed:
        if service.serving is not None and number == service.serving.number:
            return service.leaving is not None
        if service.rejected is None and number == service.desired.number:
            return False
    return drained(replica, service, world)
