"""Batches, OpenAI's: the rows and their states. Inside transactions of `Database`.

validating (its lines become tasks) → in_progress → finalizing (its output is written) → completed, or cancelling →
cancelled, or expired, when its window ended; failed when its file could not be read. Who moves them on: `advance`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING = "validating", "in_progress", "finalizing", "cancelling"
COMPLETED, CANCELLED, EXPIRED, FAILED = "completed", "cancelled", "expired", "failed"
UNFINISHED = (VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch. `lines` were read of its file; the counts are None until it is finished. Times are Unix seconds."""

    batch_id: str
    owner: str
    endpoint: str
    input_file: str
    window: str
    metadata: bytes | None = field(repr=False)
    state: str
    lines: int
    output_file: str | None
    error_file: str | None
    error_code: str | None
    error_message: str | None
    total: int | None
    completed: int | None
    failed: int | None
    created_at: float
    expires_at: float
    in_progress_at: float | None
    finalizing_at: float | None
    finished_at: float | None
    cancelling_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a finished batch came to: its files, where it has any, and its counts."""

    state: str
    output_file: str | None
    error_file: str | None
    total: int
    completed: int
    failed: int


def add(c: sqlite3.Connection, new: Batch) -> None:
    names = Batch.__slots__
    c.execute(
        f"INSERT INTO batches ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})",
        {name: getattr(new, name) for name in names},
    )


def batch(c: sqlite3.Connection, batch_id: str, owner: str | None = None) -> Batch | None:
    """The batch; None when there is none, or when it is another owner's."""
    row = c.execute("SELECT * FROM batches WHERE batch_id = ?", (batch_id,)).fetchone()
    return None if row is None or owner not in (None, row["owner"]) else Batch(**row)


def page(c: sqlite3.Connection, owner: str | None, *, after: Batch | None, limit: int) -> tuple[Batch, ...]:
    """Batches of one owner or of all, newest first."""
    since = (float("inf"), "") if after is None else (after.created_at, after.batch_id)
    rows = c.execute(
        "SELECT * FROM batches WHERE (? IS NULL OR owner = ?) AND (created_at, batch_id) < (?, ?)"
        " ORDER BY created_at DESC, batch_id DESC LIMIT ?",
        (owner, owner, *since, limit),
    )
    return tuple(Batch(**row) for row in rows)


def unfinished(c: sqlite3.Connection) -> tuple[Batch, ...]:
    """Every batch that is to be moved on, oldest first."""
    states = ", ".join(repr(state) for state in UNFINISHED)
    rows = c.execute(f"SELECT * FROM batches WHERE state IN ({states}) ORDER BY created_at, batch_id")
    return tuple(Batch(**row) for row in rows)


def finished_with_lines(c: sqlite3.Connection, most: int) -> tuple[int, ...]:
    """Numbers of tasks whose batch is finished: their answers are in its files."""
    rows = c.execute(
        "SELECT t.number FROM batches b JOIN tasks t ON t.batch_id = b.batch_id"
        " WHERE b.state NOT IN ('validating', 'in_progress', 'finalizing', 'cancelling') LIMIT ?",
        (most,),
    )
    return tuple(row["number"] for row in rows)


def read_on(c: sqlite3.Connection, batch_id: str, lines: int) -> bool:
    """So many lines are tasks now; False when the batch is not being read any more."""
    done = c.execute("UPDATE batches SET lines = ? WHERE batch_id = ? AND state = 'validating'", (lines, batch_id))
    return done.rowcount == 1


def move(c: sqlite3.Connection, batch_id: str, before: str, after: str, now: float) -> bool:
    """From one state to the next, if it still is in that one; the time goes into the column of the new state."""
    column = f"{after}_at"
    done = c.execute(
        f"UPDATE batches SET state = ?, {column} = ? WHERE batch_id = ? AND state = ?", (after, now, batch_id, before)
    )
    return done.rowcount == 1


def fail(c: sqlite3.Connection, batch_id: str, code: str, message: str, now: float) -> None:
    """It cannot be run at all."""
    c.execute(
        "UPDATE batches SET state = 'failed', error_code = ?, error_message = ?, finished_at = ? WHERE batch_id = ?",
        (code, message, now, batch_id),
    )


def finish(c: sqlite3.Connection, batch_id: str, made: Made, now: float) -> None:
    c.execute(
        "UPDATE batches SET state = ?, output_file = ?, error_file = ?, total = ?, completed = ?, failed = ?,"
        " finished_at = ? WHERE batch_id = ?",
        (made.state, made.output_file, made.error_file, made.total, made.completed, made.failed, now, batch_id),
    )


def cancel(c: sqlite3.Connection, batch_id: str, now: float) -> bool:
    """It is not wanted any more: no line begins from now on; False when it was finished already."""
    done = c.execute(
        "UPDATE batches SET state = 'cancelling', cancelling_at = ? WHERE batch_id = ?"
        " AND state IN ('validating', 'in_progress')",
        (now, batch_id),
    )
    return done.rowcount == 1


def open_lines(c: sqlite3.Connection, batch_id: str) -> bool:
    """Whether a line of it still waits or runs."""
    found = c.execute(
        "SELECT 1 FROM tasks WHERE batch_id = ? AND state IN ('queued', 'leased') LIMIT 1", (batch_id,)
    ).fetchone()
    return found is not None


def forget(c: sqlite3.Connection, finished_before: float) -> int:
    """Batches that finished long ago are no more, if their lines are gone; how many."""
    return c.execute(
        "DELETE FROM batches WHERE finished_at < ? AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.batch_id ="
        " batches.batch_id)",
        (finished_before,),
    ).rowcount
