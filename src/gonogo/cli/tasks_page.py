"""Tasks and batches as `gonogo tasks` shows them: as fields, as a table, as a page for a person."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Iterator, Mapping

if TYPE_CHECKING:
    import sqlite3

    from gonogo.cli.session import Session
    from gonogo.tasks.nouns import Task


def batch_fields(c: sqlite3.Connection, batch: Any) -> dict[str, Any]:
    from gonogo.tasks import ledger
    from gonogo.tasks.nouns import Counts

    counts = Counts() if batch.total is not None else ledger.counts(c, batch.batch_id)
    failed = counts.failed + counts.dead + counts.cancelled
    return {
        "id": batch.batch_id,
        "owner": batch.owner,
        "state": batch.state,
        "endpoint": batch.endpoint,
        "input_file_id": batch.input_file,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "total": counts.total if batch.total is None else batch.total,
        "done": counts.done if batch.completed is None else batch.completed,
        "failed": failed if batch.failed is None else batch.failed,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "finished_at": batch.finished_at,
        "error": batch.error_message,
    }


def batch_line(one: Mapping[str, Any]) -> str:
    """How far a batch is."""
    return f"{one['id']}  {one['state']}  {one['done']}/{one['total']}  ✗ {one['failed']}"


def why_it_waits(c: sqlite3.Connection, batch_id: str) -> dict[str, Any]:
    """What the gateway last said to a line that waits; empty: none was refused."""
    row = c.execute(
        "SELECT reason, message FROM tasks WHERE batch_id = ? AND state = 'queued' AND reason IS NOT NULL"
        " ORDER BY number LIMIT 1",
        (batch_id,),
    ).fetchone()
    return {} if row is None else {"reason": row["reason"], "message": row["message"]}


def readable(shown: Mapping[str, Any]) -> Iterator[str]:
    """A line for each field that has a value; times as UTC, as logs have them."""
    for name, value in shown.items():
        if value is None or name == "steps":
            continue
        at = name.endswith("_at") and isinstance(value, (int, float))
        yield f"{name}: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(value)) if at else value}"


def task_fields(task: Task) -> dict[str, Any]:
    left_out = ("number", "task_id", "state")
    return {
        "id": task.task_id,
        "state": task.state.value,
        **{name: value for name, value in asdict(task).items() if name not in left_out},
    }


def table(session: Session, tasks: tuple[Task, ...], now: float) -> Any:
    """One row each. An id is never cut, however narrow the terminal is: people copy it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column(session.told("tasks.id"), no_wrap=True, min_width=max(len(one.task_id) for one in tasks))
    for name in ("state", "owner", "age", "attempts", "reason"):
        table.add_column(session.told(f"tasks.{name}"), overflow="fold")
    for one in tasks:
        style = {"done": "green", "failed": "red", "dead": "red"}.get(one.state.value, "yellow")
        age = f"{max(0, now - one.created_at):.0f} s"
        shown = (one.task_id, Text(one.state.value, style=style), one.owner, age, str(one.attempts), one.reason or "")
        table.add_row(*shown)
    return table
