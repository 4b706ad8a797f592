"""A refusal as policy says it, and the few shapes that refusals of a request's content have. Pure.

No text here ever holds what a client sent beyond a field's name, and that only where it is a plain word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Iterable

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
_PLAIN = re.compile(r"[A-Za-z0-9_.$-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """Refuse it. `message` is for the client's developer; `code`, `type` and `param` are OpenAI's words.

    `param`: the field that was wrong, as a path (`messages[2].content`). `headers`: what the client is told beside,
    as (lower-case name, value); only names of `gonogo.gateway.policy.gate.REPLY_HEADERS`, `retry-after`, `allow`,
    `x-should-retry`.
    """

    status: int
    code: str
    message: str
    type: str
    param: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Mistake(Exception):
    """What is wrong with a request's content; caught where the request is put together."""

    def __init__(self, deny: Deny) -> None:
        super().__init__(deny.code)
        self.deny = deny


def mistaken(code: str, message: str, param: str | None = None) -> Deny:
    """A 400 about the body."""
    return Deny(status=400, code=code, message=message, type=INVALID_REQUEST, param=param)


def plain(name: str) -> str | None:
    """The field's name where it is a plain word, which may be repeated; None: it may not."""
    return name if _PLAIN.fullmatch(name) else None


def named(name: str) -> str:
    """A field as a message says it."""
    safe = plain(name)
    return f'"{safe}"' if safe is not None else "whose name is no plain word"


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean "…"?`, or nothing where no known name is near."""
    close = get_close_matches(name[:64], tuple(known), n=1, cutoff=0.75)
    return f' Did you mean "{close[0]}"?' if close else ""
