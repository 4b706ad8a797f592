"""Does a model run on these cards, and for how many requests at once: the addition, and three questions of it. Pure.

    from gonogo.engines.capacity import capacity, model_of, Ask
    from gonogo.engines.hardware import parse_hardware
    seen = capacity(model_of("zai-org/GLM-4.5-Air", config), parse_hardware("8xH100"), Ask(tensor=4))
    seen.fit, seen.memory.tightest.terms, seen.memory.pool.requests

All sizes are bytes. A plan "fits" when the engine starts, when its cache holds one request of the asked length, and
when enough is left beside the cache for what the engine takes later. Not here: which of several ways is best
(`choose`), and how fast it is (`speed`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any, Iterable, Mapping

from gonogo.engines.hardware import Hardware
from gonogo.engines.planners import PLANNERS, Planner
from gonogo.engines.printed import lesson_key
from gonogo.engines.replica_memory import ReplicaMemory
from gonogo.engines.serving import Corrections, Device, Serving, Version
from gonogo.engines.shard import divides
from gonogo.facts.architecture import Architecture, Scheme
from gonogo.facts.model import Tensor
from gonogo.facts.parse_config import parse_config
from gonogo.facts.schemes import SCHEMES
from gonogo.facts.weights import Group, groups_from, groups_of, merge

GIB = 1024**3
TIGHT_BYTES = GIB // 2
"""A margin below this is told: memory outside torch and graphs of other cards were seen to differ by so much."""
BYTES_PER_FP16_WEIGHT = 2


class Fit(str, Enum):
    """tight: it fits with less than half a GiB to spare, or with less than the engine itself leaves free. unknown: no
    formula here covers the model."""

    FITS = "fits"
    TIGHT = "tight"
    DOES_NOT_FIT = "does_not_fit"
    UNKNOWN = "unknown"


class Question(str, Enum):
    """In the order in which an engine meets them."""

    DIVIDES = "divides"
    STARTS = "starts"
    HOLDS_ONE = "holds_one"
    HEAD_ROOM = "head_room"


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """One question and its answer. `margin_bytes`: to spare, negative when it is missing; None: it is not a size."""

    question: Question
    holds: bool
    margin_bytes: int | None
    values: Mapping[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model to plan for: its name, architecture and weights; `exact` when they are a checkpoint's own tensors."""

    name: str
    architecture: Architecture
    groups: tuple[Group, ...]
    exact: bool

    @cached_property
    def merged(self) -> tuple[Group, ...]:
        """The groups without their layers: enough where no stage holds some layers only, and much faster to add up."""
        return merge(self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked of one replica. None: as the engine, or the model, has it.

    `context_tokens`: of the longest request, prompt and answer. `quantization`: a scheme made while loading.
    `gguf`: the quantization of a GGUF file (llama.cpp).
    """

    engine: str = "vllm"
    version: Version | None = None
    context_tokens: int | None = None
    quantization: str | None = None
    gguf: str | None = None
    tensor: int = 1
    pipeline: int = 1
    share: float | None = None
    sequences: int | None = None
    batch_tokens: int | None = None
    kv_bytes: float | None = None
    image_tokens: int | None = None
    images: int | None = None
    encoder_copied: bool = False
    graphs: bool = True
    lessons: Mapping[str, Corrections] = field(default_factory=dict)
    """What engines printed before, by `lesson_key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The answer for one replica. `serving` is what was planned, with the engine's own choices filled in.

    `margin_bytes`: the least of the three margins; None where nothing could be added up.
    """

    model: Model
    planner: Planner
    device: Device
    serving: Serving
    share: float
    fit: Fit
    predicates: tuple[Predicate, ...]
    memory: ReplicaMemory | None

    @property
    def margin_bytes(self) -> int | None:
        margins = [one.margin_bytes for one in self.predicates if one.margin_bytes is not None]
        return min(margins, default=None)

    @property
    def failed(self) -> Predicate | None:
        """The first question that was answered no."""
        return next((one for one in self.predicates if not one.holds), None)

    @property
    def requests(self) -> int:
        """Whole requests of the asked length at once; at most as many as the engine lets into one step."""
        memory = self.memory
        if memory is None or memory.pool is None or self.fit is Fit.DOES_NOT_FIT:
            return 0
        return int(min(memory.pool.requests, memory.sequences or memory.pool.requests))


def model_of(name: str, config: Mapping[str, Any], tensors: Iterable[Tensor] | None = None) -> Model:
    """A model from its configuration and, where they were read, its tensors. Raises ConfigError (`facts.numbers`)."""
    architecture = parse_config(config)
    groups = groups_of(architecture) if tensors is None else groups_from(tensors, architecture)
    return Model(name=name, architecture=architecture, groups=groups, exact=tensors is not None)


def capacity(model: Model, device: Device | Hardware, ask: Ask) -> Capacity:
    """One replica of `ask.tensor` × `ask.pipeline` such cards.

    Raises ValueError for an engine or a quantization that is not planned, and for numbers below one.
    """
    planner = PLANNERS.get(ask.engine)
    if planner is None:
        raise ValueError(f"no plan for the engine {ask.engine!r}; planned: {', '.join(PLANNERS)}")
    if ask.quantization is not None and ask.quantization not in SCHEMES:
        raise ValueError(f"no plan for the quantization {ask.quantization!r}; planned: {', '.join(SCHEMES)}")
    counts = (ask.tensor, ask.pipeline, ask.context_tokens, ask.sequences, ask.batch_tokens)
    if any(count is not None and count < 1 for count in counts):
        raise ValueError(f"cards, stages, tokens and sequences are one or more: {counts}")
    card = device.device if isinstance(device, Hardware) else device
    serving = serving_of(model, planner, ask)
    learned = ask.lessons.get(lesson_key(planner.name, serving.version, card.name, serving.devices))
    if learned is not None:
        serving = replace(serving, corrections=learned)
    return capacity_of(model, planner, card, serving)


def capacity_of(model: Model, planner: Planner, device: Device, serving: Serving) -> Capacity:
    """The same for settings in the engine's own terms."""
    share = serving.share or planner.default_share(model.architecture, serving, device)
    serving = replace(serving, share=share)
    undivided = divides(model.architecture, serving.tensor)
    if undivided is not None:
        values: Mapping[str, str | int | float] = {"what": undivided, "tensor": serving.tensor}
        no = Predicate(question=Question.DIVIDES, holds=False, margin_bytes=None, values=values)
        return _answer(model, planner, device, serving, (no,), None)
    groups = model.groups if serving.pipeline > 1 else model.merged
    memory = planner.replica_memory(model.architecture, groups, serving, device)
    return _answer(model, planner, device, serving, _predicates(memory, serving), memory)


def serving_of(model: Model, planner: Planner, ask: Ask) -> Serving:
    """The engine's settings for what is asked."""
    context = ask.context_tokens or model.architecture.context_tokens or 4096
    scheme = Scheme(method=ask.quantization, skipped=frozenset({"vision"})) if ask.quantization else None
    return Serving(
        version=ask.version or planner.newest,
        context_tokens=context,
        share=ask.share,
        sequences=ask.sequences,
        batch_tokens=ask.batch_tokens,
        tensor=ask.tensor,
        pipeline=ask.pipeline,
        kv_bytes=ask.kv_bytes,
        scheme=scheme,
        gguf=ask.gguf,
        image_tokens=ask.image_tokens,
        images=ask.images,
        encoder_copied=ask.encoder_copied,
        graphs=ask.graphs,
    )


def estimate_gpu_memory(billion_parameters: float) -> float:
    """GiB that the weights of a model take in FP16, and nothing else: 175 → 325.96.

    For readers of the deployment guide, whose function of this name gives 1629.81 for 175: it counts the bytes twice
    (× 2e9 × 2, where FP16 is 2 bytes), adds "activations" of 1.5 × weights, which is a figure of training (serving
    takes 0.2 to 7.4 GiB for text models, set by the vocabulary and the number of sequences, not by the weights), and
    leaves out the KV cache, which is what limits serving. The real answer, from the model's own tensors, with cache,
    activations and the engine's share of the card, is `capacity` in this module and `gonogo fit MODEL --on HARDWARE`.

    Raises ValueError for a number that is not positive and finite.
    """
    if not 0 < billion_parameters < float("inf"):
        raise ValueError(f"{billion_parameters!r} billion parameters: a positive number was expected")
    return billion_parameters * 1e9 * BYTES_PER_FP16_WEIGHT / GIB


def _predicates(memory: ReplicaMemory, serving: Serving) -> tuple[Predicate, ...]:
    rank, pool = memory.tightest, memory.pool
    begins = min(one.free_bytes - one.budget_bytes for one in memory.ranks)
    loads = min(one.free_bytes - one.loading_bytes for one in memory.ranks)
    left = min(rank.cache_bytes, loads)
    starts = Predicate(
        question=Question.STARTS,
        holds=begins >= 0 and left > 0,
        margin_bytes=min(begins or left, left),  # 0: the engine takes what is free, and asks for no share
        values={"free": rank.free_bytes, "budget": rank.budget_bytes, "left": left, "loads": loads},
    )
    if pool is None:
        return (starts,)
    held = Predicate(
        question=Question.HOLDS_ONE,
        holds=pool.requests >= 1,
        margin_bytes=rank.cache_bytes - pool.request_bytes,
        values={"tokens": pool.tokens, "asked": serving.context_tokens, "requests": round(pool.requests, 2)},
    )
    spare = min(one.slack_bytes - one.reserve_bytes for one in memory.ranks)
    if not rank.outside and not rank.reserve_bytes:
        return (starts, held)
    room = Predicate(
        question=Question.HEAD_ROOM,
        holds=spare >= 0,
        margin_bytes=spare,
        values={"slack": min(one.slack_bytes for one in memory.ranks), "reserve": rank.reserve_bytes},
    )
    return (starts, held, room)


def _answer(
    model: Model,
    planner: Planner,
    device: Device,
    serving: Serving,
    predicates: tuple[Predicate, ...],
    memory: ReplicaMemory | None,
) -> Capacity:
    margins = [one.margin_bytes for one in predicates if one.margin_bytes is not None]
    if not all(one.holds for one in predicates):
        fit = Fit.DOES_NOT_FIT
    elif model.architecture.oddity is not None or memory is None or memory.pool is None:
        fit = Fit.UNKNOWN
    else:
        fit = Fit.TIGHT if memory.strained or min(margins, default=0) < TIGHT_BYTES else Fit.FITS
    return Capacity(
        model=model,
        planner=planner,
        device=device,
        serving=serving,
        share=serving.share or 1.0,
        fit=fit,
        predicates=predicates,
        memory=memory,
    )
