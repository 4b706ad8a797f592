"""How many replicas a demand needs, and what a million tokens cost. Pure.

A replica serves as many requests at once as its cache holds and the promised latencies allow; replicas = demand divided
by that, rounded up. Latencies are promised at the high end of their range, throughput is counted at its low end, so
that a plan that says "enough" is enough in 9 of 10 cases like those that were measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gonogo.plan.efficiency import Calibration
from gonogo.plan.prices import CardPrice
from gonogo.plan.speed import Deployment, Load, Range, Speed, estimate

MOST_CONCURRENT = 4096
SECONDS_PER_HOUR = 3600
MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What comes: requests of such lengths, either so many at once or so many per second; and what is promised.

    `ttft_ms`, `itl_ms`: no more than that, None: not promised.
    """

    prompt_tokens: float
    answer_tokens: float
    concurrent: float | None = None
    requests_per_s: float | None = None
    ttft_ms: float | None = None
    itl_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The answer. `replicas` None: not even one request at a time keeps the promise; then `broken` says which one.

    `per_replica`: requests at once that one replica is given; `speed`: of one replica at that load.
    """

    replicas: int | None
    cards: int | None
    per_replica: int
    speed: Speed
    broken: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """US dollars: per hour for all cards, and per million output tokens while they are fully used, as a range.

    `per_million_total`: the same money divided by prompt and answer tokens together.
    """

    usd_per_hour: float
    per_million_output: Range
    per_million_total: Range
    source: str
    date: str


def fleet(deployment: Deployment, traffic: Traffic, calibration: Calibration) -> Fleet:
    """Replicas for a traffic. Raises ValueError unless exactly one of `concurrent` and `requests_per_s` is given."""
    if (traffic.concurrent is None) == (traffic.requests_per_s is None):
        raise ValueError("a demand is either so many requests at once or so many per second")
    load = Load(prompt_tokens=traffic.prompt_tokens, answer_tokens=traffic.answer_tokens)
    alone = estimate(deployment, load, calibration)
    broken = _broken(alone, traffic)
    if broken is not None:
        return Fleet(replicas=None, cards=None, per_replica=0, speed=alone, broken=broken)
    most = _most(deployment, load, traffic, calibration)
    speed = estimate(deployment, replace(load, concurrent=most), calibration)
    if traffic.concurrent is not None:
        replicas = math.ceil(traffic.concurrent / most)
        share = math.ceil(traffic.concurrent / replicas)
        speed = estimate(deployment, replace(load, concurrent=share), calibration)
        most = share
    else:
        served = speed.output_tokens_per_s.low / traffic.answer_tokens
        replicas = max(1, math.ceil((traffic.requests_per_s or 0) / served))
    return Fleet(
        replicas=replicas, cards=replicas * deployment.layout.cards, per_replica=most, speed=speed, broken=None
    )


def cost(found: Fleet, traffic: Traffic, price: CardPrice | None, *, spot: bool) -> Cost | None:
    """What the fleet costs; None where there is no price for this card, or no fleet."""
    offer = None if price is None else price.spot if spot else price.on_demand
    if offer is None or found.cards is None or found.replicas is None:
        return None
    hourly = found.cards * offer.usd_per_hour
    rate = found.speed.output_tokens_per_s
    whole = (traffic.prompt_tokens + traffic.answer_tokens) / traffic.answer_tokens

    made = (rate.high, rate.middle, rate.low)
    low, middle, high = (hourly / (SECONDS_PER_HOUR * found.replicas * one) * MILLION for one in made)
    return Cost(
        usd_per_hour=hourly,
        per_million_output=Range(low=low, middle=middle, high=high),
        per_million_total=Range(low=low / whole, middle=middle / whole, high=high / whole),
        source=offer.source,
        date=offer.date,
    )


def _most(deployment: Deployment, load: Load, traffic: Traffic, calibration: Calibration) -> int:
    """The most requests at once of one replica that wait for no cache and keep the promise; at least one does."""
    low, high = 1, MOST_CONCURRENT
    while low < high:
        middle = (low + high + 1) // 2
        speed = estimate(deployment, replace(load, concurrent=middle), calibration)
        if speed.running >= middle and _broken(speed, traffic) is None:
            low = middle
        else:
            high = middle - 1
    return low


def _broken(speed: Speed, traffic: Traffic) -> str | None:
    if traffic.itl_ms is not None and speed.itl_ms.high > traffic.itl_ms:
        return "itl_ms"
    if traffic.ttft_ms is not None and (speed.ttft_ms is None or speed.ttft_ms.high > traffic.ttft_ms):
        return "ttft_ms"
    return None
