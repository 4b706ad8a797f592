"""One line of a batch's input: a request, or what is wrong with it. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from gonogo.tasks.asked import Asked, Wrong, kind, not_json, only, read_request

LONGEST_LINE_BYTES = 32 * 2**20
LONGEST_CUSTOM_ID = 512
FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line. `asked` or, where it cannot run, `wrong`: a code and a message. `custom_id` where it could be read."""

    custom_id: str | None = field(repr=False)
    asked: Asked | None
    wrong: tuple[str, str] | None


def read_line(text: bytes | None, endpoint: str) -> Line:
    """Read one line; None is one that was longer than is kept. Never raises."""
    if text is None:
        message = f"The line is longer than {LONGEST_LINE_BYTES // 2**20} MiB."
        return Line(custom_id=None, asked=None, wrong=("line_too_long", message))
    custom_id: str | None = None
    try:
        given = _object(text)
        custom_id = _custom_id(given)
        return Line(custom_id=custom_id, asked=_asked(given, endpoint), wrong=None)
    except Wrong as wrong:
        return Line(custom_id=custom_id, asked=None, wrong=(wrong.code, wrong.message))


def mark_of(batch_id: str, custom_id: str) -> bytes:
    """Tells two custom_ids of one batch apart, and says nothing else of them."""
    return hashlib.blake2b(
        custom_id.encode("utf-8", "surrogatepass"), key=batch_id.encode()[:64], digest_size=16
    ).digest()


DUPLICATE = ("duplicate_custom_id", "An earlier line of this file has the same `custom_id`; only that one is run.")


def _object(text: bytes) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as fault:
        message = f"This line is not parseable as valid JSON: {not_json(fault)}."
        raise Wrong("invalid_json_line", message) from None
    if not isinstance(given, dict):
        raise Wrong("invalid_json_line", f"A line must be an object, this one is {kind(given)}.")
    return given


def _custom_id(given: dict[str, Any]) -> str:
    value = given.get("custom_id")
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_CUSTOM_ID:
        seen = "is missing" if value is None else f"has {len(value)}" if isinstance(value, str) else f"is {kind(value)}"
        message = f"`custom_id` must be a string of 1 to {LONGEST_CUSTOM_ID} characters, and {seen}."
        raise Wrong("missing_custom_id" if value is None else "invalid_custom_id", message, "custom_id")
    return value


def _asked(given: dict[str, Any], endpoint: str) -> Asked:
    only(given, FIELDS)
    if given.get("method") != "POST":
        raise Wrong("invalid_method", "`method` must be POST.", "method")
    if given.get("url") != endpoint:
        raise Wrong("mismatched_url", f"`url` must be the batch's endpoint, {endpoint}.", "url")
    return read_request(given["url"], given.get("body"))
