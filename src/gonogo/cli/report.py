"""`gonogo report`: one self-contained HTML file to hand on; `--json` prints what it is made of."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from gonogo.cli.options import Json, Lang, StateDir, told
from gonogo.cli.refusal import WORLD_DID_NOT_COMPLY, WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.api.client import ControlClient
    from gonogo.cli.session import Session

Output = Annotated[
    Optional[str], typer.Option("--output", "-o", metavar="FILE", help=told("option.output"), show_default=False)
]
Service = Annotated[
    Optional[str], typer.Option("--service", metavar="SERVICE", help=told("option.service"), show_default=False)
]


def command(
    output: Output = None,
    service: Service = None,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    client = session.running_client()
    name = service or _only_service(client)
    data = client.report(name)
    if json and output is None:
        return Outcome(result=data)
    file = _write(session, data, Path(output) if output is not None else None)
    session.say("report.written", file=file)
    return Outcome(result={**data, "report": str(file)})


def write_report(session: Session, client: ControlClient, service: str, output: Path | None) -> Path:
    """Ask control for everything and write the HTML file. Raises `Refusal` FileNotWritable."""
    return _write(session, client.report(service), output)


def _write(session: Session, data: dict[str, Any], output: Path | None) -> Path:
    from gonogo.api.report.page import render

    name = str(data.get("service") or (data.get("spec") or {}).get("service") or "report")
    file = (output or session.paths.report / f"{name}.html").absolute()
    text = render(data, session.lang)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                opened.write(text)
            os.replace(beside, file)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        values = {"path": str(file), "error": error.strerror or str(error)}
        raise Refusal("FileNotWritable", WORLD_DID_NOT_COMPLY, values) from None
    return file


def _only_service(client: ControlClient) -> str:
    known = [str(one["name"]) for one in client.status()["services"]]
    if len(known) > 1:
        raise Refusal("WhichService", WRONG_INPUT, {"known": known, "all": None})
    if not known:
        raise Refusal("NoService", WRONG_INPUT, {})
    return known[0]
