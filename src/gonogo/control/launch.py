"""Starts the keeper (and with it control) detached from the terminal, unless control answers already."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Callable

import httpx

from gonogo.runtimes.local import tail
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.unix_http import over
from gonogo.store.room import BEGIN_BYTES, GO_ON_BYTES, require_room

START_LIMIT_S, LOOK_EVERY_S = 30.0, 2.0


@dataclass(frozen=True)
class ControlDidNotStart(Exception):
    """Control did not answer in time. `last_lines` are the end of its log."""

    log: str
    waited_s: float
    last_lines: tuple[str, ...]

    def __str__(self) -> str:
        end = "\n  ".join(self.last_lines[-6:])
        return f"control did not answer within {self.waited_s:.0f} s; its log {self.log} ends:\n  {end}"


def answers(paths: StatePaths, timeout_s: float = 1.0) -> bool:
    """Whether a control process answers on its socket."""
    transport = over(paths.control_socket)
    try:
        with httpx.Client(transport=transport, timeout=timeout_s) as client:
            return client.get("http://control/v1/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def ensure_control(paths: StatePaths, tell: Callable[[float], None] = lambda _: None) -> None:
    """Have a control process for this state directory; `tell` gets the seconds that were waited, again and again.

    Raises `ControlDidNotStart`, `StoreFull` as soon as there is no room, OSError, UnsafeDirectory.
    """
    if answers(paths):
        return
    paths.make()
    require_room(paths.database, GO_ON_BYTES if paths.database.exists() else BEGIN_BYTES)
    keeper = start_keeper(paths)
    started_at, next_look_s = time.monotonic(), LOOK_EVERY_S
    while not answers(paths):
        waited_s = time.monotonic() - started_at
        if waited_s > START_LIMIT_S:
            control_log = paths.log("control", "main")
            raise ControlDidNotStart(log=str(control_log), waited_s=waited_s, last_lines=tail(control_log, 12))
        if waited_s > next_look_s:
            next_look_s = waited_s + LOOK_EVERY_S
            require_room(paths.database, GO_ON_BYTES)
        keeper.poll()
        tell(waited_s)
        time.sleep(0.05)


def start_keeper(paths: StatePaths) -> subprocess.Popen[bytes]:
    """Start the keeper; one that finds another at work ends at once."""
    log = paths.log("keeper", "main")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    marks = {"GONOGO_STATE": str(paths.root), "GONOGO_ROLE": "keeper", "GONOGO_NAME": "keeper"}
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "gonogo.control.keeper", "--state-dir", str(paths.root)],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env={**os.environ, **marks},
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(descriptor)
