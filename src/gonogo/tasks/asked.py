"""What a client asks of the queue, read strictly: one request to a model, to be run later. Pure.

Whether the request itself is right (its messages, its limits) is the gateway's to say when it runs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
"""What a task or a line of a batch may ask."""

CHARACTERS_A_TOKEN = 3
IMAGE_TOKENS = 3000
UNKNOWN_OUTPUT_TOKENS = 256
LONGEST_NAME = 256
LONGEST_WINDOW_S = 30 * 86400.0
MOST_TOKENS = 2**31 - 1
"""No request costs more, whatever `max_tokens` says: the ledger keeps whole numbers of 64 bits."""
HOLDS_HALF = "holds half a character: an escape from \\ud800 to \\udfff without its pair."
DEEPEST = 64
"""As the gateway has it; and what reads a body level by level in itself, as JSON's writer does, must not run out."""
_HALF = re.compile("[\ud800-\udfff]")


class Wrong(Exception):
    """What is wrong with it, in OpenAI's words: `code`, `param`; the message never repeats content."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class NotAllowed(Wrong):
    """The key may not ask for this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request to run. `tokens`: what it may cost, prompt and answer, estimated."""

    url: str
    body: Mapping[str, Any] = field(repr=False)
    model: str | None
    tokens: int


def read_request(url: object, body: object) -> Asked:
    """The request. Raises `Wrong`."""
    if url not in ENDPOINTS:
        raise Wrong("invalid_url", f"`url` must be one of {', '.join(ENDPOINTS)}.", "url")
    if not isinstance(body, dict):
        raise Wrong("invalid_body", f"`body` must be an object, it is {kind(body)}.", "body")
    if _is_deeper(body, DEEPEST):
        raise Wrong("invalid_body", f"`body` is nested deeper than {DEEPEST} levels.", "body")
    if body.get("stream"):
        raise Wrong(
            "stream_not_possible", "`body.stream` must be false: nobody is there to read a stream.", "body.stream"
        )
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise Wrong("invalid_model", f"`body.model` must be a string, it is {kind(model)}.", "body.model")
    if model is not None and not is_whole(model):
        raise Wrong("invalid_model", f"`body.model` {HOLDS_HALF}", "body.model")
    return Asked(url=str(url), body=body, model=model, tokens=estimate(body))


def read_window(value: object, param: str, default_s: float) -> float:
    """Seconds of `24h`, `7d`, `30m`, `90s`. Raises `Wrong`."""
    if value is None:
        return default_s
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if (
        isinstance(value, str)
        and len(value) < 10
        and value[:-1].isascii()
        and value[:-1].isdigit()
        and value[-1] in units
    ):
        seconds = float(int(value[:-1]) * units[value[-1]])
        if 0 < seconds <= LONGEST_WINDOW_S:
            return seconds
    raise Wrong("invalid_window", f"`{param}` must be a time like 24h, 30m or 7d, and at most 30d.", param)


def read_name(value: object, param: str) -> str | None:
    """A short text such as an idempotency key. Raises `Wrong`."""
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        raise Wrong("invalid_name", f"`{param}` must be a string of 1 to {LONGEST_NAME} characters.", param)
    if not is_whole(value):
        raise Wrong("invalid_name", f"`{param}` {HOLDS_HALF}", param)
    return value


def is_whole(text: str) -> bool:
    """False: it holds half a character, which JSON can hold, and no store and no answer of ours."""
    return _HALF.search(text) is None


def only(given: Mapping[str, Any], known: tuple[str, ...], where: str = "") -> None:
    """Raises `Wrong` for a field that there is not."""
    for name in given:
        if name not in known:
            shown = name if name.isidentifier() and len(name) <= 64 else "with an odd name"
            message = f"There is no field `{where}{shown}`; there are {', '.join(known)}."
            raise Wrong("unknown_field", message, f"{where}{shown}")


def estimate(body: Mapping[str, Any]) -> int:
    """Tokens that this request may cost, prompt and answer; a rough guess for forming batches, never for limits."""
    most = next((body[name] for name in ("max_completion_tokens", "max_tokens") if _is_count(body.get(name))), None)
    answer = UNKNOWN_OUTPUT_TOKENS if most is None else most
    return min(MOST_TOKENS, max(1, _prompt(body) + (0 if "input" in body else answer)))


def not_json(fault: Exception) -> str:
    """Where and why a text is no JSON, without its words."""
    if isinstance(fault, json.JSONDecodeError):
        return f"{fault.msg.removesuffix(' at')} at character {fault.pos + 1}"
    if isinstance(fault, UnicodeDecodeError):
        return f"byte {fault.start + 1} is not {fault.encoding.upper()}"
    if isinstance(fault, RecursionError):
        return "it is nested too deep"
    return "a number has too many digits"


def kind(value: object) -> str:
    """What JSON calls it."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _prompt(body: Mapping[str, Any]) -> int:
    messages = body.get("messages")
    if isinstance(messages, list):
        return sum(_content(one.get("content")) for one in messages if isinstance(one, dict))
    return _content(body.get("prompt", body.get("input")))


def _content(value: object) -> int:
    if isinstance(value, str):
        return len(value) // CHARACTERS_A_TOKEN + 1
    if not isinstance(value, list):
        return 0
    return sum(_part(one) for one in value)


def _part(one: object) -> int:
    if isinstance(one, dict):
        return IMAGE_TOKENS if "image_url" in one else _content(one.get("text"))
    return 1 if isinstance(one, int) else _content(one)


def _is_deeper(value: object, most: int) -> bool:
    """Level by level, so that depth costs no recursion."""
    level = [value]
    for _ in range(most):
        level = [inner for one in level for inner in _inside(one) if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
