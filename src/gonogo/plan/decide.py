"""Decide: (desired, world) → Plan. Pure; the same input gives the same plan, byte for byte.

The order of a change: start the new revision's replicas → each generates → Envoy acknowledges them → probed through
the front door at weight 0 → promoted → the old revision drains → it goes. Whatever fails on the way rejects the new
revision and leaves the old one serving. Where there is no room for both (`DesiredService.leaving`) the old one drains
and goes first, and comes back when the new one is rejected.
"""

from __future__ import annotations

from typing import Iterator, Sequence

from gonogo.actions.model import (
    Action,
    EndPart,
    EnsureGateway,
    EnsurePart,
    ForgetService,
    ListenerPlan,
    ProbeRevision,
    Promote,
    PublishSnapshot,
    Reject,
    RemoveReplica,
)
from gonogo.checks.catalogue import CHECKS
from gonogo.checks.engine import engine_environment
from gonogo.checks.external import all_silent
from gonogo.checks.finding import Answer, Check, Finding, Stage, Value, Verdict
from gonogo.checks.network import hopeless
from gonogo.engines.size import replicas_wanted
from gonogo.engines.table import load_limit_s
from gonogo.facts.part import PARTS
from gonogo.facts.replica import Health, ReplicaFacts, ReplicaName
from gonogo.facts.world import World
from gonogo.plan.endpoints import clusters, drained
from gonogo.plan.model import DesiredService, Plan
from gonogo.plan.place import active, environment_gone, missing_replicas, of_revision
from gonogo.spec import Revision


def decide(services: Sequence[DesiredService], world: World, checks: Sequence[Check] = CHECKS) -> Plan:
    """What to do next. Actions are in order; the answers are those of the stage that each service is in."""
    actions: list[Action] = []
    answers: list[Answer] = []
    promised: list[str] = []
    if world.replicas is None or world.gateway is None or world.parts is None:
        return Plan(observation=world.observation, actions=(), answers=())
    actions.extend(_infrastructure(world))
    actions.extend(_sick(world.replicas))
    for service in services:
        if not service.removed:
            actions.extend(missing_replicas(service, services, world, promised))
    actions.extend(_snapshot(services, world))
    for service in services:
        if service.removed:
            actions.extend(_farewell(service, services, world))
            continue
        published = _published(services, world)
        wanted, given = _candidate(service, world, checks, published)
        actions.extend(wanted)
        answers.extend(given)
        actions.extend(_drained(service, services, world))
    actions.extend(_orphans(services, world))
    return Plan(observation=world.observation, actions=tuple(actions), answers=tuple(answers))


def ask(checks: Sequence[Check], stage: Stage, revision: Revision, world: World) -> Iterator[Answer]:
    """The answers of all checks of one stage."""
    for check in checks:
        if stage in check.stages:
            for finding in check.ask(revision, world):
                yield Answer(
                    service=revision.service,
                    revision=revision.number,
                    check=check.name,
                    condition=check.condition,
                    stage=stage,
                    blocks=check.blocks,
                    finding=finding,
                )


def _infrastructure(world: World) -> Iterator[Action]:
    running = {(part.role, part.index) for part in world.parts or () if part.running}
    for role, count in PARTS.items():
        for index in range(count):
            if (role, index) not in running:
                yield EnsurePart(role=role, index=index)
    for part in world.parts or ():
        if part.hung and part.handle is not None:
            yield EndPart(role=part.role, handle=part.handle, why="PartHung")
    gateway = world.gateway
    if gateway is not None and gateway.hung and gateway.handle is not None:
        yield EndPart(role="gateway", handle=gateway.handle, why="PartHung")
    if gateway is not None and not gateway.running:
        cores = world.host.cores if world.host and world.host.cores else 1
        yield EnsureGateway(concurrency=min(4, max(1, cores)))


def _sick(replicas: Sequence[ReplicaFacts]) -> Iterator[Action]:
    """Hung replicas, and the younger of two with one name (a control process died between fork and journal)."""
    seen: set[ReplicaName] = set()
    for replica in sorted(replicas, key=lambda one: -one.age_s):
        if replica.handle is None:
            continue
        if replica.health is Health.HUNG:
            yield RemoveReplica(name=replica.name, handle=replica.handle, force=True, why="ReplicaHung")
        elif replica.name in seen:
            yield RemoveReplica(name=replica.name, handle=replica.handle, force=True, why="DuplicateReplica")
        seen.add(replica.name)


def wanted_snapshot(services: Sequence[DesiredService], world: World) -> PublishSnapshot:
    """What the gateway should hold now."""
    listeners = {
        (revision.spec.gateway.address, revision.spec.gateway.port)
        for service in services
        for revision in active(service)
    }
    return PublishSnapshot(
        listeners=tuple(ListenerPlan(address=address, port=port) for address, port in sorted(listeners)),
        clusters=clusters(services, world),
    )


def _snapshot(services: Sequence[DesiredService], world: World) -> Iterator[Action]:
    wanted = wanted_snapshot(services, world)
    gateway = world.gateway
    if gateway is None or gateway.published == wanted.digest():
        return
    if any(replica.health is None and replica.url is None for replica in world.replicas or ()):
        return  # an unknown never removes an endpoint: wait until each replica was looked at
    yield wanted


