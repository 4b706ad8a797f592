"""What would make a model fit that does not, or hold what it does not: each remedy is planned again before it is named.

Ranked by what it costs the user: a setting, then quality, then length or number of requests, then another engine, then
hardware. A remedy names only forms of the weights that can be obtained. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Iterable, Iterator, Mapping, Sequence

from gonogo.engines.capacity import Ask, Capacity, Fit, capacity
from gonogo.engines.hardware import Hardware
from gonogo.engines.planners import PLANNERS
from gonogo.facts.accelerator_class import CLASSES
from gonogo.facts.card_limits import CARD_LIMITS
from gonogo.plan.choose import Demand, Way, ask_for, bits, choose

HIGHEST_SHARE = 0.95
FEWER_SEQUENCES = (64, 16)
SHORTEST_CONTEXT, CONTEXT_STEP = 1024, 256
MOST_CARDS = 16
SETTING, QUALITY, LESS, OTHER_ENGINE, HARDWARE = 1, 2, 3, 4, 5
FP8_CACHE_CAPABILITY = (8, 9)
MORE_CARDS = ("RemedyMoreCards", "RemedyMoreCardsOtherWay")
LARGER_CARD = ("RemedyLargerCard", "RemedyLargerCardOtherWay")
_OTHER_WAYS = ("RemedyOnline", "RemedyCheckpoint", "RemedyEngine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One change that was planned and found to fit. `reason` is a stable code; `cost` ranks it, small first."""

    reason: str
    cost: int
    values: Mapping[str, str | int | float]
    capacity: Capacity


def remedies(ways: Sequence[Way], hardware: Hardware, demand: Demand, ask: Ask) -> tuple[Remedy, ...]:
    """All that would make the first way fit, cheapest first; the other ways that fit as they are among them.

    None where the first way holds the demand as it is.
    """
    if not ways or _best(ways[0], hardware, demand, ask) is not None:
        return ()
    first = ways[0]
    found = [*_settings(first, hardware, demand, ask), *_other_ways(ways, hardware, demand, ask)]
    found += _less(first, hardware, demand, ask)
    served = any(remedy.reason in _OTHER_WAYS for remedy in found)
    found += _hardware(ways[:1] if served else ways, hardware, demand, ask)
    return tuple(sorted(found, key=lambda remedy: remedy.cost))


def longest_context(way: Way, hardware: Hardware, ask: Ask, demand: Demand) -> Capacity | None:
    """The longest request that one replica on all cards holds, in steps of 256 tokens; None: not even 1024."""
    low, high = SHORTEST_CONTEXT // CONTEXT_STEP, demand.context_tokens // CONTEXT_STEP
    best: Capacity | None = None
    while low <= high:
        middle = (low + high) // 2
        seen = _best(way, hardware, replace(demand, context_tokens=middle * CONTEXT_STEP), ask)
        if seen is None:
            high = middle - 1
        else:
            best, low = seen, middle + 1
    return best


def _best(way: Way, hardware: Hardware, demand: Demand, ask: Ask) -> Capacity | None:
    """The capacity of this way when it fits and holds the demand; None otherwise."""
    choice = choose((way,), hardware, demand, ask)
    option = choice.best
    if option is None or option.capacity.fit is Fit.UNKNOWN or option.requests < demand.concurrent_requests:
        return None
    return option.capacity


def _settings(way: Way, hardware: Hardware, demand: Demand, ask: Ask) -> Iterator[Remedy]:
    planner = PLANNERS[way.engine]
    if not planner.share_flag:
        return
    device, serving = hardware.device, _plain(way, hardware, demand, ask).serving
    usual = math.floor(1000 * planner.default_share(way.model.architecture, serving, device)) / 1000
    share = ask.share or usual
    spare = math.floor(100 * (device.free_bytes or device.total_bytes) / device.total_bytes) / 100
    shares = [HIGHEST_SHARE] if share < HIGHEST_SHARE <= spare else [spare] if spare < share else []
    shares += [usual] if usual < share and usual <= spare else []
    for asked in (*(replace(ask, share=one) for one in shares), ask):
        for sequences in (None, *FEWER_SEQUENCES):
            for graphs in (True, False):
                changed = replace(asked, sequences=sequences or asked.sequences, graphs=graphs and asked.graphs)
                if changed == ask:
                    continue
                seen = _best(way, hardware, demand, changed)
                if seen is None:
                    continue
                yield Remedy(
                    reason=_named(ask, changed),
                    cost=SETTING,
                    values={
                        "flag": planner.share_flag,
                        "share": changed.share or round(share, 3),
                        "sequences": sequences or 0,
                        "requests": seen.requests,
                    },
                    capacity=seen,
                )
                return


