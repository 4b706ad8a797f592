"""How fast a deployment answers: time to the first token, between tokens, and tokens per second, as ranges. Pure.

A roofline per operation: an operation takes the longer of moving its bytes and doing its arithmetic, at the efficiency
that this engine reached on this card, plus what each layer and message costs whatever its size. Under load the prompts
of other requests are read between the tokens of one (continuous batching), and those that the cache cannot hold wait.
The range is where 80 % of measurements of models that were left out of the fit lay (`docs/benchmarks.md`), but never
below what the card's data sheet allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Mapping

from gonogo.facts.architecture import Architecture
from gonogo.plan.efficiency import Calibration, Efficiency, efficiency, spread
from gonogo.plan.roofline import Batch, Card, Kind, Layout, Operation, Stored, operations

CHUNK_TOKENS = 8192
"""A longer prompt is read in steps of so many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One replica: what runs where. `engine` as in `gonogo.engines` (vllm, sglang, llama.cpp, …).

    `cache_tokens`: what all cards' caches hold together, as the memory plan says; None: nothing has to wait for cache.
    `separate_prefill`: prompts are read on other cards, so that they do not come between the tokens of an answer.
    """

    model: Architecture
    engine: str
    card: Card
    layout: Layout
    stored: Stored
    cache_tokens: float | None = None
    separate_prefill: bool = False

    @property
    def scheme(self) -> str:
        """How weights are stored, as the calibration names it."""
        method = "16" if self.stored.scheme is None else self.stored.scheme.method
        method = method if self.stored.bytes_per_weight is None else "packed"
        return method if self.model.experts is None else f"{method} experts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests of `prompt_tokens` and `answer_tokens`, `concurrent` of them at all times (a closed loop).

    `together`: they start at one moment and have equal lengths, so that all prompts are read before the answers: so do
    some benchmarks, never users.
    """

    prompt_tokens: float
    answer_tokens: float
    concurrent: float = 1
    together: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Low, middle and high; in the unit that the field's name ends with."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """What one kind of work costs in a step, in milliseconds; `bound` by memory, arithmetic, link or latency."""

    kind: Kind
    ms: float
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """The answer for one replica. `itl_ms`: between two tokens of one request (TPOT); `output_tokens_per_s`: of all.

    `ttft_ms` is None where the card's arithmetic has no source. `running`: requests served at once, the others wait.
    `step`: one decode step, its terms add up to `step_ms`; what prompts of others add is `interference_ms`. `level`:
    whose measurements the range comes from.
    """

    ttft_ms: Range | None
    itl_ms: Range
    output_tokens_per_s: Range
    running: float
    step_ms: float
    interference_ms: float
    step: tuple[Term, ...]
    level: str
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Middles:
    """The middle of each range, in seconds and per second, and what it was added up from.

    `prompt_s`: to read one prompt while nothing else runs. `floor_s`: a step at the card's peaks; nothing is faster.
    """

    ttft_s: float | None
    prompt_s: float | None
    itl_s: float
    output_tokens_per_s: float
    running: float
    step_s: float
    interference_s: float
    floor_s: float
    terms: tuple[Term, ...]


def estimate(deployment: Deployment, load: Load, calibration: Calibration) -> Speed:
    """How fast, as ranges. Requests and lengths must be positive."""
    _bounded(load)
    engine, card, scheme = deployment.engine, deployment.card, deployment.scheme
    reached = efficiency(calibration, engine, card, scheme)
    middle = middles(deployment, load, reached)

    def ranged(quantity: str, value: float) -> tuple[Range, str]:
        found, level = spread(calibration, quantity, engine, card, scheme)
        return Range(low=value * math.exp(found.low), middle=value, high=value * math.exp(found.high)), level

    itl, level = ranged("itl", middle.itl_s * 1e3)
    itl = replace(itl, low=max(itl.low, min(itl.middle, middle.floor_s * 1e3)))
    rate = ranged("throughput", middle.output_tokens_per_s)[0]
    most = middle.running / middle.floor_s if middle.floor_s else rate.high
    return Speed(
        ttft_ms=None if middle.ttft_s is None else ranged("ttft", middle.ttft_s * 1e3)[0],
        itl_ms=itl,
        output_tokens_per_s=replace(rate, high=min(rate.high, max(rate.middle, most))),
        running=middle.running,
        step_ms=middle.step_s * 1e3,
        interference_ms=middle.interference_s * 1e3,
        step=middle.terms,
        level=level,
        known=reached.known,
    )


