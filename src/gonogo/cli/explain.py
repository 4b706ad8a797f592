"""`gonogo explain REASON`: the page of a reason: what is asked, why it matters, how to see it, how to mend it."""

from __future__ import annotations

from typing import Annotated

import typer

from gonogo.cli.options import Json, Lang, StateDir, told
from gonogo.cli.refusal import WRONG_INPUT, Outcome, Refusal

Reason = Annotated[str, typer.Argument(metavar="REASON", help=told("argument.reason"), show_default=False)]


def command(reason: Reason, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.cli.session import open_session
    from gonogo.words import UnknownReason, nearest, page, reasons

    session = open_session(state_dir, json, lang)
    named = next((one for one in reasons() if one.lower() == reason.lower()), reason)
    try:
        parts = page(named, session.lang)
    except UnknownReason:
        near = nearest(reason, reasons())
        raise Refusal("ReasonUnknown", WRONG_INPUT, {"asked": reason, "nearest": ", ".join(near) or None}) from None
    session.out.print(named, style="bold", markup=False)
    told_parts = {name: getattr(parts, name) for name in ("asks", "why", "see", "mend")}
    for name, text in told_parts.items():
        if not text:
            continue
        session.line()
        session.out.print(session.told(f"explain.{name}"), style="bold", markup=False)
        for line in text.splitlines():
            if name == "see":
                session.line(f"  {line}")
            else:
                session.out.print(_indented(line))
    return Outcome(result={"reason": named, **told_parts})


def _indented(text: str) -> object:
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text(text), (0, 0, 0, 2))
