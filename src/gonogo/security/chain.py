"""The event chain: what an event is, its canonical JSON (RFC 8785), and how each is linked to the one before. Pure.

Not here: where events are kept (`gonogo.store`), and the proof that a kept chain holds (`verify.py`, which shares no
code with this file so that a mistake here cannot hide itself).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Mapping, Sequence, Union

Json = Union[None, bool, int, float, str, Sequence["Json"], Mapping[str, "Json"]]

LARGEST_INTEGER = 2**53 - 1
"""JSON numbers are doubles for other readers: beyond this an integer would change its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last event of a chain: its sequence and its hash."""

    sequence: int
    hash: str


GENESIS = Head(sequence=0, hash="0" * 64)
"""What the first event follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is to be told, before it has a place in the chain. `at_ms` is Unix milliseconds."""

    at_ms: int
    actor: str
    principal: str
    request_id: str | None
    kind: str
    service: str | None
    revision: int | None
    detail: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One past-tense line of the audit log.

    `hash` is the SHA-256 of the canonical JSON of all other fields, `previous_hash` included.
    """

    sequence: int
    at_ms: int
    actor: str
    principal: str
    request_id: str | None
    kind: str
    service: str | None
    revision: int | None
    detail: Mapping[str, Json]
    previous_hash: str
    hash: str

    @property
    def at(self) -> float:
        """Unix seconds."""
        return self.at_ms / 1000

    @property
    def head(self) -> Head:
        return Head(sequence=self.sequence, hash=self.hash)


def link(draft: Draft, previous: Head) -> Event:
    """The event that follows `previous`. Raises ValueError for a detail that JSON cannot hold exactly."""
    sequence = previous.sequence + 1
    body: dict[str, Json] = {
        "actor": draft.actor,
        "at_ms": draft.at_ms,
        "detail": draft.detail,
        "kind": draft.kind,
        "previous_hash": previous.hash,
        "principal": draft.principal,
        "request_id": draft.request_id,
        "revision": draft.revision,
        "sequence": sequence,
        "service": draft.service,
    }
    return Event(
        sequence=sequence,
        at_ms=draft.at_ms,
        actor=draft.actor,
        principal=draft.principal,
        request_id=draft.request_id,
        kind=draft.kind,
        service=draft.service,
        revision=draft.revision,
        detail=draft.detail,
        previous_hash=previous.hash,
        hash=hashlib.sha256(canonical(body)).hexdigest(),
    )


def canonical(value: Json) -> bytes:
    """`value` as RFC 8785 writes it: one value, one sequence of bytes.

    Raises ValueError for what JSON cannot hold exactly: NaN, infinities, integers beyond 2^53 - 1, lone surrogates,
    names that are not text, other types.
    """
    return _text(value).encode("utf-8")  # a lone surrogate raises UnicodeEncodeError, which is a ValueError


def _text(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # the same escapes as RFC 8785, lower-case hex included
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, Mapping):
        names = sorted(value, key=_utf16)
        return "{" + ",".join(f"{_text(name)}:{_text(value[name])}" for name in names) + "}"
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return "[" + ",".join(_text(item) for item in value) + "]"
    raise ValueError(f"JSON has no {type(value).__name__}")


def _utf16(name: object) -> bytes:
    """RFC 8785 sorts names by UTF-16 code units, which is not Python's order beyond U+FFFF."""
    if not isinstance(name, str):
        raise ValueError(f"a JSON name is text, not {type(name).__name__}")
    return name.encode("utf-16-be")


def _integer(value: int) -> str:
    if abs(value) > LARGEST_INTEGER:
        raise ValueError(f"{value} is beyond what a JSON number holds exactly")
    return str(int(value))


def _double(value: float) -> str:
    """As ECMAScript prints a number: the shortest digits that read back as the same double."""
    if not math.isfinite(value):
        raise ValueError(f"JSON has no {value}")
    if value == 0:
        return "0"
    sign, digit_tuple, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, digit_tuple))
    point = len(digits) + int(exponent)
    return ("-" if sign else "") + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """`digits` with the decimal point after the first `point` of them."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