def middles(deployment: Deployment, load: Load, reached: Efficiency) -> Middles:
    """Without ranges. What waits for the cache waits until a running request has finished."""
    running = running_requests(deployment, load)
    work = operations(deployment.model, deployment.layout, deployment.stored, decode_batch(load, running))
    terms = tuple(_term(one, deployment.card, reached) for one in work)
    fixed = reached.constants["step_s"] + reached.constants["sequence_s"] * running / deployment.layout.data
    step = sum(term.ms for term in terms) / 1e3 + fixed
    prompt = prompt_seconds(deployment, load, reached)
    others = max(0.0, running / deployment.layout.data - 1)
    felt = reached.constants["interference_together" if load.together else "interference"]
    extra = 0.0 if prompt is None or deployment.separate_prefill else felt * others * prompt[1] / load.answer_tokens
    itl = step + extra
    first = None if prompt is None else _first(prompt[0], itl, load, others, reached)
    cycle = load.answer_tokens * itl + (0.0 if first is None else first)
    rate = running / cycle
    waiting = max(0.0, load.concurrent - running) / rate if rate else 0.0
    return Middles(
        ttft_s=None if first is None else first + waiting,
        prompt_s=None if prompt is None else prompt[0],
        itl_s=itl,
        output_tokens_per_s=rate * load.answer_tokens,
        running=running,
        step_s=step,
        interference_s=extra,
        floor_s=sum(_at_peak_s(one, deployment.card) for one in work),
        terms=(*terms, Term(kind=Kind.LAYERS, ms=fixed * 1e3, bound="step")),
    )


def decode_batch(load: Load, running: float) -> Batch:
    """A step in the middle of the answers: each request has its prompt and half of its answer behind it."""
    context = load.prompt_tokens + load.answer_tokens / 2
    return Batch(tokens=running, sequences=running, context_tokens=context, cached_tokens=context, decode=True)


def prompt_batch(load: Load, groups: int) -> Batch:
    """One prompt per group of attention: each token attends to half of the prompt on average."""
    prompt = load.prompt_tokens
    return Batch(
        tokens=prompt * groups,
        sequences=float(groups),
        context_tokens=prompt / 2,
        cached_tokens=prompt,
        decode=False,
    )


def prompt_seconds(deployment: Deployment, load: Load, reached: Efficiency) -> tuple[float, float] | None:
    """Seconds to read one prompt alone, and what it adds to a step that runs anyway. None: arithmetic has no source."""
    if deployment.card.flops_fp16 is None:
        return None
    batch = prompt_batch(load, deployment.layout.data)
    work = operations(deployment.model, deployment.layout, deployment.stored, batch)
    steps = math.ceil(load.prompt_tokens / CHUNK_TOKENS)
    alone = added = 0.0
    for one in work:
        alone += _term(one, deployment.card, reached).ms / 1e3
        alone += (steps - 1) * reached.latency_s(one.kind) * one.count
        added += _arithmetic_s(one, deployment.card, reached) + _link_s(one, deployment.card, reached)
    return alone + steps * reached.constants["step_s"], added


def _first(prompt_s: float, itl_s: float, load: Load, others: float, reached: Efficiency) -> float:
    """A new request waits for the step that runs, and for the prompts that came before its own."""
    busy = prompt_s / (prompt_s + load.answer_tokens * itl_s)
    ahead = others / 2 if load.together else reached.constants["waiting"] * others * busy
    return reached.constants["first_s"] + itl_s + prompt_s * (1 + ahead)


def running_requests(deployment: Deployment, load: Load) -> float:
    """Requests whose cache fits at once: each holds its prompt and, on average, half of its answer."""
    if deployment.cache_tokens is None:
        return load.concurrent
    held = load.prompt_tokens + load.answer_tokens / 2
    return max(1.0, min(load.concurrent, deployment.cache_tokens / held))


def _term(one: Operation, card: Card, reached: Efficiency) -> Term:
    seconds: Mapping[str, float] = {
        "memory": 0.0 if one.kind is Kind.MESSAGES else one.bytes / (card.memory_bytes_per_s * reached.share(one.kind)),
        "arithmetic": _arithmetic_s(one, card, reached),
        "link": _link_s(one, card, reached),
        "latency": reached.latency_s(one.kind) * one.count,
    }
    moved = max(seconds["memory"], seconds["arithmetic"]) + seconds["link"]
    bound = max(seconds, key=lambda name: seconds[name])
    return Term(kind=one.kind, ms=(moved + seconds["latency"]) * 1e3, bound=bound)


def _at_peak_s(one: Operation, card: Card) -> float:
    if one.kind is Kind.MESSAGES:
        return 0.0
    peak = card.flops(one.bits)
    return max(one.bytes / card.memory_bytes_per_s, 0.0 if peak is None else one.flops / peak)


def _arithmetic_s(one: Operation, card: Card, reached: Efficiency) -> float:
    peak = card.flops(one.bits)
    return 0.0 if peak is None else one.flops / (peak * reached.arithmetic(one.kind, one.bits))


def _link_s(one: Operation, card: Card, reached: Efficiency) -> float:
    if one.kind is not Kind.MESSAGES or not one.bytes:
        return 0.0
    link = card.link_bytes_per_s or SLOWEST_LINK
    return one.bytes / (link * reached.constants["link"])


def _bounded(load: Load) -> None:
    if min(load.prompt_tokens, load.answer_tokens, load.concurrent) <= 0:
        raise ValueError(f"a load needs positive lengths and requests, not {load}")


SLOWEST_LINK = 16e9
"""Bytes per second of PCIe 3.0 × 16: what a link without a source is taken for."""
