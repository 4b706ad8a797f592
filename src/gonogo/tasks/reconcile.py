"""Looks again and again at what the ledger says, and repairs what died: rings for what waits, frees what the dead held.

Four threads of the part `tasks`: one that must never be late (leases, windows, the bell), one that may take long (the
lines of batches, their files), one that ends the agents whose worker died, one that takes away what is old.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Callable

from gonogo.tasks import batches, files, leases, ledger
from gonogo.tasks.advance import Office, advance
from gonogo.tasks.agents.recover import recover
from gonogo.tasks.doorbell import Bell
from gonogo.tasks.leases import Machine
from gonogo.tasks.places import Queue

EVERY_S, TIDY_EVERY_S = 1.0, 60.0
AT_ONCE = 1000
KEPT_S = 30 * 86400.0
"""Finished single tasks and batches are forgotten after so long; files stay until they are deleted."""
ORPHANS_AFTER_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """`wall` gives Unix seconds; `tell` gets one record for each kind of failure."""

    queue: Queue
    bell: Bell
    machine: Machine
    tell: Callable[[str], None]
    wall: Callable[[], float] = time.time
    stopping: threading.Event

    def start(self) -> None:
        acts = ((self.quick, EVERY_S), (self.slow, EVERY_S), (self.agents, EVERY_S), (self.tidy, TIDY_EVERY_S))
        for act, every_s in acts:
            threading.Thread(target=self._run, args=(act, every_s), name=act.__name__, daemon=True).start()

    def quick(self) -> None:
        """Free what the dead held, end what is too late, ring."""
        now = self.wall()
        with self.queue.database.writing() as c:
            leases.sweep(c, self.machine, now)
            ledger.expire(c, now, AT_ONCE)
        with self.queue.database.reading() as c:
            wanting = leases.wanting(c, now)
        if wanting:
            self.bell.ring()

    def slow(self) -> None:
        """Move batches on."""
        queue = self.queue
        office = Office(
            database=queue.database,
            bodies=queue.bodies,
            vault=queue.vault,
            wall=self.wall,
            stop=self.stopping.is_set,
        )
        if advance(office):
            self.bell.ring()

    def agents(self) -> None:
        """End the agents whose worker is gone; their owners' wishes decide what becomes of the runs."""
        recover(self.queue, self.wall)

    def tidy(self) -> None:
        """Forget what is old."""
        queue, now = self.queue, self.wall()
        with queue.database.writing() as c:
            ledger.purge(c, now - KEPT_S, AT_ONCE)
            batches.forget(c, now - KEPT_S)
            known = files.known(c)
        queue.vault.sweep(known, now - ORPHANS_AFTER_S)

    def _run(self, act: Callable[[], None], every_s: float) -> None:
        told: set[str] = set()
        while not self.stopping.wait(every_s):
            try:
                act()
            except Exception as error:  # noqa: BLE001 (the boundary: the next round tries again, and it is told once)
                text = f"{type(error).__name__}: {error}"
                if text not in told:
                    told.add(text)
                    self.tell(text)
