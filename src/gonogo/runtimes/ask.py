"""Asks a program one question: bounded in time and size, and it never waits for one that cannot even be killed.

Not here: what the answer means (`gonogo.facts`), and processes that live on (`gonogo.runtimes.local`).
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Sequence

MOST_BYTES = 4 * 1024 * 1024
ENDING_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a program printed (both streams), or in `problem` why there is no answer. `silent`: its time was over."""

    text: str = ""
    problem: str | None = None
    silent: bool = False
    code: int | None = None


def ask(command: Sequence[str], timeout_s: float) -> Answer:
    """Run the command to its end, in English. A process that hangs in the kernel (a broken driver does that to
    `nvidia-smi`) is left behind after its time: waiting for it would hang whoever asks.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        return Answer(problem=f"{command[0]}: {error.strerror}")
    try:
        content = _read(process, time.monotonic() + timeout_s)
        if content is None:
            return Answer(problem=f"{command[0]} did not answer within {timeout_s:g} s", silent=True)
        code = process.wait(timeout=ENDING_S)
    except subprocess.TimeoutExpired:
        return Answer(problem=f"{command[0]} answered and did not end", silent=True)
    finally:
        end(process)
    if code < 0:
        return Answer(problem=f"{command[0]} was ended by {signal.Signals(-code).name}", code=code)
    return Answer(text=content.decode("utf-8", "replace"), code=code)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it started in its session; give it up when the kernel does not let go of it."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=ENDING_S)
    if process.stdout is not None:
        process.stdout.close()


def _read(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """All that it prints, at most `MOST_BYTES` from the start; None when the deadline comes first."""
    assert process.stdout is not None
    pieces, size = [], 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while size < MOST_BYTES:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    return b"".join(pieces)
