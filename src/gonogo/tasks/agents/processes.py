"""The processes of a run: how they are started, heard and ended, and found by others when their worker is gone.

Each carries GONOGO_STATE and GONOGO_RUN in its environment and is in the session that the agent's process leads. Ended
means: the group got SIGKILL, and nobody with these marks lives any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

from gonogo.runtimes.process_table import STATE, marks_of, pids, stat_fields
from gonogo.security.keys import SECRET_SCANNING_PATTERN
from gonogo.tasks.agents.nouns import MOST_TEXT_BYTES, cut

RUN_MARK = "GONOGO_RUN"
LONGEST_EVENT_BYTES = 2 * 2**20
TERM_PATIENCE_S, KILL_PATIENCE_S = 3.0, 5.0
_PIECE = 65536
_KEY = re.compile(SECRET_SCANNING_PATTERN.replace(r"\b", ""))
"""Also where other letters stand right beside it."""


class NoEvent(Exception):
    """The process said what no event is."""


class AgentProcess:
    """One agent at work. `look` hears it, `end` ends it and all that it started."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        hear, say = os.pipe()
        try:
            self._child = subprocess.Popen(
                [*command, str(say)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
                pass_fds=(say,),
            )
        except BaseException:
            os.close(hear)
            raise
        finally:
            os.close(say)
        assert self._child.stdout is not None
        self._hear, self._out = hear, self._child.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._hear, self._out):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._line, self._printed = bytearray(), bytearray()

    def order(self, told: Mapping[str, Any]) -> None:
        """Let it begin. Its standard input stays open: its end is the sign of our death."""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(told, ensure_ascii=False).encode() + b"\n")
            self._child.stdin.flush()

    def look(self, within_s: float) -> list[dict[str, Any]]:
        """The events that have come, each with what was printed before it in `output`. Raises `NoEvent`."""
        self._selector.select(within_s)
        self._drain(self._out, self._printed)
        self._drain(self._hear, self._line)
        *whole, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest)
        if len(rest) > LONGEST_EVENT_BYTES:
            raise NoEvent
        if whole:
            self._drain(self._out, self._printed)  # what was flushed before the event is in the pipe by now
        return [{**_event(line), "output": self.printed() if at == 0 else ""} for at, line in enumerate(whole)]

    def printed(self) -> str:
        """What it has printed since this was asked, without keys."""
        text = cut(masked(bytes(self._printed).decode("utf-8", "replace")))
        self._printed.clear()
        return text

    def ended(self) -> bool:
        """Whether it has exited. It is not taken away yet: until then nobody else gets its number."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self._child.returncode is not None or os.waitid(os.P_PID, self._child.pid, flags) is not None

    def end(self) -> int:
        """SIGTERM to the group, SIGKILL after a while; its exit code."""
        if self._child.returncode is None:
            if not self.ended():
                self._send(signal.SIGTERM)
                _wait(self.ended, TERM_PATIENCE_S)
            self._send(signal.SIGKILL)
            self._child.wait()
            self._drain(self._out, self._printed)
            self._selector.close()
            os.close(self._hear)
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        assert self._child.returncode is not None
        return self._child.returncode

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def _drain(self, descriptor: int, into: bytearray) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                piece = os.read(descriptor, _PIECE)
                if not piece:
                    with contextlib.suppress(KeyError):
                        self._selector.unregister(descriptor)  # its end is always readable
                    return
                into += piece
                if into is self._printed and len(into) > 8 * MOST_TEXT_BYTES:
                    del into[2 * MOST_TEXT_BYTES : -2 * MOST_TEXT_BYTES]


def masked(text: str) -> str:
    """The text with every key of ours hidden."""
    return _KEY.sub("gng_•••", text)


def of_run(state_dir: Path, task_id: str) -> tuple[int, ...]:
    """The pids of the run's living processes."""
    return tuple(pid for pid in pids() if _lives(pid) and _is_of(pid, state_dir, task_id))


def end_all(state_dir: Path, task_id: str, patience_s: float = KILL_PATIENCE_S) -> bool:
    """SIGKILL for every process of the run, again and again; whether none lives any more."""

    def gone() -> bool:
        left = of_run(state_dir, task_id)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    return _wait(gone, patience_s)


def _wait(true: Any, patience_s: float) -> bool:
    ends = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def _lives(pid: int) -> bool:
    fields = stat_fields(pid)
    return fields is not None and fields[STATE] not in ("Z", "X")


def _is_of(pid: int, state_dir: Path, task_id: str) -> bool:
    marks = marks_of(pid)
    return (marks.get("GONOGO_STATE"), marks.get(RUN_MARK)) == (str(state_dir), task_id)


def _event(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(masked(line.decode("utf-8", "replace")))
    except ValueError:
        raise NoEvent from None
    if not isinstance(told, dict) or told.get("event") not in ("ready", "step", "end"):
        raise NoEvent
    return told
