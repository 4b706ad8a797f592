"""How fast an option of `gonogo fit` answers, and what it costs: from its memory plan to `speed` and `fleet`. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Mapping

from gonogo.engines.capacity import Capacity
from gonogo.engines.hardware import Hardware
from gonogo.plan.card import card_of
from gonogo.plan.choose import Option, Way
from gonogo.plan.efficiency import Calibration
from gonogo.plan.fleet import Cost, Fleet, Traffic, cost, fleet
from gonogo.plan.prices import CardPrice
from gonogo.plan.roofline import Layout, Stored
from gonogo.plan.speed import Deployment, Load, Speed, estimate

USUAL_ANSWER_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of the prompt and of the answer of one request."""

    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Milliseconds that a request may wait at most, at the slow end of the range; None: not promised."""

    ttft_ms: float | None = None
    itl_ms: float | None = None

    @property
    def any(self) -> bool:
        return self.ttft_ms is not None or self.itl_ms is not None


NOTHING = Promise()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """So many requests at once, their lengths, and what is promised to them."""

    requests: int
    lengths: Lengths
    promise: Promise = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One option's speed: of a request alone, and at the demand's load; and what its cards cost then.

    `concurrent`: requests at once on one replica under the demand. `kept`: the replicas that keep what was promised,
    None where nothing was; the prices are of their cards then. Prices are None where nobody could source one.
    """

    lengths: Lengths
    alone: Speed
    loaded: Speed
    concurrent: int
    on_demand: Cost | None
    spot: Cost | None
    kept: Fleet | None = None


def lengths_of(context_tokens: int, answer_tokens: int | None) -> Lengths:
    """The longest request, divided: unless it is said, the answer is 256 tokens or a quarter of a short request."""
    answer = answer_tokens or max(1, min(USUAL_ANSWER_TOKENS, context_tokens // 4))
    return Lengths(prompt_tokens=max(1, context_tokens - answer), answer_tokens=answer)


def pace_of(
    option: Option,
    hardware: Hardware,
    wanted: Wanted,
    calibration: Calibration,
    prices: Mapping[str, CardPrice],
) -> Pace | None:
    """The option's speed under what is wanted; None where the card's bandwidth is not known."""
    lengths, requests, promise = wanted.lengths, wanted.requests, wanted.promise
    deployment = deployment_of(option.way, option.capacity, hardware)
    if deployment is None:
        return None
    each = max(1, math.ceil(min(requests, option.requests) / option.needed))
    alone = estimate(deployment, _load(lengths, 1), calibration)
    loaded = estimate(deployment, _load(lengths, each), calibration)
    traffic = Traffic(
        prompt_tokens=lengths.prompt_tokens, answer_tokens=lengths.answer_tokens, concurrent=each * option.needed
    )
    paid, kept = Fleet(replicas=option.needed, cards=option.cards, per_replica=each, speed=loaded, broken=None), None
    if promise.any:
        promised = replace(traffic, concurrent=requests, ttft_ms=promise.ttft_ms, itl_ms=promise.itl_ms)
        kept = fleet(deployment, promised, calibration)
        if kept.replicas is not None and kept.replicas < option.needed:
            kept = paid  # fast enough with fewer, whose caches do not hold the demand
        paid = kept
    price = prices.get(hardware.card.name)
    return Pace(
        lengths=lengths,
        alone=alone,
        loaded=loaded,
        concurrent=each,
        on_demand=cost(paid, traffic, price, spot=False),
        spot=cost(paid, traffic, price, spot=True),
        kept=kept,
    )


def deployment_of(way: Way, seen: Capacity, hardware: Hardware) -> Deployment | None:
    """One replica as the roofline takes it; None where the card's bandwidth or the cache is not known."""
    card, memory = card_of(hardware.card), seen.memory
    if card is None or memory is None or memory.pool is None:
        return None
    model, serving = way.model.architecture, seen.serving
    wide = serving.dtype_bytes or model.dtype_bytes
    elements = sum(group.elements for group in way.model.merged)
    packed = memory.ranks[0].term("weights") / elements if way.gguf else None
    return Deployment(
        model=model,
        engine=way.engine,
        card=card,
        layout=Layout(tensor=serving.tensor, pipeline=serving.pipeline),
        stored=Stored(
            scheme=way.scheme, dtype_bytes=wide, bytes_per_weight=packed, cache_bytes=serving.kv_bytes or wide
        ),
        cache_tokens=max(1.0, memory.pool.requests * serving.context_tokens),
    )


def _load(lengths: Lengths, concurrent: int) -> Load:
    return Load(prompt_tokens=lengths.prompt_tokens, answer_tokens=lengths.answer_tokens, concurrent=float(concurrent))