def _named(ask: Ask, changed: Ask) -> str:
    raised, fewer, eager = changed.share != ask.share, changed.sequences != ask.sequences, changed.graphs != ask.graphs
    if eager:
        return "RemedyWithoutGraphs" if not fewer else "RemedyFewerSequencesWithoutGraphs"
    if raised and fewer:
        return "RemedyShareAndSequences"
    return "RemedyShare" if raised else "RemedySequences"


def _other_ways(ways: Sequence[Way], hardware: Hardware, demand: Demand, ask: Ask) -> Iterator[Remedy]:
    first = ways[0]
    for way in ways[1:]:
        seen = _best(way, hardware, demand, _free(way, first, ask))
        if seen is None:
            continue
        same = way.engine == first.engine
        cost = (QUALITY if bits(way) < bits(first) else SETTING) if same else OTHER_ENGINE
        values: dict[str, str | int | float] = {
            "engine": PLANNERS[way.engine].title,
            "quantization": way.quantization,
            "source": way.source,
            "requests": seen.requests,
        }
        reason = "RemedyOnline" if way.online else "RemedyCheckpoint" if same else "RemedyEngine"
        yield Remedy(reason=reason, cost=cost, values=values, capacity=seen)
    if ask.kv_bytes is None and hardware.limits.capability >= FP8_CACHE_CAPABILITY:
        seen = _best(first, hardware, demand, replace(ask, kv_bytes=1.0))
        if seen is not None:
            yield Remedy(reason="RemedyFp8Cache", cost=QUALITY, values={"requests": seen.requests}, capacity=seen)


def _less(way: Way, hardware: Hardware, demand: Demand, ask: Ask) -> Iterator[Remedy]:
    if demand.concurrent_requests > 1:
        best = choose((way,), hardware, demand, ask).best
        known = best is not None and best.capacity.fit is not Fit.UNKNOWN
        if best is not None and known and 0 < best.requests < demand.concurrent_requests:
            values: dict[str, str | int | float] = {"requests": best.requests}
            yield Remedy(reason="RemedyFewerRequests", cost=LESS, values=values, capacity=best.capacity)
    seen = longest_context(way, hardware, ask, demand)
    if seen is not None:
        tokens = seen.serving.context_tokens
        yield Remedy(reason="RemedyShorter", cost=LESS, values={"tokens": tokens}, capacity=seen)


def _hardware(ways: Sequence[Way], hardware: Hardware, demand: Demand, ask: Ask) -> Iterator[Remedy]:
    first, idle = ways[0], replace(hardware, free_bytes=None)
    if hardware.free_bytes is not None and (seen := _best(first, idle, demand, ask)) is not None:
        values: dict[str, str | int | float] = {"requests": seen.requests}
        yield Remedy(reason="RemedyFreeCards", cost=SETTING, values=values, capacity=seen)
    yield from _first_of(ways, _more_cards(hardware), MORE_CARDS, demand, ask)
    yield from _first_of(ways, _larger_cards(hardware), LARGER_CARD, demand, ask)


def _first_of(
    ways: Sequence[Way], offers: Iterable[Hardware], reasons: tuple[str, str], demand: Demand, ask: Ask
) -> Iterator[Remedy]:
    """The least hardware for the first way; and before it the least for another way, where that needs less."""
    first, others = ways[0], ways[1:]
    for offer in offers:
        seen = _best(first, offer, demand, ask)
        values: dict[str, str | int | float] = {"count": offer.count, "card": offer.card.name}
        if seen is not None:
            yield Remedy(reason=reasons[0], cost=HARDWARE, values=values, capacity=seen)
            return
        for way in others:
            held = _best(way, offer, demand, _free(way, first, ask))
            if held is not None:
                values |= {"engine": PLANNERS[way.engine].title, "quantization": way.quantization, "source": way.source}
                yield Remedy(reason=reasons[1], cost=HARDWARE, values=values, capacity=held)
                others = ()
                break


def _more_cards(hardware: Hardware) -> Iterator[Hardware]:
    count = hardware.count * 2
    while count <= MOST_CARDS:
        yield replace(hardware, count=count)
        count *= 2


def _larger_cards(hardware: Hardware) -> Iterator[Hardware]:
    larger = (card for card in CLASSES if card.name in CARD_LIMITS and card.nominal_gib > hardware.card.nominal_gib)
    for card in sorted(larger, key=lambda card: CARD_LIMITS[card.name].usable_gib):
        yield Hardware(count=hardware.count, card=card, limits=CARD_LIMITS[card.name])


def _free(way: Way, first: Way, ask: Ask) -> Ask:
    """What is asked of another way: version and share were meant for the first way's engine."""
    return ask if way.engine == first.engine else replace(ask, version=None, share=None)


def _plain(way: Way, hardware: Hardware, demand: Demand, ask: Ask) -> Capacity:
    return capacity(way.model, hardware, ask_for(way, demand, ask))
