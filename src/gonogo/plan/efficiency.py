"""How well an engine on a card does the work of a step: a few constants, and how engines and cards differ. Pure.

Every number is fitted (`benchmarks/speed_fit.py`) and stored as data in `gonogo.plan.calibration`. An engine or card
that was never measured is answered from what is known of its parent (engine, generation of cards, everything), and then
the range is that of the parent, which is wider. Not here: what a step consists of (`gonogo.plan.roofline`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from gonogo.plan.roofline import Card, Kind

CONSTANTS = (
    "weights",
    "experts",
    "head",
    "cache",
    "compute_16",
    "compute_8",
    "compute_4",
    "attention_compute",
    "expert_compute",
    "link",
    "message_s",
    "layer_s",
    "expert_layer_s",
    "special_layer_s",
    "step_s",
    "sequence_s",
    "interference",
    "interference_together",
    "first_s",
    "waiting",
)
"""Shares of a card's peak (weights … link), seconds (…_s), and two factors of load; see `Efficiency`."""
EFFECTS = ("speed", "delay", "compute", "first")
"""What a level changes: bandwidth and compute reached, seconds of latency, arithmetic, time to the first token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """How one level differs from its parent, as natural logarithms (0: not at all); `rows` it was fitted to."""

    speed: float = 0.0
    delay: float = 0.0
    compute: float = 0.0
    first: float = 0.0
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far measurements lay from predictions of models that were left out: ln(measured ÷ predicted)."""

    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """All that was fitted: `effects` by level (see `levels`), `spreads` by quantity (itl, ttft, …) and level."""

    constants: Mapping[str, float]
    effects: Mapping[str, Effect]
    spreads: Mapping[str, Mapping[str, Spread]]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """The constants for one engine on one card, all effects applied, and where they come from.

    `known`: the levels that were measured, most particular last; empty: nothing like it ever was.
    """

    constants: Mapping[str, float]
    known: tuple[str, ...]

    def share(self, kind: Kind) -> float:
        """Of the card's memory bandwidth."""
        return self.constants[_SHARES.get(kind, "weights")]

    def arithmetic(self, kind: Kind, bits: int) -> float:
        """Of the card's arithmetic with such operands."""
        if kind is Kind.CACHE:
            return self.constants["attention_compute"]
        share = self.constants["compute_4" if bits <= 4 else "compute_8" if bits <= 8 else "compute_16"]
        return share * self.constants["expert_compute"] if kind is Kind.EXPERTS else share

    def latency_s(self, kind: Kind) -> float:
        """Seconds of each layer or message, whatever its size."""
        name = _LATENCIES.get(kind)
        return 0.0 if name is None else self.constants[name]


def parse_calibration(data: Mapping[str, Any]) -> Calibration:
    """From the form of `gonogo/plan/calibration/speed.json`. Raises KeyError or TypeError if it is not that."""
    missing = [name for name in CONSTANTS if name not in data["constants"]]
    if missing:
        raise KeyError(f"a calibration without {missing[0]}")
    return Calibration(
        constants={name: float(data["constants"][name]) for name in CONSTANTS},
        effects={level: Effect(**effect) for level, effect in data["effects"].items()},
        spreads={
            quantity: {level: Spread(**found) for level, found in by_level.items()}
            for quantity, by_level in data["spreads"].items()
        },
        source=str(data["source"]),
    )


def levels(engine: str, card: Card, scheme: str) -> tuple[str, ...]:
    """From general to particular. `scheme`: how weights are stored, as `Deployment.scheme` says."""
    return (
        f"generation/{card.generation}",
        f"engine/{engine}",
        f"stored/{engine}/{scheme}",
        f"engine/{engine}/{card.generation}",
        f"engine/{engine}/{card.generation}/{card.name}",
    )


def efficiency(calibration: Calibration, engine: str, card: Card, scheme: str) -> Efficiency:
    """The constants for an engine, a card and a way to store weights."""
    known = tuple(level for level in levels(engine, card, scheme) if level in calibration.effects)
    found = [calibration.effects[level] for level in known]
    sums = {name: sum(getattr(effect, name) for effect in found) for name in EFFECTS}
    constants = {}
    for name, value in calibration.constants.items():
        constants[name] = value * math.exp(sums[_AFFECTED[name]]) if name in _AFFECTED else value
    return Efficiency(constants=constants, known=known)


def spread(calibration: Calibration, quantity: str, engine: str, card: Card, scheme: str) -> tuple[Spread, str]:
    """The spread of the most particular level that has one, and that level; `all` has one of every quantity."""
    found = calibration.spreads[quantity]
    asked: Sequence[str] = levels(engine, card, scheme)
    level = next((one for one in reversed(asked) if one in found), "all")
    return found[level], level


_SHARES = {Kind.EXPERTS: "experts", Kind.HEAD: "head", Kind.CACHE: "cache", Kind.STATE: "cache"}
_LATENCIES = {
    Kind.MESSAGES: "message_s",
    Kind.LAYERS: "layer_s",
    Kind.EXPERT_LAYERS: "expert_layer_s",
    Kind.SPECIAL_LAYERS: "special_layer_s",
}
_AFFECTED = {
    **dict.fromkeys(("weights", "experts", "head", "cache"), "speed"),
    **dict.fromkeys(("compute_16", "compute_8", "compute_4", "attention_compute", "link"), "compute"),
    **dict.fromkeys(("message_s", "layer_s", "expert_layer_s", "special_layer_s", "step_s", "sequence_s"), "delay"),
    "first_s": "first",
}
