"""The ledger's questions and changes about tasks. Each takes a connection inside a transaction of `Database`.

Not here: who holds a task while it runs (`leases`), batches (`batches`), what is in a sealed body (`bodies`).
"""

from __future__ import annotations

import sqlite3
from typing import Iterable, Iterator, Sequence

from gonogo.tasks.agents import runs
from gonogo.tasks.agents.nouns import RANK as OF_AGENT
from gonogo.tasks.nouns import OF_BATCH, OPEN, SINGLE, Counts, NewTask, State, Task

LARGEST_PAGE = 100
PLACE = "tasks"
"""The table's name in the associated data of sealed bodies."""

COLUMNS = (
    "number, task_id, owner, url, model, tokens, state, attempts, losses, created_at, expires_at, started_at,"
    " finished_at, status, reason, message, batch_id, line"
)


class KeyUsedTwice(Exception):
    """The idempotency key stands for another task of the same owner, whose prompt is another: `number` of that one."""

    def __init__(self, task: Task) -> None:
        super().__init__(f"the idempotency key stands for task {task.task_id} already")
        self.task = task


def add(c: sqlite3.Connection, new: NewTask) -> Task:
    """Record a task. Raises `KeyUsedTwice` where its idempotency key is known: the caller sees whether it is the same.

    sqlite3.IntegrityError says that its mark is in the batch already.
    """
    if new.idempotency_key is not None:
        known = c.execute(
            f"SELECT {COLUMNS} FROM tasks WHERE owner = ? AND idempotency_key = ?", (new.owner, new.idempotency_key)
        ).fetchone()
        if known is not None:
            raise KeyUsedTwice(task_of(known))
    state = State.QUEUED if new.failed is None else State.FAILED
    reason, message = new.failed or (None, None)
    values = {
        **{name: getattr(new, name) for name in _GIVEN},
        "rank": _rank(new),
        "state": state.value,
        "reason": reason,
        "message": message,
        "finished_at": None if new.failed is None else new.created_at,
    }
    number = c.execute(_INSERT, values).lastrowid
    c.execute("INSERT INTO bodies (number, prompt) VALUES (?, ?)", (number, new.prompt))
    if new.run is not None and number is not None:
        runs.add(c, number, new.run)
    return task_of(c.execute(f"SELECT {COLUMNS} FROM tasks WHERE number = ?", (number,)).fetchone())


