"""The options by which a key is limited, for `gonogo keys create` and `change`, and how limits look in a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from gonogo.cli.options import told
from gonogo.cli.refusal import WRONG_INPUT, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.security.keys import KeyRow

RequestsPerMinute = Annotated[
    Optional[str],
    typer.Option("--requests-per-minute", metavar="N", help=told("option.requests_per_minute"), show_default=False),
]
TokensPerMinute = Annotated[
    Optional[str],
    typer.Option("--tokens-per-minute", metavar="N", help=told("option.tokens_per_minute"), show_default=False),
]
TokensPerDay = Annotated[
    Optional[str],
    typer.Option("--tokens-per-day", metavar="N", help=told("option.tokens_per_day"), show_default=False),
]
Concurrent = Annotated[
    Optional[str], typer.Option("--concurrent", metavar="N", help=told("option.concurrent"), show_default=False)
]
Priority = Annotated[
    Optional[str],
    typer.Option("--priority", metavar="interactive|batch", help=told("option.priority"), show_default=False),
]
NONE = "none"


def limits_asked(**given: str | None) -> dict[str, int | str | None]:
    """What was asked for, by field; what no option named is not in it. Raises `Refusal` for what is no limit."""
    from gonogo.security.keys import PRIORITIES

    asked: dict[str, int | str | None] = {}
    for name, text in given.items():
        if text is None:
            continue
        if name == "priority":
            if text not in PRIORITIES:
                raise _mistaken(name, text, ", ".join(PRIORITIES))
            asked[name] = text
        else:
            asked[name] = _limit(name, text)
    return asked


def limits_told(session: Session, row: KeyRow, between: str = ", ") -> str:
    """`60 requests/min, 4 at once, batch`; a dash where there is nothing to say."""
    from gonogo.security.keys import INTERACTIVE

    parts = [session.told(f"keys.limit.{name}", value=value) for name, value in row.limits.items()]
    if row.priority != INTERACTIVE:
        parts.append(session.told(f"keys.priority.{row.priority}"))
    return between.join(parts) or "–"


def _limit(name: str, text: str) -> int | None:
    from gonogo.security.keys import LARGEST_LIMIT

    if text == NONE:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_LIMIT)) else 0
    if not 1 <= number <= LARGEST_LIMIT:
        raise _mistaken(name, text, f"1 … {LARGEST_LIMIT}, {NONE}")
    return number


def _mistaken(name: str, text: str, allowed: str) -> Refusal:
    option = f"--{name.replace('_', '-')}"
    return Refusal("NotAKeyOption", WRONG_INPUT, {"option": option, "given": text, "allowed": allowed})
