"""Which way to serve a model on given cards: filter, fit, rank. Each stage keeps the reason why a way fell. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Iterator, Mapping, Sequence

from packaging.specifiers import SpecifierSet

from gonogo.engines.capacity import Ask, Capacity, Fit, Model, Question, capacity
from gonogo.engines.hardware import Hardware
from gonogo.engines.planners import PLANNERS
from gonogo.engines.serving import Version
from gonogo.facts.architecture import Scheme
from gonogo.facts.schemes import SCHEMES

WIDTHS = (1, 2, 4, 8, 16)
"""Accelerators per layer, and stages, that are tried."""
NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One form of the weights that can be obtained, and the engine that serves it.

    `quantization`: its name, `none` for 16 bit as trained. `online`: made by the engine from 16 bit while loading;
    `gguf`: a GGUF file.
    `source`: the repository or file. `official`: published by the model's authors. `most_tensor`: accelerators per
    layer at most, None: as the model divides; `tensor`: exactly so many, where the user fixed it. `encoder_copied`: as
    in `Serving`. `versions`: of the engine, that serve the model right (`>=0.12.0`); None: nobody says.
    """

    engine: str
    quantization: str
    model: Model
    source: str
    online: bool = False
    gguf: bool = False
    official: bool = True
    most_tensor: int | None = None
    tensor: int | None = None
    image_tokens: int | None = None
    images: int | None = None
    encoder_copied: bool = False
    versions: str | None = None

    @property
    def scheme(self) -> Scheme | None:
        """How the engine holds the weights; None: in 16 bit, or as GGUF."""
        if self.gguf:
            return None
        if self.online:
            return Scheme(method=self.quantization, skipped=frozenset({"vision"}))
        return self.model.architecture.scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What must be held at once: so many requests, each of so many tokens with its answer."""

    concurrent_requests: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way that fits: `replicas` of `capacity`, holding `requests` in all; `needed` of them hold the demand."""

    way: Way
    capacity: Capacity
    replicas: int
    needed: int

    @property
    def requests(self) -> int:
        return self.replicas * self.capacity.requests

    def spare_bytes(self, demand: Demand) -> int | None:
        """Left per card when the replicas that are needed hold the demand; None where nothing could be added up."""
        memory, margin = self.capacity.memory, self.capacity.margin_bytes
        if memory is None or memory.pool is None or margin is None:
            return margin
        held = min(math.ceil(demand.concurrent_requests / self.needed), self.capacity.requests)
        return min(margin, memory.tightest.cache_bytes - held * memory.pool.request_bytes)

    @property
    def cards(self) -> int:
        """Cards that the demand needs."""
        return self.needed * self.capacity.serving.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallen:
    """One way that fell, at its best division: the reason is a stable code, the values its numbers."""

    way: Way
    reason: str
    values: Mapping[str, str | int | float]
    tensor: int = 1
    pipeline: int = 1
    capacity: Capacity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The ways that fit, best first, and those that fell. `holds_demand`: whether the best holds all that was asked."""

    options: tuple[Option, ...]
    fallen: tuple[Fallen, ...]
    demand: Demand

    @property
    def best(self) -> Option | None:
        return self.options[0] if self.options else None

    @property
    def holds_demand(self) -> bool:
        return self.best is not None and self.best.requests >= self.demand.concurrent_requests


def choose(ways: Sequence[Way], hardware: Hardware, demand: Demand, ask: Ask) -> Choice:
    """The choice. `ask` holds what the user fixed (version, share, …); its engine and divisions are filled in here."""
    options: list[Option] = []
    fallen: list[Fallen] = []
    for way in ways:
        found, reasons = _tried(way, hardware, demand, ask)
        options += found
        if not found:
            fallen += reasons[-1:]
    order = {id(way): index for index, way in enumerate(ways)}
    options.sort(key=lambda option: _rank(option, demand, order[id(option.way)]))
    best_of_way: dict[int, Option] = {}
    for option in options:
        best_of_way.setdefault(id(option.way), option)
    return Choice(options=tuple(best_of_way.values()), fallen=tuple(fallen), demand=demand)


def divisions(cards: int, way: Way) -> Iterator[tuple[int, int]]:
    """(accelerators per layer, stages) that so many cards allow, fewest cards first."""
    planner = PLANNERS[way.engine]
    most = min(cards, way.most_tensor or cards, planner.most_tensor or cards)
    widths = [width for width in WIDTHS if width <= most] if way.tensor is None else [way.tensor]
    stages = [depth for depth in WIDTHS if depth <= cards] if planner.pipelines else [1]
    pairs = [(tensor, pipeline) for tensor in widths for pipeline in stages if tensor * pipeline <= cards]
    yield from sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair[1]))


def ask_for(way: Way, demand: Demand, ask: Ask, tensor: int = 1, pipeline: int = 1) -> Ask:
    """What is asked of one replica when this way is taken."""
    return replace(
        ask,
        engine=way.engine,
        version=_version_of(way, ask),
        quantization=way.quantization if way.online else None,
        gguf=way.quantization if way.gguf else None,
        context_tokens=demand.context_tokens,
        tensor=tensor,
        pipeline=pipeline,
        image_tokens=ask.image_tokens or way.image_tokens,
        images=ask.images if ask.images is not None else way.images,
        encoder_copied=ask.encoder_copied or way.encoder_copied,
    )


def barred(way: Way, hardware: Hardware, ask: Ask) -> Fallen | None:
    """Why this way cannot be taken on such a card whatever its size; None: it can."""
    planner, capability = PLANNERS[way.engine], hardware.limits.capability
    seen = ".".join(map(str, capability))
    if capability < planner.least_capability:
        values = {"card": hardware.card.name, "seen": seen, "needed": _dotted(planner.least_capability)}
        return Fallen(way=way, reason="CardTooOldForEngine", values={**values, "engine": planner.title})
    version = _version_of(way, ask) or planner.newest
    if way.versions is not None and not SpecifierSet(way.versions, prereleases=True).contains(_dotted(version)):
        return Fallen(
            way=way,
            reason="VersionUnfit",
            values={"engine": planner.title, "version": _dotted(version), "versions": way.versions},
        )
    method = way.scheme.method if way.scheme is not None else None
    served = planner.online if way.online else planner.schemes
    least = served.get(method) if method is not None else None
    if method is not None and (least is None or capability < least):
        values = {"card": hardware.card.name, "seen": seen, "needed": _dotted(least) if least else "—"}
        return Fallen(way=way, reason="CardTooOldForScheme", values={**values, "scheme": way.quantization})
    context = way.model.architecture.context_tokens
    if ask.context_tokens is not None and context is not None and ask.context_tokens > context:
        values_context: dict[str, str | int | float] = {"asked": ask.context_tokens, "trained": context}
        return Fallen(way=way, reason="ContextBeyondModel", values=values_context)
    return None


def _tried(way: Way, hardware: Hardware, demand: Demand, ask: Ask) -> tuple[list[Option], list[Fallen]]:
    no = barred(way, hardware, replace(ask, context_tokens=demand.context_tokens))
    if no is not None:
        return [], [no]
    found: list[Option] = []
    reasons: list[Fallen] = []
    for tensor, pipeline in divisions(hardware.count, way):
        seen = capacity(way.model, hardware, ask_for(way, demand, ask, tensor, pipeline))
        if seen.fit is Fit.DOES_NOT_FIT:
            reasons.append(_fell(way, seen, tensor, pipeline))
            continue
        replicas = hardware.count // (tensor * pipeline)
        held = max(1, seen.requests)
        needed = min(replicas, math.ceil(demand.concurrent_requests / held))
        found.append(Option(way=way, capacity=seen, replicas=replicas, needed=needed))
    reasons.sort(key=_margin)
    whole = [option for option in found if option.capacity.serving.pipeline == 1]
    return whole or found, reasons  # stages wait for each other: only where nothing else fits


def _fell(way: Way, seen: Capacity, tensor: int, pipeline: int) -> Fallen:
    failed = seen.failed
    reason = _REASONS[failed.question] if failed is not None else "DoesNotFit"
    values = failed.values if failed is not None else {}
    if failed is not None and failed.question is Question.STARTS and int(values["free"]) < int(values["budget"]):
        reason = "CardInUse"
    elif failed is not None and failed.question is Question.STARTS and int(values["loads"]) <= 0:
        reason = "NoRoomToQuantize"
    return Fallen(way=way, reason=reason, values=values, tensor=tensor, pipeline=pipeline, capacity=seen)


def _margin(fallen: Fallen) -> float:
    margin = fallen.capacity.margin_bytes if fallen.capacity is not None else None
    return -math.inf if margin is None else margin


def _rank(option: Option, demand: Demand, order: int) -> tuple[object, ...]:
    """Smaller is better: holds the demand, is certain, loses no quality, is not tight, takes few cards, came first."""
    enough = option.requests >= demand.concurrent_requests
    serving = option.capacity.serving
    return (
        option.capacity.fit is Fit.UNKNOWN,
        not enough,
        0 if enough else -option.requests,
        -bits(option.way),
        option.capacity.fit is Fit.TIGHT,
        option.cards,
        serving.pipeline,
        order,
        serving.tensor,
    )


def bits(way: Way) -> int:
    """Bits of a weight, as its scheme is named: 16 for weights as trained."""
    if way.gguf:
        named = re.search(r"\d+", way.quantization)
        return int(named.group()) if named is not None else 16
    return SCHEMES[way.scheme.method].bits if way.scheme is not None else 16


def _version_of(way: Way, ask: Ask) -> Version | None:
    """The version that was asked for, where it was asked of this engine."""
    return ask.version if ask.engine == way.engine else None


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


_REASONS: Mapping[Question, str] = {
    Question.DIVIDES: "DoesNotDivide",
    Question.STARTS: "NoRoomForWeights",
    Question.HOLDS_ONE: "NoRoomForOneRequest",
    Question.HEAD_ROOM: "NoHeadRoom",
}
