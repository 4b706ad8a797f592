"""Who holds which task: a worker's lease, with its number as the fencing token. Inside transactions of `Database`.

A lease is a process's own, and ends with it, or when it was not renewed. Its end is in seconds since the machine's
start, so that no clock that jumps ends or prolongs one. A result is taken only from whoever still holds the task: two
workers may ask the model, one answer is kept.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Sequence

from gonogo.runtimes.process_table import START, STATE, stat_fields
from gonogo.tasks.agents.nouns import RANK as OF_AGENT
from gonogo.tasks.ledger import COLUMNS, task_of
from gonogo.tasks.nouns import (
    MOST_ATTEMPTS,
    MOST_LOSSES,
    SUSPECT_LOSSES,
    Ended,
    Postponed,
    State,
    Taken,
    Task,
)

LEASE_S = 30.0
LONGEST_POSTPONED_S = 300.0
"""A task that waits longer than this for its next try waits for a clock that jumped."""


class LeaseLost(Exception):
    """The lease was ended by others: what its worker still does counts for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """This machine's clock that never jumps (seconds since its start), and which start it was."""

    boot: str
    clock: Callable[[], float]

    @classmethod
    def this(cls) -> Machine:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(boot=boot, clock=lambda: time.clock_gettime(time.CLOCK_BOOTTIME))


def begin(c: sqlite3.Connection, machine: Machine, worker: str, pid: int) -> int:
    """A lease for this process; its number."""
    values = (worker, pid, _started(pid), machine.boot, machine.clock() + LEASE_S)
    made = c.execute("INSERT INTO leases (worker, pid, started, boot, until) VALUES (?, ?, ?, ?, ?)", values)
    assert made.lastrowid is not None
    return made.lastrowid


def renew(c: sqlite3.Connection, machine: Machine, lease: int) -> frozenset[int]:
    """Hold on for another while; the numbers of the tasks that it holds. Raises `LeaseLost`."""
    until = machine.clock() + LEASE_S
    if c.execute("UPDATE leases SET until = ? WHERE number = ?", (until, lease)).rowcount == 0:
        raise LeaseLost
    rows = c.execute("SELECT number FROM tasks WHERE state = 'leased' AND lease = ?", (lease,))
    return frozenset(row["number"] for row in rows)


def take(
    c: sqlite3.Connection, lease: int, most: int, now: float, *, ranks: Sequence[int], alone: bool
) -> tuple[Taken, ...]:
    """At most `most` waiting tasks of these ranks for this lease: rank by rank, the owners by turns, oldest first.

    `alone`: the lease holds nothing else now. Only then a suspect is taken (`SUSPECT_LOSSES`), and nothing beside it.
    Raises `LeaseLost`.
    """
    if c.execute("SELECT 1 FROM leases WHERE number = ?", (lease,)).fetchone() is None:
        raise LeaseLost
    if draining(c):
        return ()
    chosen: list[Task] = []
    for rank in ranks:
        chosen += _by_turns(c, rank, most - len(chosen), now)
    suspects = [one for one in chosen if one.losses >= SUSPECT_LOSSES]
    if suspects:
        chosen = suspects[:1] if alone else [one for one in chosen if one.losses < SUSPECT_LOSSES]
    return tuple(_taken(c, lease, one, now) for one in chosen)


def draining(c: sqlite3.Connection) -> bool:
    """Whether nothing new is to begin (`gonogo tasks drain`)."""
    return c.execute("SELECT 1 FROM switches WHERE name = 'drain'").fetchone() is not None


def drain(c: sqlite3.Connection, on: bool, now: float) -> None:
    """Let nothing new begin, or let it again. What runs is finished."""
    if on:
        c.execute("INSERT OR IGNORE INTO switches (name, on_since) VALUES ('drain', ?)", (now,))
    else:
        c.execute("DELETE FROM switches WHERE name = 'drain'")


def finish(c: sqlite3.Connection, lease: int, ended: Ended, now: float) -> bool:
    """Keep how a task ended, if this lease still holds it; whether it was kept."""
    kept = c.execute(
        "UPDATE tasks SET state = ?, status = ?, reason = ?, message = ?, finished_at = ?, lease = NULL"
        " WHERE number = ? AND state = 'leased' AND lease = ?",
        (ended.state.value, ended.status, ended.reason, ended.message, now, ended.number, lease),
    ).rowcount
    if kept and ended.result is not None:
        c.execute("UPDATE bodies SET result = ? WHERE number = ?", (ended.result, ended.number))
    return bool(kept)


def postpone(c: sqlite3.Connection, lease: int, later: Postponed, now: float) -> State | None:
    """Back to the queue, or dead when that was the last attempt; the state it is in now, None when it was not ours."""
    row = c.execute(
        "UPDATE tasks SET attempts = attempts + ?, not_before = ?, reason = ?, message = ?, lease = NULL,"
        " state = CASE WHEN attempts + ? >= ? THEN 'dead' ELSE 'queued' END,"
        " finished_at = CASE WHEN attempts + ? >= ? THEN ? ELSE NULL END"
        " WHERE number = ? AND state = 'leased' AND lease = ? RETURNING state",
        (
            *(int(later.counts), later.not_before, later.reason, later.message),
            *(int(later.counts), MOST_ATTEMPTS, int(later.counts), MOST_ATTEMPTS, now),
            *(later.number, lease),
        ),
    ).fetchone()
    return None if row is None else State(row["state"])


