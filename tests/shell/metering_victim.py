"""A program: meters the logs of a state directory, and kills itself at the N-th thing that it does to the database.

Usage: metering_victim.py STATE_DIR N [N …]. For each N a child of its own; N = 0: to the end. Prints, a line for each,
how many things the child did, or `killed`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import sqlalchemy as sa
import sqlalchemy.event

from gonogo.control.metering import Meter
from gonogo.runtimes.paths import StatePaths
from gonogo.store import open_store


class Countdown:
    """Kills this process with SIGKILL when it is called for the N-th time."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.done = 0

    def __call__(self, *_: object) -> None:
        self.done += 1
        if self.done == self._number:
            os.kill(os.getpid(), signal.SIGKILL)


def run(state_dir: Path, number: int) -> int:
    paths = StatePaths.of(state_dir)
    store = open_store(paths.database, clock=time.time)
    epoch = store.acquire_lease("victim")
    meter = Meter(paths, store, lambda: store.change(epoch=epoch, actor="control", principal="control"))
    countdown = Countdown(number)
    sqlalchemy.event.listen(sa.Engine, "before_cursor_execute", countdown)
    sqlalchemy.event.listen(sa.Engine, "after_cursor_execute", countdown)
    sqlalchemy.event.listen(sa.Engine, "commit", countdown)
    for _ in range(3):
        meter.step()
        countdown()  # after the commit
    return countdown.done


def main() -> None:
    state_dir = Path(sys.argv[1])
    for number in map(int, sys.argv[2:]):
        child = os.fork()
        if child == 0:
            done = run(state_dir / str(number), number)
            print(done, flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print("killed", flush=True)


if __name__ == "__main__":
    main()
