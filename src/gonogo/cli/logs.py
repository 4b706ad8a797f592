"""`gonogo logs`: the end of a process's log file, and what is written to it from now on. Works without control."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Optional

import typer

from gonogo.cli.options import Json, Lang, StateDir, told
from gonogo.cli.refusal import WRONG_INPUT, Outcome, Refusal
from gonogo.facts.part import PARTS, RELAY

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.runtimes.paths import StatePaths

Name = Annotated[Optional[str], typer.Argument(metavar="NAME", help=told("argument.log"), show_default=False)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help=told("option.follow"), show_default=False)]
Lines = Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, max=100_000, help=told("option.lines"))]
TAIL_LIMIT_BYTES = 8 * 1024 * 1024
POLL_S = 0.2


def command(
    name: Name = None,
    follow: Follow = False,
    lines: Lines = 40,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    from gonogo.cli.session import open_session
    from gonogo.runtimes.local import tail

    session = open_session(state_dir, json, lang)
    if json and follow:
        raise Refusal("WrongUsage", WRONG_INPUT, {"words": "--json --follow", "command": "gonogo logs"})
    known = log_files(session.paths)
    if name is None:
        return _list(session, known)
    file = _find(name, known)
    shown = tail(file, lines, TAIL_LIMIT_BYTES) if lines else ()
    for line in shown:
        session.line(line)
    if follow:
        _follow(session, file)
    return Outcome(result={"log": name, "file": str(file), "lines": list(shown)})


def log_files(paths: StatePaths) -> dict[str, Path]:
    """Every log there is, by the name to ask for it: `control`, `policy-0`, `replica-svc-1-0`, `access`,
    `streams-0`."""
    found = {file.stem: file for file in sorted(paths.logs.glob("*.log"))} if paths.logs.is_dir() else {}
    named = {stem.removesuffix("-main"): file for stem, file in found.items()}
    of_gateway = {"access": paths.access_log, "inner": paths.inner_log}
    of_gateway |= {f"streams-{index}": paths.relay_log(index) for index in range(PARTS[RELAY])}
    return {**named, **{name: file for name, file in of_gateway.items() if file.exists()}}


def _find(name: str, known: dict[str, Path]) -> Path:
    plain = name.replace("/", "-")
    exact = [known[each] for each in (plain, f"replica-{plain}", f"{plain}-{plain}") if each in known]
    near = [file for each, file in known.items() if each.startswith(f"{plain}-")]
    if exact or len(near) == 1:
        return (exact or near)[0]
    raise Refusal("LogUnknown", WRONG_INPUT, {"asked": name, "known": sorted(known)})


def _list(session: Session, known: dict[str, Path]) -> Outcome:
    if not known:
        session.say("logs.none", state_dir=session.paths.root)
    for name, file in known.items():
        session.line(f"{name}  {file.stat().st_size:,} B  {file}")
    return Outcome(result={"logs": {name: str(file) for name, file in known.items()}})


def _follow(session: Session, file: Path) -> None:
    """Print what is appended until Ctrl-C, also when the file is rotated away and made anew."""
    opened = _open_at_end(file)
    try:
        while True:
            text = opened.read()
            if text:
                session.out.print(text, end="", markup=False, highlight=False, soft_wrap=True)
                continue
            time.sleep(POLL_S)
            if _replaced(opened, file):
                opened.close()
                opened = open(file, encoding="utf-8", errors="replace")  # noqa: SIM115 (closed below)
    except KeyboardInterrupt:
        return
    finally:
        opened.close()


def _open_at_end(file: Path) -> IO[str]:
    opened = open(file, encoding="utf-8", errors="replace")  # noqa: SIM115 (the caller closes it)
    opened.seek(0, os.SEEK_END)
    return opened


def _replaced(opened: IO[str], file: Path) -> bool:
    try:
        now = os.stat(file)
    except FileNotFoundError:
        return False
    before = os.fstat(opened.fileno())
    return (now.st_ino, now.st_dev) != (before.st_ino, before.st_dev) or now.st_size < opened.tell()
