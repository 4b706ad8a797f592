"""Fits the constants of `gonogo.plan.efficiency` to samples, robustly, each level pulled towards its parent.

Predictions here are those of `gonogo.plan.speed.middles`, written a second time over arrays (numpy) so that a fit takes
seconds; `speed.py` says by how much they differ. Not here: what is measured (`speed_rows`), how good it is (`speed`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Sequence, TypeAlias

import numpy as np
from speed_rows import Sample

from gonogo.plan.efficiency import _AFFECTED, CONSTANTS, EFFECTS, Calibration, Effect, Spread, levels
from gonogo.plan.roofline import Batch, Kind, operations
from gonogo.plan.speed import CHUNK_TOKENS, SLOWEST_LINK, decode_batch, prompt_batch, running_requests

PRIOR: dict[str, tuple[float, float]] = {
    # constant: where it starts, and by how much (in logarithms) it may easily move
    "weights": (0.75, 0.3),
    "experts": (0.55, 0.3),
    "head": (0.7, 0.3),
    "cache": (0.5, 0.4),
    "compute_16": (0.55, 0.3),
    "compute_8": (0.45, 0.3),
    "compute_4": (0.3, 0.4),
    "attention_compute": (0.35, 0.5),
    "expert_compute": (0.5, 0.4),
    "link": (0.6, 0.5),
    "message_s": (8e-6, 0.5),
    "layer_s": (20e-6, 0.6),
    "expert_layer_s": (15e-6, 0.6),
    "special_layer_s": (15e-6, 0.6),
    "step_s": (5e-4, 0.8),
    "sequence_s": (5e-6, 1.0),
    "interference": (0.9, 0.2),
    "interference_together": (0.1, 0.7),
    "first_s": (0.02, 1.0),
    "waiting": (0.5, 0.7),
}
EFFECT_WIDTH = {"speed": 0.25, "delay": 0.35, "compute": 0.25, "first": 0.4}
MODEL = "model"
LEVEL_WIDTH = (1.0, 1.0, 1.0, 0.6, 0.5, 0.6)
"""How far an effect may easily go, by level from general to particular."""
NOISE, HEAVY = 0.20, 1.5
CROWD = 0.7
WEIGHTS = {"serving": 1.0, "single stream": 1.0, "llama.cpp answer": 1.0, "offline": 0.5}
OTHER_WEIGHT, TTFT_WEIGHT = 0.4, 0.5
ROUNDS = 10
NEEDED_ROWS, NEEDED_MODELS = 12, 5
COVERED, MARGIN = 0.80, 0.05
"""Of measurements that the stated range is to cover; so much wider at each end, as a new model differs from the old."""
UNMEASURED = math.log(10)
"""Half the width of a range (in logarithms) where nothing at all was measured."""

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
BITS = (16, 8, 4)
KINDS = [kind for kind in Kind if kind is not Kind.MESSAGES]


@dataclass
class Table:
    """Samples as arrays; one row each."""

    samples: list[Sample]
    models: Array
    memory: Array
    flops: Array
    counts: Array
    link: Array
    prompt_memory: Array
    prompt_flops: Array
    prompt_counts: Array
    prompt_link: Array
    running: Array
    groups: Array
    answer: Array
    concurrent: Array
    steps: Array
    computed: Array
    separate: Array
    together: Array
    observed: Array
    first: Array
    effects: Array
    names: list[str]
    quantity: Array
    weight: Array


def table(samples: Sequence[Sample]) -> Table:
    """Everything that does not depend on what is fitted."""
    names = sorted({level for one in samples for level in _levels(one)})
    at = {name: index for index, name in enumerate(names)}
    member = np.zeros((len(samples), len(names)))
    decode, prompt = [], []
    for index, one in enumerate(samples):
        for level in _levels(one):
            member[index, at[level]] = 1
        running = running_requests(one.deployment, one.load)
        decode.append(_arrays(one, decode_batch(one.load, running)))
        prompt.append(_arrays(one, prompt_batch(one.load, one.deployment.layout.data)))
    crowd = Counter((one.model, one.deployment.engine, one.deployment.card.generation, one.kind) for one in samples)
    weight = [
        WEIGHTS.get(one.kind, OTHER_WEIGHT)
        / crowd[(one.model, one.deployment.engine, one.deployment.card.generation, one.kind)] ** CROWD
        for one in samples
    ]
    return Table(
        samples=list(samples),
        models=np.array([one.model for one in samples]),
        memory=np.array([one[0] for one in decode]),
        flops=np.array([one[1] for one in decode]),
        counts=np.array([one[2] for one in decode]),
        link=np.array([one[3] for one in decode]),
        prompt_memory=np.array([one[0] for one in prompt]),
        prompt_flops=np.array([one[1] for one in prompt]),
        prompt_counts=np.array([one[2] for one in prompt]),
        prompt_link=np.array([one[3] for one in prompt]),
        running=np.array([running_requests(one.deployment, one.load) for one in samples]),
        groups=np.array([float(one.deployment.layout.data) for one in samples]),
        answer=np.array([one.load.answer_tokens for one in samples]),
        concurrent=np.array([one.load.concurrent for one in samples]),
        steps=np.array([math.ceil(one.load.prompt_tokens / CHUNK_TOKENS) for one in samples]),
        computed=np.array([one.deployment.card.flops_fp16 is not None for one in samples]),
        separate=np.array([one.deployment.separate_prefill for one in samples]),
        together=np.array([one.load.together for one in samples]),
        observed=np.log([one.value for one in samples]),
        first=np.array([math.log(one.ttft_s) if one.ttft_s else np.nan for one in samples]),
        effects=member,
        names=names,
        quantity=np.array([one.quantity for one in samples]),
        weight=np.array(weight),
    )


def _levels(one: Sample) -> tuple[str, ...]:
    """The levels of a calibration, and one for this model under this engine, which only the fit knows: what is peculiar
    to a model must not be taken for its engine's or its card's."""
    known = levels(one.deployment.engine, one.deployment.card, one.deployment.scheme)
    return (*known, f"{MODEL}/{one.deployment.engine}/{one.model}")


def without_models(data: Table, vector: Array) -> Array:
    """As it is known for a model that was never measured."""
    made = vector.copy()
    for index, name in enumerate(data.names):
        if name.startswith(MODEL):
            at = len(CONSTANTS) + index * len(EFFECTS)
            made[at : at + len(EFFECTS)] = 0.0
    return np.asarray(made)


def _arrays(one: Sample, batch: Batch) -> tuple[Array, Array, Array, float]:
    """Seconds at peak to move and to compute, [kind, bits]; counts by latency; seconds at peak on the link."""
    card = one.deployment.card
    memory, flops = np.zeros((len(KINDS), 3)), np.zeros((len(KINDS), 3))
    counts, link = np.zeros(4), 0.0
    for work in operations(one.deployment.model, one.deployment.layout, one.deployment.stored, batch):
        if work.kind is Kind.MESSAGES:
            counts[0] += work.count
            link += work.bytes / (card.link_bytes_per_s or SLOWEST_LINK)
            continue
        slot = {Kind.LAYERS: 1, Kind.EXPERT_LAYERS: 2, Kind.SPECIAL_LAYERS: 3}.get(work.kind)
        if slot is not None:
            counts[slot] += work.count
            continue
        row, column = KINDS.index(work.kind), BITS.index(work.bits)
        memory[row, column] += work.bytes / card.memory_bytes_per_s
        peak = card.flops(work.bits)
        flops[row, column] += 0.0 if peak is None else work.flops / peak
    return memory, flops, counts, link


_SHARE = [
    {Kind.EXPERTS: "experts", Kind.HEAD: "head", Kind.CACHE: "cache", Kind.STATE: "cache"}.get(kind, "weights")
    for kind in KINDS
]
_SLOT = ("message_s", "layer_s", "expert_layer_s", "special_layer_s")


def predict(data: Table, constants: dict[str, float], effects: Array) -> tuple[Array, Array]:
    """ln of the sample's quantity, and ln of the time to the first token. `effects`: [level, EFFECTS]."""
    sums = data.effects @ effects
    scale = {name: np.exp(sums[:, at]) for at, name in enumerate(EFFECTS)}
    value = {
        name: number * (scale[_AFFECTED[name]] if name in _AFFECTED else np.ones(len(data.samples)))
        for name, number in constants.items()
    }
    share = np.stack([value[name] for name in _SHARE], axis=1)[:, :, None]
    arithmetic = np.stack([value["compute_16"], value["compute_8"], value["compute_4"]], axis=1)
    arithmetic = np.repeat(arithmetic[:, None, :], len(KINDS), axis=1)
    arithmetic[:, KINDS.index(Kind.EXPERTS), :] *= value["expert_compute"][:, None]
    arithmetic[:, KINDS.index(Kind.CACHE), :] = value["attention_compute"][:, None]
    latency = np.stack([value[name] for name in _SLOT], axis=1)

    def step(memory: Array, flops: Array, counts: Array, link: Array) -> Array:
        moved = np.maximum(memory / share, flops / arithmetic).sum(axis=(1, 2))
        return np.asarray(moved + link / value["link"] + (counts * latency).sum(axis=1))

    base = step(data.memory, data.flops, data.counts, data.link)
    base = base + value["step_s"] + value["sequence_s"] * data.running / data.groups
    prompt = step(data.prompt_memory, data.prompt_flops, data.prompt_counts, data.prompt_link)
    prompt = prompt + (data.steps - 1) * (data.prompt_counts * latency).sum(axis=1) + data.steps * value["step_s"]
    added = (data.prompt_flops / arithmetic).sum(axis=(1, 2)) + data.prompt_link / value["link"]
    others = np.maximum(0.0, data.running / data.groups - 1)
    added = np.where(data.separate | ~data.computed, 0.0, added)
    felt = np.where(data.together, value["interference_together"], value["interference"])
    itl = base + felt * others * added / data.answer
    busy = prompt / (prompt + data.answer * itl)
    ahead = np.where(data.together, others / 2, value["waiting"] * others * busy)
    first = value["first_s"] + itl + prompt * (1 + ahead)
    first = np.where(data.computed, first, 0.0)
    rate = data.running / (data.answer * itl + first)
    waiting = np.maximum(0.0, data.concurrent - data.running) / rate
    out = np.where(data.quantity == "itl_s", itl, prompt)
    out = np.where(data.quantity == "duration_s", prompt + data.answer * itl, out)
    out = np.where(data.quantity == "tokens_per_s", rate * data.answer, out)
    return np.log(out), np.log(np.maximum(first + waiting, 1e-9))


