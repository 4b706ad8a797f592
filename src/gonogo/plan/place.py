"""Which replicas must run, and where a missing one is started: port, cards, threads. Pure.

Not here: when a revision gets requests (`decide.py`) and which replicas the gateway knows (`endpoints.py`).
"""

from __future__ import annotations

from typing import Iterator, Sequence

from gonogo.actions.model import Action, EnsureReplica
from gonogo.engines.asked import cards_of_replica
from gonogo.engines.cards import assigned
from gonogo.engines.model import Placement
from gonogo.engines.size import replicas_wanted
from gonogo.facts.replica import ReplicaFacts, ReplicaName
from gonogo.facts.world import World
from gonogo.plan.model import DesiredService
from gonogo.spec import Revision

LONGEST_PAUSE_S = 30.0


def of_revision(world: World, revision: Revision) -> tuple[ReplicaFacts, ...]:
    """The replicas of one revision, as seen."""
    return tuple(
        replica
        for replica in world.replicas or ()
        if replica.name.service == revision.service and replica.name.revision == revision.number
    )


def active(service: DesiredService) -> tuple[Revision, ...]:
    """The revisions that must have replicas: the serving one unless it makes room, the desired one unless rejected."""
    if service.removed:
        return ()
    wanted = [] if service.serving is None or service.leaving is not None else [service.serving]
    if service.rejected is None and service.desired not in wanted:
        wanted.append(service.desired)
    return tuple(wanted)


def missing_replicas(
    service: DesiredService, services: Sequence[DesiredService], world: World, promised: list[str]
) -> Iterator[Action]:
    """Replicas to be started now. `promised`: the cards that this plan has given away already; its own are added."""
    ports = list(world.host.free_ports or ()) if world.host else []
    used = {replica.port for replica in world.replicas or ()}
    ports = [port for port in ports if port not in used]
    offset = sum(1 for other in services if other.name < service.name) * 8
    ports = ports[offset:] + ports[:offset]
    for revision in active(service):
        if revision.spec.external:
            continue
        if _waits_for_room(revision, service, world) or environment_gone(revision, world):
            continue
        have = {replica.name.index for replica in of_revision(world, revision)}
        for index in range(replicas_wanted(revision, world)):
            name = ReplicaName(service=service.name, revision=revision.number, index=index)
            if index in have or not _may_start(str(name), world) or not ports:
                continue
            cards = assigned(cards_of_replica(revision.spec), world, promised)
            if cards is None:
                continue
            promised += cards
            yield EnsureReplica(
                placement=Placement(
                    name=name,
                    host=world.host.name if world.host else "local",
                    address="127.0.0.1",
                    port=ports.pop(0),
                    threads=threads_each(services, world),
                    replicas=replicas_wanted(revision, world),
                    devices=cards,
                ),
                why="ReplicaDied" if str(name) in world.deaths else "ReplicaWanted",
            )


def threads_each(services: Sequence[DesiredService], world: World) -> int:
    """Threads of all replicas together stay within the cores.

    Measured on 2 cores: two replicas with two threads each served 0.16 requests/s, with one each 4.0.
    """
    cores = world.host.cores if world.host and world.host.cores else 1
    ours = [service for service in services if not service.removed and not service.desired.spec.external]
    total = sum(replicas_wanted(service.desired, world) for service in ours)
    return max(1, cores // max(1, total))


def environment_gone(revision: Revision, world: World) -> bool:
    """Whether the environment of this revision's engine was looked for and is not there: nothing can be started."""
    name = revision.spec.engine.environment if revision.spec.engine is not None else None
    return name is not None and world.environments is not None and name not in world.environments


def _waits_for_room(revision: Revision, service: DesiredService, world: World) -> bool:
    """Whether replicas of another revision still hold what this one is to have: there is no room for both."""
    return service.in_place_since is not None and any(
        replica.name.service == service.name and replica.name.revision != revision.number
        for replica in world.replicas or ()
    )


def _may_start(name: str, world: World) -> bool:
    """The first restart is immediate, later ones wait 1, 2, 4 … 30 s."""
    deaths = world.deaths.get(name)
    if deaths is None or deaths.count <= 1:
        return True
    pause_s = min(LONGEST_PAUSE_S, 2.0 ** (deaths.count - 2))
    return world.at >= deaths.last_at + pause_s
