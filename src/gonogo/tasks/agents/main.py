"""The worker of agents' runs: takes those whose devices are free, attends each in a thread, keeps their ends.

    python -m gonogo.tasks.agents.main --state-dir DIR --parent PID

The part `worker` starts it when a run waits; it ends when there has been nothing to do for a while, when its parent is
gone, or at SIGTERM. In the last two cases its runs are ended where they are, and their owners' wishes decide what
becomes of them (`recover`), as when it is killed.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Sequence

from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.tell import tell
from gonogo.store.faults import StoreError
from gonogo.tasks import leases
from gonogo.tasks.agents import runs
from gonogo.tasks.agents.attend import Attended, Bench, attend
from gonogo.tasks.agents.keys import RunKeys
from gonogo.tasks.agents.runs import TakenRun
from gonogo.tasks.agents.verdict import Verdict
from gonogo.tasks.leases import LeaseLost, Machine
from gonogo.tasks.nouns import Ended, Postponed, State
from gonogo.tasks.places import Queue, open_queue

MOST_AT_ONCE = 8
"""Devices at once: each agent is a process of some 100 MB."""
IDLE_S = 10.0
LOOK_EVERY_S, RENEW_EVERY_S, LATER_S = 0.2, 5.0, 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until there is nothing to do."""
    parser = argparse.ArgumentParser(prog="gonogo-agents", description=__doc__)
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args(arguments)
    os.umask(0o077)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    _Shift(open_queue(StatePaths.of(given.state_dir)), given.parent, stopping).run()
    return 0


class _Shift:
    def __init__(self, queue: Queue, parent: int, stopping: threading.Event) -> None:
        self._queue, self._parent, self._stopping = queue, parent, stopping
        self._machine, self._keys = Machine.this(), RunKeys(queue.paths)
        self._held: frozenset[int] = frozenset()
        self._running: dict[Future[Attended], TakenRun] = {}
        self._busy_at = self._renewed_at = time.monotonic()
        self._told: set[str] = set()

    def run(self) -> None:
        with self._queue.database.writing() as c:
            lease = leases.begin(c, self._machine, f"{socket.gethostname()} agents", os.getpid())
        bench = Bench(
            paths=self._queue.paths,
            database=self._queue.database,
            bodies=self._queue.bodies,
            keys=self._keys,
            lease=lease,
            held=lambda number: number in self._held,
            stopping=self._stopping,
        )
        with ThreadPoolExecutor(MOST_AT_ONCE, "run") as threads:
            try:
                self._work(bench, threads)
            finally:
                self._stopping.set()
        with self._queue.database.writing() as c:
            leases.end(c, lease)

    def _work(self, bench: Bench, threads: ThreadPoolExecutor) -> None:
        while not self._stopping.is_set() and os.getppid() == self._parent:
            try:
                self._take(bench, threads)
                self._keep(bench)
                self._look(bench)
            except LeaseLost:
                return  # we were taken for dead: what we still do counts for nothing
            except StoreError as error:
                self._tell(f"{type(error).__name__}: {error}")
            if self._running:
                self._busy_at = time.monotonic()
            elif time.monotonic() - self._busy_at > IDLE_S:
                return
            self._stopping.wait(LOOK_EVERY_S)

    def _take(self, bench: Bench, threads: ThreadPoolExecutor) -> None:
        room = MOST_AT_ONCE - len(self._running)
        if not room:
            return
        now = bench.wall()
        with bench.database.reading() as c:
            if leases.draining(c) or not runs.wanting(c, now):
                return
        with bench.database.writing() as c:
            taken = runs.take(c, bench.lease, room, now)
        self._held |= {one.run.number for one in taken}
        for one in taken:
            self._running[threads.submit(attend, bench, one)] = one

    def _look(self, bench: Bench) -> None:
        with bench.database.reading() as c:
            self._held = runs.still_held(c, bench.lease)
        if time.monotonic() - self._renewed_at < RENEW_EVERY_S:
            return
        with bench.database.writing() as c:
            leases.renew(c, self._machine, bench.lease)
        self._renewed_at = time.monotonic()

    def _keep(self, bench: Bench) -> None:
        """Write down how runs ended; one that cannot be written now is tried again in the next round."""
        for future, taken in [(one, taken) for one, taken in self._running.items() if one.done()]:
            error = future.exception()
            if error is not None:
                self._tell(f"a run of an agent: {type(error).__name__}: {error}")
                broken = f"The queue met an error of its own ({type(error).__name__}); `gonogo logs` has it."
                attended = Attended(verdict=Verdict(state=State.FAILED, reason="queue_error", message=broken))
            else:
                attended = future.result()
            self._keep_one(bench, taken, attended)
            del self._running[future]

    def _keep_one(self, bench: Bench, taken: TakenRun, attended: Attended) -> None:
        now, number, verdict = bench.wall(), taken.run.number, attended.verdict
        with bench.database.reading() as c:
            key_id = runs.found(c, [number])[number].key_id
        if key_id is not None:
            self._keys.revoke(key_id)
        with bench.database.writing() as c:
            if attended.later:
                told = "The gateway does not answer; the run waits for it."
                later = Postponed(number=number, not_before=now + LATER_S, counts=False, reason="later", message=told)
                leases.postpone(c, bench.lease, later, now)
                runs.not_begun(c, number)
            elif verdict is not None:
                leases.finish(c, bench.lease, _ended(number, verdict, attended.result), now)
            runs.free(c, number, bench.lease)

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            tell(text)


def _ended(number: int, verdict: Verdict, result: bytes | None) -> Ended:
    return Ended(
        number=number,
        state=verdict.state,
        status=None,
        result=result,
        reason=verdict.reason,
        message=verdict.message,
    )


if __name__ == "__main__":
    sys.exit(main())