def unpack(vector: Array, levels_count: int) -> tuple[dict[str, float], Array]:
    constants = {name: float(np.exp(vector[at])) for at, name in enumerate(CONSTANTS)}
    return constants, vector[len(CONSTANTS) :].reshape(levels_count, len(EFFECTS))


def fit(data: Table, used: Array, start: Array | None = None) -> Array:
    """The most likely vector given the rows `used`: Gauss-Newton, Huber's weights, normal priors."""
    size = len(CONSTANTS) + len(data.names) * len(EFFECTS)
    center = np.zeros(size)
    width = np.empty(size)
    for at, name in enumerate(CONSTANTS):
        center[at], width[at] = math.log(PRIOR[name][0]), PRIOR[name][1]
    for index, level in enumerate(data.names):
        depth = _depth(level)
        for at, effect in enumerate(EFFECTS):
            width[len(CONSTANTS) + index * len(EFFECTS) + at] = EFFECT_WIDTH[effect] * LEVEL_WIDTH[depth]
    vector = center.copy() if start is None else start.copy()
    seen_first = used & ~np.isnan(data.first) & data.computed
    known = used & (data.computed | (data.quantity == "itl_s"))

    def residual(at: Array) -> Array:
        constants, effects = unpack(at, len(data.names))
        main, first = predict(data, constants, effects)
        return np.concatenate([(data.observed - main)[known], (data.first - first)[seen_first]])

    scale = np.concatenate([np.sqrt(data.weight[known]), np.sqrt(data.weight[seen_first] * TTFT_WEIGHT)]) / NOISE
    active = _active(data, used)
    for _ in range(ROUNDS):
        here = residual(vector)
        slopes = np.zeros((len(here), size))
        for at in active:
            moved = vector.copy()
            moved[at] += 1e-4
            slopes[:, at] = (residual(moved) - here) / 1e-4
        robust = 1 / np.sqrt(1 + (here / NOISE / HEAVY) ** 2)
        left = slopes[:, active] * (scale * robust)[:, None]
        right = -(here * scale * robust)
        rule = np.diag(1 / width[active])
        pull = (center - vector)[active] / width[active]
        move, *_ = np.linalg.lstsq(np.vstack([left, rule]), np.concatenate([right, pull]), rcond=None)
        move = np.clip(move, -0.5, 0.5)
        vector[active] += move
        if np.abs(move).max() < 2e-3:
            break
    return np.asarray(vector)


