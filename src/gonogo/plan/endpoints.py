"""Which replicas the gateway may send requests to, and when an old one has nothing left to do. Pure."""

from __future__ import annotations

from typing import Sequence

from gonogo.actions.model import ClusterPlan, EndpointPlan
from gonogo.engines.asked import LLAMACPP, engine_name
from gonogo.facts.replica import Health, ReplicaFacts
from gonogo.facts.world import World
from gonogo.plan.model import DesiredService

POLICY_STALE_S = 6.0
"""A policy server that could not read the store for 5 s refuses; after so long none sends to the old revision."""
LEFT_S = 3.0
"""A replica's counters are read each second: so long after it left the gateway, idle means that nothing comes."""
DRAIN_LIMIT_S = 900.0
"""A stream may run so long after its revision was replaced; then it is cut."""


def clusters(services: Sequence[DesiredService], world: World) -> tuple[ClusterPlan, ...]:
    """One cluster per service and revision that is served, proven or drained, with the replicas that generate."""
    wanted: dict[str, list[EndpointPlan]] = {}
    in_parts: set[str] = set()
    by_name = {service.name: service for service in services}
    for service in services:
        for revision in (service.serving, service.desired):
            if revision is not None and engine_name(revision.spec) != LLAMACPP:
                in_parts.add(revision.name)
            serves = revision is not None and not service.removed
            if revision is not None and serves and not (revision == service.desired and _rejected(service)):
                wanted.setdefault(revision.name, [])
    for replica in world.replicas or ():
        owner = by_name.get(replica.name.service)
        if owner is None or replica.health is not Health.READY or _finished(replica, owner, world):
            continue
        endpoint = EndpointPlan(name=replica.name, address=replica.address, port=replica.port)
        wanted.setdefault(f"{replica.name.service}/{replica.name.revision}", []).append(endpoint)
    return tuple(
        ClusterPlan(
            name=name,
            endpoints=tuple(sorted(found, key=lambda one: one.name.index)),
            outlives_its_parts=name in in_parts,
        )
        for name, found in sorted(wanted.items())
    )


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
