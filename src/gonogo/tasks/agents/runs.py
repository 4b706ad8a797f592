"""The ledger's questions and changes about runs of agents: who has which device, their steps, the lost ones.

Each takes a connection inside a transaction of `Database`. A device belongs to a run from the moment it is taken until
its processes are certainly gone, which may be later than the end of its task: the primary key of `devices` keeps two
runs from one device, whoever takes them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Iterable, Mapping, Sequence

from gonogo.tasks.agents.nouns import RANK, Lost, NewRun, OnWorkerDeath, Run, Step
from gonogo.tasks.agents.verdict import Verdict, after_loss

WAITING = (
    "SELECT t.number, r.device FROM tasks t JOIN runs r ON r.number = t.number"
    " WHERE t.state = 'queued' AND t.rank = ? AND t.not_before <= ?"
    " AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.device = r.device)"
)
"""Runs that could begin: rank and time are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenRun:
    """A run that a worker holds, with its device; `prompt` is sealed."""

    task_id: str
    owner: str
    losses: int
    run: Run
    prompt: bytes = field(repr=False)


def add(c: sqlite3.Connection, number: int, new: NewRun) -> None:
    """Beside the task of this number, in the same transaction."""
    c.execute(
        "INSERT INTO runs (number, program, device, max_steps, time_limit_s, on_worker_death)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (number, new.program, new.device, new.max_steps, new.time_limit_s, new.on_worker_death.value),
    )


def found(c: sqlite3.Connection, numbers: Iterable[int]) -> Mapping[int, Run]:
    """The runs among these tasks, by number."""
    rows = (c.execute("SELECT * FROM runs WHERE number = ?", (number,)).fetchone() for number in numbers)
    return {row["number"]: _run(row) for row in rows if row is not None}


def wanting(c: sqlite3.Connection, now: float) -> bool:
    """Whether a run waits that could begin now: its device is free."""
    return c.execute(f"{WAITING} LIMIT 1", (RANK, now)).fetchone() is not None


def take(c: sqlite3.Connection, lease: int, most: int, now: float) -> tuple[TakenRun, ...]:
    """At most `most` waiting runs whose devices are free, the oldest of each device, with those devices."""
    if c.execute("SELECT 1 FROM leases WHERE number = ?", (lease,)).fetchone() is None:
        return ()
    taken: dict[str, int] = {}
    for row in c.execute(f"{WAITING} ORDER BY t.number", (RANK, now)).fetchall():
        if len(taken) < most and row["device"] not in taken:
            taken[row["device"]] = row["number"]
    return tuple(_taken(c, lease, device, number, now) for device, number in taken.items())


def still_held(c: sqlite3.Connection, lease: int) -> frozenset[int]:
    """The numbers of the runs that this lease holds; none where it was ended by others."""
    rows = c.execute(
        "SELECT number FROM tasks WHERE state = 'leased' AND lease = ?"
        " AND EXISTS (SELECT 1 FROM leases WHERE number = ?)",
        (lease, lease),
    )
    return frozenset(row["number"] for row in rows)


def set_key(c: sqlite3.Connection, number: int, key_id: str) -> None:
    """Under which key it asks. Written before the key is made, so that whoever cleans up knows it."""
    c.execute("UPDATE runs SET key_id = ? WHERE number = ?", (key_id, number))


def add_step(c: sqlite3.Connection, lease: int, number: int, step: Step) -> bool:
    """Keep a step, if the lease still holds the run; whether it was kept."""
    kept = c.execute(
        "INSERT INTO steps (number, attempt, step, at, body) SELECT ?, ?, ?, ?, ? WHERE EXISTS"
        " (SELECT 1 FROM tasks WHERE number = ? AND state = 'leased' AND lease = ?)",
        (number, step.attempt, step.step, step.at, step.body, number, lease),
    ).rowcount
    if kept:
        c.execute("UPDATE runs SET steps = ? WHERE number = ?", (step.step, number))
    return bool(kept)


def steps(c: sqlite3.Connection, number: int, after: tuple[int, int], most: int) -> tuple[Step, ...]:
    """Steps after (attempt, step), in order."""
    rows = c.execute(
        "SELECT attempt, step, at, body FROM steps WHERE number = ? AND (attempt, step) > (?, ?)"
        " ORDER BY attempt, step LIMIT ?",
        (number, *after, most),
    )
    return tuple(Step(attempt=row["attempt"], step=row["step"], at=row["at"], body=row["body"]) for row in rows)


def free(c: sqlite3.Connection, number: int, lease: int) -> None:
    """The run's processes are gone: its device is the next one's."""
    c.execute("DELETE FROM devices WHERE number = ? AND lease = ?", (number, lease))


def not_begun(c: sqlite3.Connection, number: int) -> None:
    """It was taken and could not begin: that was no attempt."""
    c.execute("UPDATE runs SET attempt = attempt - 1 WHERE number = ?", (number,))


def lost(c: sqlite3.Connection) -> tuple[Lost, ...]:
    """Runs with a device whose worker's lease has ended."""
    rows = c.execute(
        "SELECT d.number, d.device, d.lease, t.task_id, r.key_id,"
        " t.state = 'leased' AND t.lease = d.lease AS held"
        " FROM devices d JOIN tasks t ON t.number = d.number JOIN runs r ON r.number = d.number"
        " WHERE d.lease NOT IN (SELECT number FROM leases) ORDER BY d.number"
    )
    return tuple(Lost(**{**row, "held": bool(row["held"])}) for row in map(dict, rows))


def settle(c: sqlite3.Connection, one: Lost, now: float) -> Verdict | None:
    """What its owner declared becomes of it, once its processes are gone; None where it had ended already."""
    free(c, one.number, one.lease)
    row = c.execute(
        "SELECT t.losses, r.steps, r.on_worker_death FROM tasks t JOIN runs r ON r.number = t.number"
        " WHERE t.number = ? AND t.state = 'leased' AND t.lease = ?",
        (one.number, one.lease),
    ).fetchone()
    if row is None:
        return None
    verdict = after_loss(OnWorkerDeath(row["on_worker_death"]), row["steps"], row["losses"] + 1)
    waits = verdict.state.value == "queued"
    c.execute(
        "UPDATE tasks SET state = ?, reason = ?, message = ?, losses = losses + 1, lease = NULL, finished_at = ?"
        " WHERE number = ?",
        (verdict.state.value, verdict.reason, verdict.message, None if waits else now, one.number),
    )
    return verdict


def forget(c: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """These runs and their steps are no more."""
    for table in ("steps", "runs"):
        c.executemany(f"DELETE FROM {table} WHERE number = ?", [(number,) for number in numbers])


def _taken(c: sqlite3.Connection, lease: int, device: str, number: int, now: float) -> TakenRun:
    c.execute("INSERT INTO devices (device, number, lease) VALUES (?, ?, ?)", (device, number, lease))
    c.execute(
        "UPDATE tasks SET state = 'leased', lease = ?, started_at = coalesce(started_at, ?) WHERE number = ?",
        (lease, now, number),
    )
    c.execute("UPDATE runs SET attempt = attempt + 1, steps = 0, key_id = NULL WHERE number = ?", (number,))
    row = c.execute(
        "SELECT t.task_id, t.owner, t.losses, b.prompt FROM tasks t JOIN bodies b ON b.number = t.number"
        " WHERE t.number = ?",
        (number,),
    ).fetchone()
    return TakenRun(**dict(row), run=found(c, [number])[number])


def _run(row: sqlite3.Row) -> Run:
    return Run(**{**dict(row), "on_worker_death": OnWorkerDeath(row["on_worker_death"])})
