"""How many replicas of a revision this host should run: by its memory, or by its cards. Pure."""

from __future__ import annotations

from gonogo.engines.asked import cards_of_replica
from gonogo.engines.cards import free_cards
from gonogo.engines.table import memory_of
from gonogo.facts.world import World
from gonogo.spec import Revision

DEFAULT_REPLICAS = 2
HEAD_ROOM = 0.9
"""Replicas may plan so much of the memory that is available."""


def replicas_wanted(revision: Revision, world: World) -> int:
    """As asked; unasked, two where two fit and one otherwise. Never fewer than run already: a plan must not flap."""
    asked = revision.spec.replicas
    if asked is not None:
        return asked.min
    running = sum(
        1
        for replica in world.replicas or ()
        if replica.name.service == revision.service and replica.name.revision == revision.number
    )
    return max(1, min(DEFAULT_REPLICAS, max(running, _fitting(revision, world))))


def _fitting(revision: Revision, world: World) -> int:
    host, model = world.host, world.model_of(revision.spec)
    wanted = cards_of_replica(revision.spec)
    if wanted:
        return len(free_cards(revision.service, world)) // wanted
    if host is None or model is None or host.memory_available_bytes is None or model.problem is not None:
        return DEFAULT_REPLICAS if host is None or (host.cores or 2) >= DEFAULT_REPLICAS else 1
    if host.cores is not None and host.cores < DEFAULT_REPLICAS:
        return 1
    try:
        need = memory_of(revision.spec, model, host, DEFAULT_REPLICAS).total_bytes
    except ValueError:  # what cannot be added up is asked for once, and its check says why
        return 1
    held = sum(
        replica.memory.resident_bytes or 0
        for replica in world.replicas or ()
        if replica.memory is not None and replica.name.service == revision.service
    )
    return int((host.memory_available_bytes + held) * HEAD_ROOM // max(1, need))
