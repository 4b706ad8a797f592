"""What a process that is gone left behind is ended, also a child that wrote a name over its marks, and no other."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from gonogo.engines.model import Launch
from gonogo.runtimes.local import LocalRuntime, Process
from gonogo.runtimes.process_table import living_name, marks_of

NAME = "svc/1/0"
CHILD = """
import os, signal, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import signal; print('child', flush=True); signal.pause()"], env={environment})
signal.pause()
"""
"""`env` is what the child is left with: setproctitle, as vLLM uses it, leaves it with nothing that can be read."""
KEEPS, LOSES = "dict(os.environ)", "{'LC_ALL': 'C'}"


def started(runtime: LocalRuntime, log: Path, environment: str, name: str = NAME) -> tuple[Process, int]:
    """A replica with one child that writes to its log, and the child's pid."""
    launch = Launch(
        command=(sys.executable, "-c", CHILD.replace("{environment}", environment)), environment={}, niceness=0
    )
    process = runtime.start(launch, ("replica", name, 1), log)
    until(lambda: "child" in log.read_text())
    (child,) = (pid for pid in runtime.family(process.handle) if pid != process.pid)
    return process, child


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def killed(runtime: LocalRuntime, process: Process) -> None:
    """The leader alone."""
    runtime.send(process.handle, signal.SIGKILL)
    until(lambda: not runtime.alive(process.handle))


@pytest.fixture
def children() -> Iterator[list[int]]:
    """The pids of children that a test made: none outlives it."""
    made: list[int] = []
    yield made
    for pid in made:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("environment", [KEEPS, LOSES])
def test_a_child_whose_leader_was_killed_is_ended(tmp_path: Path, environment: str, children: list[int]) -> None:
    runtime, log = LocalRuntime(tmp_path), tmp_path / "replica.log"
    process, child = started(runtime, log, environment)
    children.append(child)
    assert bool(marks_of(child)) == (environment == KEEPS)
    assert runtime.sweep("replica", NAME, (log,)) == 0, "its leader lives"
    killed(runtime, process)
    assert living_name(child) is not None
    assert runtime.sweep("replica", NAME, (log,)) == 1
    until(lambda: living_name(child) is None)


def test_what_another_replica_left_is_let_alone(tmp_path: Path, children: list[int]) -> None:
    runtime, log, other = LocalRuntime(tmp_path), tmp_path / "replica.log", tmp_path / "other.log"
    log.touch()
    process, child = started(runtime, other, LOSES, "svc/1/1")
    children.append(child)
    killed(runtime, process)
    assert runtime.sweep("replica", NAME, (log,)) == 0
    assert living_name(child) is not None
    assert runtime.sweep("replica", None, (log, other)) == 1
