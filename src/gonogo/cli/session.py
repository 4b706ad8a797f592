"""One run of the command: where the state is, which language, who reads (a person or a program).

People read the result on standard output and progress on standard error; `--json` leaves standard output to the one
object that `main` prints at the end.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from gonogo.cli.refusal import WORLD_DID_NOT_COMPLY, WRONG_INPUT, Refusal
from gonogo.runtimes.paths import StatePaths, default_state_dir
from gonogo.words import Language, choose_language, message

if TYPE_CHECKING:
    from rich.console import Console

    from gonogo.api.client import ControlClient

NARROWEST, WIDEST = 40, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every verb needs. `out` is silent under `--json`; `err` is for progress and refusals."""

    paths: StatePaths
    lang: Language
    json: bool
    yes: bool
    out: Console
    err: Console

    def told(self, name: str, /, **values: object) -> str:
        """A message of the catalogue in this session's language."""
        return message(name, self.lang, **values)

    def say(self, name: str, /, **values: object) -> None:
        """Print a message on standard output, wrapped to the terminal."""
        self.out.print(self.told(name, **values), markup=False, highlight=False)

    def line(self, text: str = "") -> None:
        """Print a line as it is, never wrapped: what is meant to be copied."""
        self.out.print(text, markup=False, highlight=False, soft_wrap=True)

    @property
    def asks(self) -> bool:
        """Whether somebody is there to answer a question, and wants to be asked."""
        return not self.yes and not self.json and sys.stdin.isatty() and sys.stdout.isatty()

    def client(self) -> ControlClient:
        """Control's client; nobody may answer on it yet."""
        from gonogo.api.client import ControlClient

        return ControlClient(self.paths.control_socket)

    def running_client(self) -> ControlClient:
        """The client of a control process that answers. Raises `Refusal` ControlNotRunning."""
        from gonogo.api.client import ControlRefused, ControlSilent

        client = self.client()
        try:
            client.healthz()
        except (ControlSilent, ControlRefused):
            values = {"state_dir": str(self.paths.root)}
            raise Refusal("ControlNotRunning", WORLD_DID_NOT_COMPLY, values) from None
        return client

    def started_client(self, tell: Callable[[float], None]) -> ControlClient:
        """The client of control, started when it did not run; `tell` gets the seconds that were waited.

        Raises `Refusal` ControlDidNotStart, StateUnusable; `StoreError`s.
        """
        from gonogo.control.launch import ControlDidNotStart, ensure_control
        from gonogo.runtimes.paths import UnsafeDirectory

        try:
            ensure_control(self.paths, tell)
        except ControlDidNotStart as error:
            values = {"error": " | ".join(error.last_lines[-3:]), "log": error.log}
            raise Refusal("ControlDidNotStart", WORLD_DID_NOT_COMPLY, values) from error
        except (OSError, UnsafeDirectory) as error:
            values = {"words": str(error), "remedy": "--state-dir DIR"}
            raise Refusal("StateUnusable", WORLD_DID_NOT_COMPLY, values) from error
        return self.client()


def open_session(state_dir: str | None, json: bool, lang: str | None, yes: bool = False) -> Session:
    """The session of these options. Raises `Refusal` for a language that there is not."""
    if lang is not None and lang.lower()[:2] not in ("en", "zh"):
        values = {"option": "--lang", "words": f"{lang}: en | zh"}
        raise Refusal("OptionMistaken", WRONG_INPUT, values)
    return Session(
        paths=StatePaths.of(state_dir if state_dir is not None else default_state_dir()),
        lang=choose_language(lang, os.environ),
        json=json,
        yes=yes,
        out=console(stderr=False, quiet=json),
        err=console(stderr=True, quiet=False),
    )


def console(*, stderr: bool, quiet: bool) -> Console:
    """A console of 40 to 100 columns: 80 where there is no terminal. NO_COLOR is honoured."""
    from rich.console import Console

    made = Console(stderr=stderr, quiet=quiet, highlight=False, emoji=False)
    width = made.width if made.is_terminal or "COLUMNS" in os.environ else 80
    made.width = max(NARROWEST, min(WIDEST, width))
    return made