def task(c: sqlite3.Connection, task_id: str, owner: str | None = None) -> Task | None:
    """The task; None when there is none, or when it is another owner's."""
    row = c.execute(f"SELECT {COLUMNS} FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
    return None if row is None or owner not in (None, row["owner"]) else task_of(row)


def prompt(c: sqlite3.Connection, number: int) -> bytes:
    """The sealed prompt."""
    return bytes(c.execute("SELECT prompt FROM bodies WHERE number = ?", (number,)).fetchone()["prompt"])


def result(c: sqlite3.Connection, number: int) -> bytes | None:
    """The sealed result, None while there is none."""
    row = c.execute("SELECT result FROM bodies WHERE number = ?", (number,)).fetchone()
    return None if row is None else row["result"]


def page(
    c: sqlite3.Connection, owner: str | None, *, before: int | None, limit: int, state: State | None = None
) -> tuple[Task, ...]:
    """Single tasks, newest first, those of one owner or all: numbers below `before`."""
    wanted: list[tuple[str, object]] = [("batch_id IS NULL", None)]
    if owner is not None:
        wanted.append(("owner = ?", owner))
    if before is not None:
        wanted.append(("number < ?", before))
    if state is not None:
        wanted.append(("state = ?", state.value))
    where = " AND ".join(condition for condition, _ in wanted)
    values = [value for condition, value in wanted if "?" in condition]
    rows = c.execute(f"SELECT {COLUMNS} FROM tasks WHERE {where} ORDER BY number DESC LIMIT ?", (*values, limit))
    return tuple(map(task_of, rows))


def cancel(c: sqlite3.Connection, numbers: Iterable[int], now: float) -> int:
    """These are not wanted any more, whether they wait or run; how many were still open."""
    changed = 0
    for number in numbers:
        changed += c.execute(
            "UPDATE tasks SET state = 'cancelled', lease = NULL, reason = 'cancelled', finished_at = ?"
            f" WHERE number = ? AND {_IS_OPEN}",
            (now, number),
        ).rowcount
    return changed


def cancel_batch(c: sqlite3.Connection, batch_id: str, reason: str, message: str, most: int, now: float) -> int:
    """At most `most` open lines of a batch are not run any more; how many."""
    return c.execute(
        "UPDATE tasks SET state = 'cancelled', lease = NULL, reason = ?, message = ?, finished_at = ? WHERE number IN"
        f" (SELECT number FROM tasks WHERE batch_id = ? AND {_IS_OPEN} LIMIT ?)",
        (reason, message, now, batch_id, most),
    ).rowcount


def expire(c: sqlite3.Connection, now: float, most: int) -> int:
    """At most `most` open tasks whose window has ended; how many. A running one's answer comes too late."""
    return c.execute(
        f"UPDATE tasks SET state = 'failed', lease = NULL, reason = 'expired', finished_at = ?, message = {_TOO_LATE}"
        f" WHERE number IN (SELECT number FROM tasks WHERE {_IS_OPEN} AND expires_at <= ? LIMIT ?)",
        (now, now, most),
    ).rowcount


def retry(c: sqlite3.Connection, numbers: Iterable[int], now: float, window_s: float) -> int:
    """Failed, cancelled and dead single tasks wait once more, as if never tried; how many."""
    changed = 0
    for number in numbers:
        waits = c.execute(
            "UPDATE tasks SET state = 'queued', attempts = 0, losses = 0, not_before = 0, lease = NULL, reason = NULL,"
            " message = NULL, status = NULL, started_at = NULL, finished_at = NULL, expires_at = ?"
            " WHERE number = ? AND batch_id IS NULL AND state IN ('failed', 'cancelled', 'dead')",
            (now + window_s, number),
        ).rowcount
        if waits:
            c.execute("UPDATE bodies SET result = NULL WHERE number = ?", (number,))
        changed += waits
    return changed


def counts(c: sqlite3.Connection, batch_id: str | None = None) -> Counts:
    """How many tasks are in each state: of one batch, or of all."""
    where, values = ("", ()) if batch_id is None else (" WHERE batch_id = ?", (batch_id,))
    rows = c.execute(f"SELECT state, count(*) AS n FROM tasks{where} GROUP BY state", values)
    return Counts(**{row["state"]: row["n"] for row in rows})


def oldest_queued_at(c: sqlite3.Connection) -> float | None:
    """When the oldest waiting task was made; None when nothing waits."""
    row = c.execute("SELECT min(number) AS number FROM tasks WHERE state = 'queued'").fetchone()
    if row["number"] is None:
        return None
    return float(c.execute("SELECT created_at FROM tasks WHERE number = ?", (row["number"],)).fetchone()[0])


def dead(c: sqlite3.Connection, most: int) -> tuple[Task, ...]:
    """The dead letters, oldest first, lines of batches too."""
    rows = c.execute(f"SELECT {COLUMNS} FROM tasks WHERE state = 'dead' ORDER BY number LIMIT ?", (most,))
    return tuple(map(task_of, rows))


def purge(c: sqlite3.Connection, finished_before: float, most: int) -> int:
    """At most `most` finished single tasks of long ago are forgotten; how many."""
    old = [
        row["number"]
        for row in c.execute(
            "SELECT number FROM tasks WHERE batch_id IS NULL AND state NOT IN ('queued', 'leased', 'dead')"
            " AND finished_at < ? LIMIT ?",
            (finished_before, most),
        )
    ]
    forget(c, old)
    runs.forget(c, old)
    return len(old)


def forget(c: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """These tasks and their bodies are no more."""
    for table in ("bodies", "tasks"):
        c.executemany(f"DELETE FROM {table} WHERE number = ?", [(number,) for number in numbers])


def lines_of(
    c: sqlite3.Connection, batch_id: str, state: State, after: int
) -> Iterator[tuple[Task, bytes, bytes | None]]:
    """The lines of a batch in this state with numbers above `after`, with prompt and result as they are sealed."""
    rows = c.execute(
        f"SELECT {', '.join(f't.{name}' for name in COLUMNS.split(', '))}, b.prompt, b.result"
        " FROM tasks t JOIN bodies b ON b.number = t.number"
        " WHERE t.batch_id = ? AND t.state = ? AND t.number > ? ORDER BY t.number",
        (batch_id, state.value, after),
    )
    return ((task_of(row), row["prompt"], row["result"]) for row in rows)


def task_of(row: sqlite3.Row) -> Task:
    """A row with `COLUMNS`, and perhaps more."""
    return Task(**{**{name: row[name] for name in COLUMNS.split(", ")}, "state": State(row["state"])})


def _rank(new: NewTask) -> int:
    if new.run is not None:
        return OF_AGENT
    return SINGLE if new.batch_id is None else OF_BATCH


_IS_OPEN = f"state IN ({', '.join(repr(state.value) for state in OPEN)})"
_TOO_LATE = (
    "'The task was not done before its window ended: ' || CASE"
    " WHEN state = 'queued' AND message IS NULL THEN 'it had not been its turn.'"
    " WHEN state = 'queued' THEN 'it waited to be tried again. ' || message"
    f" ELSE CASE WHEN rank = {OF_AGENT} THEN 'its agent was at work' ELSE 'it was being asked' END"
    " || ' when its time was up, first taken ' || max(0, round(expires_at - started_at, 1)) || ' s before.'"
    " || coalesce(' Before that: ' || message, '') END"
)
"""What is true of a task when its window ends: a message is what its last try ended with, not what runs now."""
_GIVEN = (
    *("task_id", "owner", "idempotency_key", "batch_id", "line", "mark", "url", "model", "tokens"),
    *("created_at", "expires_at"),
)
_ADDED = (*_GIVEN, "rank", "state", "reason", "message", "finished_at")
_INSERT = f"INSERT INTO tasks ({', '.join(_ADDED)}) VALUES ({', '.join(f':{name}' for name in _ADDED)})"