def _candidate(
    service: DesiredService, world: World, checks: Sequence[Check], published: bool
) -> tuple[tuple[Action, ...], tuple[Answer, ...]]:
    """Bring the desired revision from replicas to traffic, or reject it."""
    revision = service.desired
    if service.serving == revision or service.rejected is not None:
        return _live(service.serving, world, checks, published)
    hopeless = _hopeless(revision, world) or _refused(revision, world)
    if hopeless is not None:
        return (_reject(revision, hopeless),), ()
    if not _probed(revision, world):
        return ((_probe(revision),) if _provable(revision, world, published) else ()), ()
    answers = tuple(ask(checks, Stage.DEPLOY, revision, world))
    bad = [answer for answer in answers if answer.blocking]
    if bad:
        return (_reject(revision, bad[0].finding),), answers
    return (Promote(service=service.name, revision=revision.number),), answers


def _live(
    revision: Revision | None, world: World, checks: Sequence[Check], published: bool
) -> tuple[tuple[Action, ...], tuple[Answer, ...]]:
    """The answers of the revision that serves. A new control process knows no probes: it asks again by itself."""
    if revision is None:
        return (), ()
    again = not _probed(revision, world) and _provable(revision, world, published)
    return (_probe(revision),) if again else (), tuple(ask(checks, Stage.LIVE, revision, world))


def _probed(revision: Revision, world: World) -> bool:
    return any((probe.service, probe.revision) == (revision.service, revision.number) for probe in world.probes or ())


def _hopeless(revision: Revision, world: World) -> Finding | None:
    """A revision that never served and whose environment is gone, or one of whose replicas died of what the next one
    would die of too.
    """
    if environment_gone(revision, world):
        return next(finding for finding in engine_environment(revision, world))
    if revision.spec.external:
        return all_silent(revision, world)
    for index in range(replicas_wanted(revision, world)):
        name = f"{revision.name}/{index}"
        deaths = world.deaths.get(name)
        reason = hopeless(deaths) if deaths is not None else None
        if deaths is not None and reason is not None:
            values: dict[str, Value] = {
                "replica": name,
                "restarts": deaths.count,
                "why": deaths.why,
                "last_lines": "\n".join(deaths.last_log_lines[-5:]),
                "limit_s": round(load_limit_s(revision.spec)),
            }
            return Finding(reason=reason, verdict=Verdict.FAIL, subject=f"replica/{name}", values=values)
    return None


def _refused(revision: Revision, world: World) -> Finding | None:
    """Envoy refused what this revision needs."""
    nacks = [resource for resource in (world.gateway and world.gateway.resources) or () if resource.nack is not None]
    if not nacks:
        return None
    return Finding(
        reason="GatewayRefused",
        verdict=Verdict.FAIL,
        subject=f"service/{revision.service}",
        values={"types": nacks[0].type_url.rpartition(".")[2], "words": nacks[0].nack or ""},
    )


def _provable(revision: Revision, world: World, published: bool) -> bool:
    """Every replica generates, no part is about to start, and Envoy has acknowledged exactly what is wanted now.

    Of external ones, each of which may be away for its own reasons, one that is well is enough, and each was looked at.
    """
    if any(part.starting for part in world.parts or ()):
        return False
    found = of_revision(world, revision)
    ready = sum(1 for replica in found if replica.health is Health.READY)
    listening = world.gateway is not None and world.gateway.listening is True
    if revision.spec.external:
        enough = ready > 0 and all(replica.health is not None for replica in found)
    else:
        enough = ready >= replicas_wanted(revision, world)
    return published and listening and enough


def _probe(revision: Revision) -> ProbeRevision:
    return ProbeRevision(service=revision.service, revision=revision.number)


def _reject(revision: Revision, finding: Finding) -> Reject:
    return Reject(service=revision.service, revision=revision.number, finding=finding)


def _drained(service: DesiredService, services: Sequence[DesiredService], world: World) -> Iterator[Action]:
    """Replicas of revisions that get no traffic any more, once they are idle and out of the gateway."""
    keep = {revision.number for revision in active(service)}
    why = "RevisionReplaced" if service.leaving is None else "MakesRoom"
    for replica in world.replicas or ():
        if replica.name.service != service.name or replica.name.revision in keep or replica.handle is None:
            continue
        if drained(replica, service, world) and _published(services, world):
            yield RemoveReplica(name=replica.name, handle=replica.handle, force=False, why=why)


def _farewell(service: DesiredService, services: Sequence[DesiredService], world: World) -> Iterator[Action]:
    left = [replica for replica in world.replicas or () if replica.name.service == service.name]
    if not left:
        yield ForgetService(service=service.name)
    elif all(drained(replica, service, world) for replica in left) and _published(services, world):
        for replica in left:
            if replica.handle is not None:
                yield RemoveReplica(name=replica.name, handle=replica.handle, force=False, why="ServiceRemoved")


def _orphans(services: Sequence[DesiredService], world: World) -> Iterator[Action]:
    """Replicas of services that nobody asked for (forgotten while a replica was being started)."""
    names = {service.name for service in services}
    for replica in world.replicas or ():
        if replica.name.service not in names and replica.handle is not None:
            yield RemoveReplica(name=replica.name, handle=replica.handle, force=False, why="ServiceUnknown")


def _published(services: Sequence[DesiredService], world: World) -> bool:
    """Whether the gateway holds, and has acknowledged, exactly what is wanted now."""
    gateway = world.gateway
    return gateway is not None and gateway.acked and gateway.published == wanted_snapshot(services, world).digest()
