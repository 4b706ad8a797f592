"""The whole answer of `gonogo fit`, as plain values: what the command prints, and what `--json` gives. Pure.

Sizes are in bytes under names that end in `_bytes`; shares are fractions; a key whose value is None was not known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Mapping, Sequence

from gonogo.engines.capacity import Ask, Capacity, Fit
from gonogo.engines.hardware import Hardware
from gonogo.engines.planners import PLANNERS
from gonogo.facts.schemes import SCHEMES
from gonogo.facts.weights import parameters
from gonogo.plan.choose import Choice, Demand, Fallen, Option, Way, bits, choose
from gonogo.plan.efficiency import Calibration
from gonogo.plan.fleet import Cost, Fleet
from gonogo.plan.pace import NOTHING, Pace, Promise, Wanted, lengths_of, pace_of
from gonogo.plan.prices import CardPrice
from gonogo.plan.remedies import Remedy, remedies
from gonogo.plan.speed import Range, Speed

MOST_FALLEN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was chosen of the ways, what fell, and what would make the first way fit where it is not the chosen one."""

    name: str
    hardware: Hardware
    choice: Choice
    first: Way
    remedies: tuple[Remedy, ...]
    paces: tuple[Pace | None, ...] = ()
    """Of each option, in their order; empty: not asked for."""

    @property
    def fit(self) -> Fit:
        """Of the best way; does_not_fit where none fits."""
        best = self.choice.best
        return best.capacity.fit if best is not None else Fit.DOES_NOT_FIT


def answer(name: str, ways: Sequence[Way], hardware: Hardware, demand: Demand, ask: Ask) -> Answer:
    """Choose, and look for remedies where the first way was not chosen or the demand is not held."""
    choice = choose(ways, hardware, demand, ask)
    best = choice.best
    content = best is not None and best.way is ways[0] and choice.holds_demand
    found = () if content else remedies(ways, hardware, demand, ask)
    return Answer(name=name, hardware=hardware, choice=choice, first=ways[0], remedies=found)


def with_paces(
    found: Answer,
    answer_tokens: int | None,
    calibration: Calibration,
    prices: Mapping[str, CardPrice],
    promise: Promise = NOTHING,
) -> Answer:
    """The answer with the speed and cost of each option under the demand."""
    demand = found.choice.demand
    lengths = lengths_of(demand.context_tokens, answer_tokens)
    wanted = Wanted(requests=demand.concurrent_requests, lengths=lengths, promise=promise)
    paces = tuple(pace_of(option, found.hardware, wanted, calibration, prices) for option in found.choice.options)
    return replace(found, paces=paces)


def as_plain(found: Answer) -> dict[str, Any]:
    """The answer as values that JSON knows."""
    hardware, demand = found.hardware, found.choice.demand
    model = found.first.model
    return {
        "model": found.name,
        "parameters": parameters(model.groups),
        "weights_known_from": "tensors" if model.exact else "configuration",
        "oddity": model.architecture.oddity,
        "trained_context_tokens": model.architecture.context_tokens,
        "hardware": {
            "count": hardware.count,
            "card": hardware.card.name,
            "usable_bytes": hardware.limits.usable_bytes,
            "usable_printed": hardware.limits.printed,
            "compute_capability": ".".join(map(str, hardware.limits.capability)),
        },
        "asked": {"concurrent_requests": demand.concurrent_requests, "context_tokens": demand.context_tokens},
        "fit": found.fit.value,
        "holds_demand": found.choice.holds_demand,
        "first": way_as_plain(found.first),
        "chosen_first": found.choice.best is not None and found.choice.best.way is found.first,
        "options": [
            {**_option(option, demand), "pace": _pace(pace)}
            for option, pace in zip_longest(found.choice.options, found.paces)
            if option is not None
        ],
        "fallen": [_fallen(fallen) for fallen in found.choice.fallen[:MOST_FALLEN]],
        "remedies": [_remedy(remedy) for remedy in found.remedies],
    }


def way_as_plain(way: Way) -> dict[str, Any]:
    """How the weights are stored, where they come from, and which engine serves them."""
    method = way.scheme.method if way.scheme is not None else None
    return {
        "engine": way.engine,
        "engine_title": PLANNERS[way.engine].title,
        "quantization": way.quantization,
        "bits": bits(way),
        "bytes_per_weight": None if way.gguf else SCHEMES[method].bytes_per_weight if method is not None else 2.0,
        "online": way.online,
        "gguf": way.gguf,
        "source": way.source,
        "official": way.official,
    }


