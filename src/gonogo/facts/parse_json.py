"""JSON objects from strangers: `config.json`, an index, a hub's answer. Pure; raises `JsonError` and nothing else."""

from __future__ import annotations

import json
from typing import Mapping

DEEPEST = 64


class JsonError(Exception):
    """These bytes are no JSON object that can be used; the text says why, without a file's name."""


def parse_object(content: bytes) -> Mapping[str, object]:
    """The JSON object that `content` holds. Bounded by the length of `content`, which is the caller's to limit."""
    try:
        found = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise JsonError(f"it is nested deeper than {DEEPEST} levels") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise JsonError(f"it is not JSON: {_short(str(error))}") from None
    if not isinstance(found, dict):
        raise JsonError("it is JSON, but not an object")
    _walk(found, DEEPEST)
    return found


def speakable(text: str) -> bool:
    """Whether `text` can be written down again: half of a surrogate pair ("\\ud800") cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _walk(value: object, levels: int) -> None:
    if isinstance(value, str) and not speakable(value):
        raise JsonError("it holds text that is not Unicode")
    if not isinstance(value, (dict, list)):
        return
    if levels == 0:
        raise JsonError(f"it is nested deeper than {DEEPEST} levels")
    for name in value if isinstance(value, dict) else ():
        _walk(name, levels)
    for inner in value.values() if isinstance(value, dict) else value:
        _walk(inner, levels - 1)


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}…"
