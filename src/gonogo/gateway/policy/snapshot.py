"""The one immutable snapshot that a policy server decides by, and the thread that renews it from the store.

Not here: SQL (`gonogo.store`) and decisions (`decide`). The store is asked through a `Reader`, so that the server goes
on deciding while a disk hangs, and refuses everybody once the last good look is too long ago.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Protocol

from gonogo.gateway.policy.decide import View

POLL_INTERVAL_S = 0.1
STALE_AFTER_S = 5.0


class Reader(Protocol):
    """The store, read-only, as `gonogo.store.open_reader` opens it."""

    def changed(self) -> bool:
        """Whether keys or serving revisions changed since the last `policy_view`. Fails when the file is gone."""

    def policy_view(self) -> View:
        """Keys and serving revisions, read in one transaction."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was read of the store. `seen_at` (monotonic seconds) is the last time it was known to be current."""

    view: View
    seen_at: float


class SnapshotSource:
    """Reads the store again and again; `fresh` gives what was read last, while that is recent enough.

    `clock` is monotonic (seconds). `tell` gets one line when reading begins to fail and one when it works again.
    """

    def __init__(
        self,
        path: Path,
        open_reader: Callable[[Path], Reader],
        *,
        clock: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self._path = path
        self._open_reader = open_reader
        self._clock = clock
        self._tell = tell
        self._reader: Reader | None = None
        self._snapshot: Snapshot | None = None
        self._failing: str | None = None
        self._stopped = threading.Event()

    def fresh(self) -> View | None:
        """The view to decide by; None when the store could not be read for 5 s, or never yet."""
        snapshot = self._snapshot
        if snapshot is None or self._clock() - snapshot.seen_at > STALE_AFTER_S:
            return None
        return snapshot.view

    def poll(self) -> None:
        """Look once. Whatever is wrong with the store is told once, and leaves the last snapshot to grow old."""
        try:
            self._look()
        except Exception as error:  # noqa: BLE001 - a boundary: whatever the store does, policy must go on (and end up refusing)
            self._drop()
            self._note(f"{type(error).__name__}: {error}")
            return
        self._note(None)

    def run(self) -> None:
        """Poll every 100 ms until `stop`; for a thread of its own, where a hanging disk hangs nothing else."""
        while not self._stopped.is_set():
            self.poll()
            self._stopped.wait(POLL_INTERVAL_S)
        self._drop()

    def stop(self) -> None:
        """Let `run` end after the look it is in."""
        self._stopped.set()

    def _look(self) -> None:
        # Before reading, so that a slow read makes the snapshot older, never younger than it is.
        began = self._clock()
        if self._reader is None:
            self._reader = self._open_reader(self._path)
        snapshot = self._snapshot
        view = self._reader.policy_view() if self._reader.changed() or snapshot is None else snapshot.view
        self._snapshot = Snapshot(view=view, seen_at=began)

    def _drop(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            try:
                reader.close()
            except Exception as error:  # noqa: BLE001 - a boundary: a broken connection is of no more use anyway
                self._tell(f"closing the store: {type(error).__name__}")

    def _note(self, failure: str | None) -> None:
        if failure is not None and self._failing is None:
            self._tell(
                f"the store cannot be read, so {STALE_AFTER_S:.0f} s after the last look nobody is let in: {failure}"
            )
        if failure is None and self._failing is not None:
            self._tell("the store can be read again")
        self._failing = failure