def capacity_as_plain(seen: Capacity) -> dict[str, Any]:
    """The addition of the tightest rank, the cache, and the margin."""
    memory, serving = seen.memory, seen.serving
    plain: dict[str, Any] = {
        "engine_version": ".".join(map(str, serving.version)),
        "fit": seen.fit.value,
        "tensor_parallel": serving.tensor,
        "pipeline_parallel": serving.pipeline,
        "share": seen.share,
        "share_flag": seen.planner.share_flag or None,
        "margin_bytes": seen.margin_bytes,
        "strained": memory is not None and memory.strained,
        "prompt_tokens": None if memory is None else memory.prompt_tokens,
        "requests": seen.requests,
        "questions": [
            {"question": one.question.value, "holds": one.holds, "margin_bytes": one.margin_bytes}
            for one in seen.predicates
        ],
    }
    if memory is None:
        return plain
    rank = memory.tightest
    plain["memory"] = {
        "card_bytes": seen.device.total_bytes,
        "budget_bytes": rank.budget_bytes,
        "terms": [_term(term.name, term.size_bytes, term.source) for term in rank.terms],
        "cache_bytes": rank.cache_bytes,
        "outside": [_term(term.name, term.size_bytes, term.source) for term in rank.outside],
        "slack_bytes": rank.slack_bytes,
        "reserve_bytes": rank.reserve_bytes,
    }
    if memory.pool is not None:
        pool = memory.pool
        plain["cache"] = {
            "tokens": pool.tokens,
            "blocks": pool.blocks,
            "block_tokens": pool.block_tokens,
            "request_bytes": pool.request_bytes,
            "requests": round(pool.requests, 2),
        }
    return plain


def _option(option: Option, demand: Demand) -> dict[str, Any]:
    return {
        **way_as_plain(option.way),
        "spare_bytes": option.spare_bytes(demand),
        "replicas": option.replicas,
        "replicas_needed": option.needed,
        "cards_needed": option.cards,
        "requests_in_all": option.requests,
        "capacity": capacity_as_plain(option.capacity),
    }


def _pace(pace: Pace | None) -> dict[str, Any] | None:
    if pace is None:
        return None
    return {
        "prompt_tokens": pace.lengths.prompt_tokens,
        "answer_tokens": pace.lengths.answer_tokens,
        "alone": _speed(pace.alone),
        "loaded": {"concurrent_requests": pace.concurrent, **_speed(pace.loaded)},
        "price_on_demand": _cost(pace.on_demand),
        "price_spot": _cost(pace.spot),
        "kept": None if pace.kept is None else _kept(pace.kept),
    }


def _kept(found: Fleet) -> dict[str, Any]:
    """`broken`: the promise that not even one request alone keeps; then the others are None."""
    return {"replicas": found.replicas, "cards": found.cards, "per_replica": found.per_replica, "broken": found.broken}


def _speed(speed: Speed) -> dict[str, Any]:
    return {
        "ttft_ms": None if speed.ttft_ms is None else _range(speed.ttft_ms),
        "itl_ms": _range(speed.itl_ms),
        "output_tokens_per_s": _range(speed.output_tokens_per_s),
        "measured_on": speed.level,
        "step": [{"work": term.kind.value, "ms": round(term.ms, 3), "bound": term.bound} for term in speed.step],
    }


def _cost(price: Cost | None) -> dict[str, Any] | None:
    if price is None:
        return None
    return {
        "usd_per_hour": round(price.usd_per_hour, 4),
        "usd_per_million_output": _range(price.per_million_output),
        "usd_per_million_total": _range(price.per_million_total),
        "source": price.source,
        "date": price.date,
    }


def _range(found: Range) -> dict[str, float]:
    return {name: float(f"{getattr(found, name):.4g}") for name in ("low", "middle", "high")}


def _fallen(fallen: Fallen) -> dict[str, Any]:
    return {
        **way_as_plain(fallen.way),
        "reason": fallen.reason,
        "values": dict(fallen.values),
        "tensor_parallel": fallen.tensor,
        "pipeline_parallel": fallen.pipeline,
        "capacity": capacity_as_plain(fallen.capacity) if fallen.capacity is not None else None,
    }


def _remedy(remedy: Remedy) -> dict[str, Any]:
    return {
        "reason": remedy.reason,
        "cost": remedy.cost,
        "values": dict(remedy.values),
        "capacity": capacity_as_plain(remedy.capacity),
    }


def _term(name: str, size_bytes: int, source: str) -> Mapping[str, Any]:
    return {"name": name, "size_bytes": size_bytes, "source": source}
