"""Is there room for a new revision beside the serving one? What that one holds, and how long it would be away. Pure.

`memory_fits` and `cards_fit` ask; with `--allow-downtime` they are asked once more as if the old one had gone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Sequence

from gonogo.checks.finding import Answer, Value
from gonogo.facts.replica import ReplicaFacts
from gonogo.facts.world import World
from gonogo.spec import Revision

BESIDE = ("NoRoomBeside", "NoCardsBeside")
"""Reasons that allowing downtime takes away."""


def others(revision: Revision, world: World) -> tuple[ReplicaFacts, ...]:
    """The replicas of other revisions of this service."""
    return tuple(
        one
        for one in world.replicas or ()
        if one.name.service == revision.service and one.name.revision != revision.number
    )


def memory_held(replicas: Sequence[ReplicaFacts]) -> int:
    """What these replicas hold of the host's memory, bytes."""
    return sum(one.memory.resident_bytes or 0 for one in replicas if one.memory is not None)


def away(replicas: Sequence[ReplicaFacts]) -> Mapping[str, Value]:
    """The revision that holds the room, and how long nothing would serve when it left it.

    `down_s`: what the youngest replica took from its start to its first token; None: it was not seen, and
    `starts_seen` is 0.
    """
    youngest = min(replicas, key=lambda one: one.age_s)
    seen_s = youngest.ready_after_s
    return {
        "serving": f"{youngest.name.service}/{youngest.name.revision}",
        "down_s": None if seen_s is None else max(1, round(seen_s)),
        "starts_seen": 0 if seen_s is None else None,
    }


def vacated(revision: Revision, world: World) -> World:
    """The world as it is when the replicas of this service's other revisions have ended."""
    gone = others(revision, world)
    host = world.host
    if host is not None and host.memory_available_bytes is not None:
        host = replace(host, memory_available_bytes=host.memory_available_bytes + memory_held(gone))
    return replace(world, host=host, replicas=tuple(one for one in world.replicas or () if one not in gone))


def only_room_is_missing(answers: Sequence[Answer]) -> bool:
    """Whether nothing blocks but that both revisions do not fit side by side."""
    blocking = [answer for answer in answers if answer.blocking]
    return bool(blocking) and all(answer.finding.reason in BESIDE for answer in blocking)