def give_back(c: sqlite3.Connection, lease: int, numbers: Sequence[int] | None = None) -> None:
    """Tasks that were taken and not begun wait again, as if never taken: these, or all that the lease holds.

    Not the runs of agents: what they did is not undone (`agents.recover`).
    """
    if numbers is None:
        c.execute(
            "UPDATE tasks SET state = 'queued', lease = NULL WHERE state = 'leased' AND lease = ? AND rank < ?",
            (lease, OF_AGENT),
        )
        return
    c.executemany(
        "UPDATE tasks SET state = 'queued', lease = NULL WHERE number = ? AND state = 'leased' AND lease = ?",
        [(number, lease) for number in numbers],
    )


def end(c: sqlite3.Connection, lease: int) -> None:
    """The worker is through: whatever it still holds waits again."""
    give_back(c, lease)
    c.execute("DELETE FROM leases WHERE number = ?", (lease,))


def sweep(c: sqlite3.Connection, machine: Machine, now: float) -> int:
    """End the leases of workers that died or hang; how many tasks wait again or are dead now.

    The runs that they held stay theirs until the processes of those are gone, too (`agents.recover`).
    """
    lost = 0
    for lease in c.execute("SELECT * FROM leases").fetchall():
        if _lives(lease, machine):
            continue
        lost += c.execute(
            "UPDATE tasks SET losses = losses + 1, lease = NULL, reason = 'worker_lost',"
            " state = CASE WHEN losses + 1 >= ? THEN 'dead' ELSE 'queued' END,"
            " finished_at = CASE WHEN losses + 1 >= ? THEN ? ELSE NULL END,"
            " message = 'Its worker died or hung while it held the task, ' || (losses + 1) || ' times.'"
            " WHERE state = 'leased' AND lease = ? AND rank < ?",
            (MOST_LOSSES, MOST_LOSSES, now, lease["number"], OF_AGENT),
        ).rowcount
        c.execute("DELETE FROM leases WHERE number = ?", (lease["number"],))
    c.execute(
        "UPDATE tasks SET not_before = ? WHERE state = 'queued' AND not_before > ?", (now, now + LONGEST_POSTPONED_S)
    )
    return lost


def holders(c: sqlite3.Connection, machine: Machine) -> tuple[tuple[str, int], ...]:
    """Each lease of a process that lives: its worker, and how many tasks it holds.

    What the dead held is still leased where nobody sweeps: after `gonogo down`.
    """
    rows = c.execute(
        "SELECT *, (SELECT count(*) FROM tasks WHERE state = 'leased' AND lease = leases.number) AS held"
        " FROM leases ORDER BY number"
    )
    return tuple((row["worker"], row["held"]) for row in rows if _lives(row, machine))


def wanting(c: sqlite3.Connection, now: float) -> bool:
    """Whether a request waits that could begin now. Nobody rings for the runs of agents: their worker looks itself."""
    if draining(c):
        return False
    found = c.execute(
        "SELECT 1 FROM tasks WHERE state = 'queued' AND rank < ? AND not_before <= ? LIMIT 1", (OF_AGENT, now)
    ).fetchone()
    return found is not None


def _lives(lease: sqlite3.Row, machine: Machine) -> bool:
    if lease["boot"] != machine.boot or lease["until"] < machine.clock():
        return False
    return bool(_started(lease["pid"]) == lease["started"])


def _started(pid: int) -> str:
    """When the process began, as the kernel counts it; "" when it is gone or only waits to be taken away."""
    fields = stat_fields(pid)
    return "" if fields is None or fields[STATE] in ("Z", "X") else fields[START]


def _by_turns(c: sqlite3.Connection, rank: int, most: int, now: float) -> list[Task]:
    """One of each owner, again and again, until `most` are there."""
    if most <= 0:
        return []
    waiting = [_oldest_of(c, rank, owner, most, now) for owner in _owners(c, rank)]
    chosen: list[Task] = []
    while waiting and len(chosen) < most:
        for queue in list(waiting):
            found = next(queue, None)
            if found is None:
                waiting.remove(queue)
            elif len(chosen) < most:
                chosen.append(found)
    return chosen


def _owners(c: sqlite3.Connection, rank: int) -> Iterator[str]:
    """Owners with waiting tasks of this rank: one step in the index each, however many tasks there are."""
    owner = ""
    while True:
        row = c.execute(
            "SELECT owner FROM tasks INDEXED BY tasks_queued WHERE state = 'queued' AND rank = ? AND owner > ?"
            " ORDER BY owner LIMIT 1",
            (rank, owner),
        ).fetchone()
        if row is None:
            return
        owner = row["owner"]
        yield owner


def _oldest_of(c: sqlite3.Connection, rank: int, owner: str, most: int, now: float) -> Iterator[Task]:
    rows = c.execute(
        f"SELECT {COLUMNS} FROM tasks INDEXED BY tasks_queued WHERE state = 'queued' AND rank = ? AND owner = ?"
        " AND not_before <= ? ORDER BY number LIMIT ?",
        (rank, owner, now, most),
    )
    return map(task_of, rows.fetchall())


def _taken(c: sqlite3.Connection, lease: int, task: Task, now: float) -> Taken:
    c.execute(
        "UPDATE tasks SET state = 'leased', lease = ?, started_at = coalesce(started_at, ?) WHERE number = ?",
        (lease, now, task.number),
    )
    sealed = c.execute("SELECT prompt FROM bodies WHERE number = ?", (task.number,)).fetchone()["prompt"]
    return Taken(task=task, prompt=sealed)