def _active(data: Table, used: Array) -> Array:
    """Parameters that the rows say anything about; a level without rows stays at its parent."""
    seen = np.asarray(data.effects[used].any(axis=0))
    return np.array(
        [*range(len(CONSTANTS))]
        + [
            len(CONSTANTS) + index * len(EFFECTS) + at
            for index in range(len(data.names))
            if seen[index]
            for at in range(len(EFFECTS))
        ]
    )


def _depth(level: str) -> int:
    head = level.split("/")
    if head[0] == "generation":
        return 0
    if head[0] == MODEL:
        return 5
    if head[0] == "stored":
        return 2
    return {2: 1, 3: 3}.get(len(head), 4)


def calibration(data: Table, vector: Array, spreads: dict[str, dict[str, Spread]], source: str) -> Calibration:
    """The form in which `gonogo.plan.efficiency` takes it."""
    constants, effects = unpack(vector, len(data.names))
    rows = data.effects.sum(axis=0)
    return Calibration(
        constants=constants,
        effects={
            name: Effect(
                **{kind: round(float(effects[at, k]), 4) for k, kind in enumerate(EFFECTS)}, rows=int(rows[at])
            )
            for at, name in enumerate(data.names)
            if not name.startswith(MODEL)
        },
        spreads=spreads,
        source=source,
    )


