"""Which accelerators a replica gets: whole ones of one kind that no other replica of ours holds. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Collection, Iterable, Sequence

from gonogo.engines.hardware import is_whole
from gonogo.facts.accelerator import Accelerator
from gonogo.facts.replica import ReplicaFacts
from gonogo.facts.world import World


def card_id(card: Accelerator) -> str:
    """What names it to the driver whatever the order in which cards are counted; its index where it has no UUID."""
    return card.uuid or str(card.index)


def without_ours(cards: Iterable[Accelerator], held: Collection[str]) -> tuple[Accelerator, ...]:
    """The same cards, with what our own replicas hold of them counted as free: it is so once they have gone."""
    return tuple(
        replace(card, memory_used_bytes=0, memory_free_bytes=card.memory_total_bytes) if card_id(card) in held else card
        for card in cards
    )


def cards_of_host(world: World) -> tuple[Accelerator, ...]:
    """What can be given to replicas: whole cards with memory of their own, of the kind that there are most of."""
    seen = (world.host.accelerators if world.host else None) or ()
    whole = [one for one in seen if is_whole(one)]
    names = [one.name for one in whole]
    kind = max(dict.fromkeys(names), key=names.count, default=None)
    return tuple(one for one in whole if one.name == kind)


def free_cards(service: str, world: World, revision: int | None = None) -> tuple[Accelerator, ...]:
    """Those that no replica of another service holds; with `revision`: nor one of another revision of this service."""

    def holds(replica: ReplicaFacts) -> bool:
        return replica.name.service != service or (revision is not None and replica.name.revision != revision)

    taken = {device for replica in world.replicas or () if holds(replica) for device in replica.devices}
    return tuple(card for card in cards_of_host(world) if card_id(card) not in taken)


def cards_for(service: str, world: World) -> tuple[Accelerator, ...]:
    """What replicas of this service can be planned on: cards that no other service holds, its own counted as free."""
    held = {device for replica in world.replicas or () for device in replica.devices}
    return without_ours(free_cards(service, world), held)


def assigned(wanted: int, world: World, promised: Sequence[str]) -> tuple[str, ...] | None:
    """So many cards that nobody holds and that are not `promised` to another replica of this plan; None: too few."""
    taken = {device for replica in world.replicas or () for device in replica.devices} | set(promised)
    left = [card_id(card) for card in cards_of_host(world) if card_id(card) not in taken]
    return tuple(left[:wanted]) if len(left) >= wanted else None
