"""Metrics as engines print them: samples of a Prometheus text, by name. Pure; never raises; reads a bounded text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Mapping

LONGEST_TEXT = 4_000_000
_SAMPLE = re.compile(
    r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?[ \t]*\r?$",
    re.MULTILINE,
)
_LABEL = re.compile(r"([a-zA-Z_]\w*)=\"((?:[^\"\\]|\\.)*)\"")


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: its labels and its number, which is finite."""

    labels: Mapping[str, str]
    value: float


def samples(text: str, prefix: str) -> Mapping[str, tuple[Sample, ...]]:
    """Every sample whose name begins with `prefix`, by name. What is no sample, or no finite number, is passed over."""
    found: dict[str, list[Sample]] = {}
    for name, labels, value in _SAMPLE.findall(text[:LONGEST_TEXT]):
        number = _number(value) if name.startswith(prefix) else None
        if number is not None:
            found.setdefault(name, []).append(Sample(dict(_LABEL.findall(labels)), number))
    return {name: tuple(several) for name, several in found.items()}


def total(seen: Mapping[str, tuple[Sample, ...]], name: str) -> int | None:
    """The sum of a metric over its label sets; None when it is not there or below zero."""
    if name not in seen:
        return None
    added = sum(sample.value for sample in seen[name])
    return int(added) if added >= 0 else None


def largest(seen: Mapping[str, tuple[Sample, ...]], *names: str) -> float | None:
    """The largest value of the first of these metrics that is there; None when none is."""
    for name in names:
        if name in seen:
            return max(sample.value for sample in seen[name])
    return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
