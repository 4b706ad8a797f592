"""Frozen dataclasses, enums and odd text as plain JSON values, so that every event can be told and hashed. Pure."""

from __future__ import annotations

import dataclasses
import math
from enum import Enum
from typing import Mapping, Sequence

from gonogo.security.chain import LARGEST_INTEGER, Json


def plain(value: object) -> Json:
    """`value` as JSON values. What JSON cannot hold exactly (NaN, huge integers) becomes its text.

    Bytes that were no UTF-8 (lone surrogates in Python's text) become U+FFFD: a log line must not stop an event.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _has_surrogates(value) else value
    if isinstance(value, int):
        return value if abs(value) <= LARGEST_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(plain(str(name))): plain(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [plain(item) for item in value]
    return plain(str(value))


def plain_text(value: str) -> str:
    """`value` without lone surrogates."""
    return str(plain(value))


def plain_mapping(values: Mapping[str, object]) -> dict[str, Json]:
    """Each of `values` as `plain` gives it."""
    return {name: plain(value) for name, value in values.items()}


def _has_surrogates(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
