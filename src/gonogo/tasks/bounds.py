"""How much one key may leave, so that it cannot fill the disk: open tasks, bytes of files, unfinished batches.

Inside transactions of `Database`. Tasks are counted in the index of those that wait, and not for each request: what was
counted is counted down until it is used up or old. Files and batches are few, and their rows are summed.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Callable

from gonogo.spec.queue import Queue
from gonogo.tasks.agents.nouns import RANK as OF_AGENT
from gonogo.tasks.batches import UNFINISHED
from gonogo.tasks.nouns import SINGLE

TIMES_IN_ALL = 10
"""All keys together may leave so many times what one may."""
MOST_FILES = 10_000
MOST_BATCHES = 1_000
COUNTED_FOR_S, COUNTED_EVERY_S = 30.0, 1.0
GIB = 2**30
RANKS = (SINGLE, OF_AGENT)
"""Of tasks that are left one by one; each is asked for by itself: a range of ranks would walk all lines of batches."""


class TooMuch(Exception):
    """More than a key may leave. `later`: there is room once some of it has ended; else something must be deleted."""

    def __init__(self, code: str, message: str, *, later: bool) -> None:
        super().__init__(message)
        self.code, self.message, self.later = code, message, later


@dataclass(slots=True)
class _Left:
    room: int
    at: float


class Bounds:
    """What the specs allow now, held against the ledger. `admit` is for one thread, the writer's."""

    def __init__(self, asked: Callable[[], Queue], clock: Callable[[], float] = time.monotonic) -> None:
        self._asked, self._clock = asked, clock
        self._left: dict[str | None, _Left] = {}

    def admit(self, c: sqlite3.Connection, owner: str, count: int) -> None:
        """So many more tasks of this owner, which are in the ledger already. Raises `TooMuch`: undo that."""
        per_key = self._asked().tasks_per_key
        whose: tuple[tuple[str | None, int], ...] = ((owner, per_key), (None, TIMES_IN_ALL * per_key))
        counted = []
        for who, most in whose:
            left = self._counted(c, who, most, count)
            counted.append(left)
            if left.room < count:
                of = "This API key has" if who is not None else "All API keys together have"
                message = (
                    f"{of} too many open tasks: at most {most:,} may wait or run, and {count:,} more were sent. Wait"
                    " until some have ended, cancel some, or leave them as a batch; `queue.tasks_per_key` of the spec"
                    " is the bound."
                )
                raise TooMuch("too_many_open_tasks", message, later=True)
        for left in counted:
            left.room -= count

    def admit_file(self, c: sqlite3.Connection, owner: str, size_bytes: int) -> None:
        """One more uploaded file of this owner. Raises `TooMuch`."""
        most_bytes = self._bytes()
        files, kept = c.execute(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM files WHERE owner = ? AND purpose = 'batch'", (owner,)
        ).fetchone()
        (all_kept,) = c.execute("SELECT coalesce(sum(bytes), 0) FROM files WHERE purpose = 'batch'").fetchone()
        if files >= MOST_FILES:
            message = f"This API key keeps {files:,} files, the most that it may: delete some with DELETE /v1/files/ID."
            raise TooMuch("too_many_files", message, later=False)
        for of, held, most in (("This API key", kept, most_bytes), ("All keys", all_kept, TIMES_IN_ALL * most_bytes)):
            if held + size_bytes > most:
                message = (
                    f"{of} may keep {most / GIB:g} GiB of uploaded files; there are {held / GIB:.2f}, and this one has"
                    f" {size_bytes / GIB:.2f}. Delete some with DELETE /v1/files/ID; `queue.file_gib_per_key` of the"
                    " spec is the bound."
                )
                raise TooMuch("too_many_file_bytes", message, later=False)

    def admit_batch(self, c: sqlite3.Connection, owner: str, size_bytes: int) -> None:
        """One more batch of this owner, over a file of this size. Raises `TooMuch`."""
        states = ", ".join(repr(state) for state in UNFINISHED)
        running, held = c.execute(
            "SELECT count(*), coalesce(sum(f.bytes), 0) FROM batches b LEFT JOIN files f ON f.file_id = b.input_file"
            f" WHERE b.owner = ? AND b.state IN ({states})",
            (owner,),
        ).fetchone()
        most_bytes = self._bytes()
        if running >= MOST_BATCHES or held + size_bytes > most_bytes:
            message = (
                f"This API key has {running:,} unfinished batches over {held / GIB:.2f} GiB of files; at most"
                f" {MOST_BATCHES:,} and {most_bytes / GIB:g} GiB are taken, this one has {size_bytes / GIB:.2f}. Wait"
                " until some have ended, or cancel some; `queue.file_gib_per_key` of the spec is the bound."
            )
            raise TooMuch("too_many_open_batches", message, later=True)

    def _bytes(self) -> int:
        return int(self._asked().file_gib_per_key * GIB)

    def _counted(self, c: sqlite3.Connection, who: str | None, most: int, wanted: int) -> _Left:
        """What is left of `most`, as of at most half a minute ago; counted anew when that would not do."""
        now, left = self._clock(), self._left.get(who)
        if left is not None and now - left.at < (COUNTED_FOR_S if left.room >= wanted else COUNTED_EVERY_S):
            return left
        # `wanted` are in the ledger already
        left = _Left(room=most - _open(c, who, most + wanted + 1) + wanted, at=now)
        self._left = {one: kept for one, kept in self._left.items() if now - kept.at < COUNTED_FOR_S}
        self._left[who] = left
        return left


def _open(c: sqlite3.Connection, owner: str | None, most: int) -> int:
    """How many tasks of this owner (None: of all) wait or run, lines of batches left out; at most `most` of a rank."""
    mine, values = ("", ()) if owner is None else (" AND owner = ?", (owner,))
    waiting = (
        c.execute(
            "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_queued WHERE state = 'queued' AND rank = ?"
            f"{mine} LIMIT ?)",
            (rank, *values, most),
        ).fetchone()[0]
        for rank in RANKS
    )
    running = c.execute(
        f"SELECT count(*) FROM tasks INDEXED BY tasks_held WHERE state = 'leased' AND batch_id IS NULL{mine}", values
    ).fetchone()[0]
    return int(sum(waiting) + running)
