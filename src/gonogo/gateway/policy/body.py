"""From the bytes of a body to its JSON object, strictly, or to what is wrong with it. Pure.

Stricter than the engines' own parsers, so that policy and engine can never read two different things in one body:
UTF-8 only, no key twice, no NaN or Infinity, no number too large for a double, bounded depth and number of values.
Not here: what the fields mean (`request`).
"""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any, Mapping, NoReturn

from gonogo.gateway.policy.deny import Deny, Mistake, mistaken, named, plain

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 500_000
"""Of one body. Counted by the characters that begin or part values, those in texts included: a parsed value takes up to
200 bytes, so that without a bound 32 MiB of `[],` would become 2 GB."""
COUNTED_FROM_BYTES = 2 * 1024 * 1024
"""Smaller bodies cannot hold many more, and counting takes a third of a screenshot's parsing."""
_LONGEST_NUMBER = 400
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(raw: bytes) -> Mapping[str, Any] | Deny:
    """The object in the body, or the refusal. Never raises."""
    if not raw.strip():
        return mistaken("empty_body", "The request has no body. Send a JSON object with at least a model in it.")
    if len(raw) > COUNTED_FROM_BYTES and raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        return mistaken(
            "json_too_many_values",
            f"The body has more than {MAX_VALUES:,} commas and brackets, and no more values are read of one request.",
        )
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return mistaken("invalid_utf8", f"The body is not UTF-8: byte {error.start} cannot be one. Send JSON as UTF-8.")
    except json.JSONDecodeError as error:
        # The parser's words name what it expected and never what it saw.
        where = f"line {error.lineno}, column {error.colno}"
        return mistaken("invalid_json", f"The body is not JSON at {where}: {_words(error.msg)}.")
    except RecursionError:
        return _TOO_DEEP
    except Mistake as mistake:
        return mistake.deny
    if not isinstance(value, dict):
        return mistaken("not_an_object", f"The body must be a JSON object, and is {kind(value)}.")
    # Where no escape can make half a character, what was decoded from UTF-8 is whole.
    return _too_deep_or_broken(value, _SURROGATE.search(raw) is not None) or value


def kind(value: Any) -> str:
    """What JSON calls the type of a value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return _KINDS[type(value)]


_KINDS = {int: "a number", float: "a number with a point", str: "a string", list: "an array", dict: "an object"}
_TOO_DEEP = mistaken("json_too_deep", f"The body is nested deeper than {MAX_DEPTH} levels.")
_HALF = mistaken(
    "invalid_utf8", "A string of the body holds half a character: an escape from \\ud800 to \\udfff without its pair."
)


def _too_deep_or_broken(value: Any, half_characters: bool) -> Deny | None:
    """Level by level, so that depth costs no recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            if half_characters and not _whole(one):
                return _HALF
            children = one.values() if isinstance(one, dict) else one
            below.extend(child for child in children if isinstance(child, (dict, list)))
        if not below:
            return None
        level = below
    return _TOO_DEEP


def _whole(container: Any) -> bool:
    texts = [*container, *container.values()] if isinstance(container, dict) else container
    try:
        for text in texts:
            if isinstance(text, str) and not text.isascii():
                text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _words(message: str) -> str:
    return message[:1].lower() + message[1:]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            break
        seen.add(name)
    raise Mistake(
        mistaken("duplicate_key", f"The body has a field twice in one object, the one {named(name)}.", plain(name))
    )


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise Mistake(mistaken("invalid_json", f"A number of the body has more than {_LONGEST_NUMBER} digits."))
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits) if len(digits) <= _LONGEST_NUMBER else float("inf")
    if isinf(value):
        raise Mistake(mistaken("invalid_json", "A number of the body is too large, or has more digits than are read."))
    return value


def _constant(_: str) -> NoReturn:
    raise Mistake(mistaken("invalid_json", "The body holds NaN or Infinity, which JSON does not have."))


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant, strict=True
)