def spreads(data: Table, left_out: dict[str, Array], used: Array) -> dict[str, dict[str, Spread]]:
    """Where measurements lay around predictions of left-out models, by quantity and level; every quantity has `all`."""
    made: dict[str, dict[str, Spread]] = {}
    for quantity, errors in left_out.items():
        seen = used & ~np.isnan(errors)
        by_level = {"all": _spread(errors[seen], data.models[seen])}
        for at, name in enumerate(data.names):
            here = seen & (data.effects[:, at] > 0)
            if here.sum() >= NEEDED_ROWS and len(set(data.models[here])) >= NEEDED_MODELS:
                by_level[name] = _spread(errors[here], data.models[here])
        made[quantity] = by_level
    return made


def _spread(errors: Array, models: Array) -> Spread:
    """Weighted quantiles: a model with many rows counts more than one with few, but not in proportion."""
    if not len(errors):
        return Spread(low=-UNMEASURED, high=UNMEASURED, rows=0)
    crowd = Counter(models)
    weight = np.array([crowd[one] ** -0.5 for one in models])
    order = np.argsort(errors)
    reached = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    tail = (1 - COVERED) / 2 - MARGIN
    low, high = np.interp([tail, 1 - tail], reached, errors[order])
    return Spread(low=round(float(min(low, 0.0)), 4), high=round(float(max(high, 0.0)), 4), rows=len(errors))
