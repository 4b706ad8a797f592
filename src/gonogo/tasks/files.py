"""Files of clients: the rows. Their contents are in the vault. Inside transactions of `Database`."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from gonogo.tasks.batches import UNFINISHED

PURPOSES = ("batch", "batch_output")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One whole file. `name` is sealed, for it is a client's words. `created_at` in Unix seconds."""

    file_id: str
    owner: str
    name: bytes = field(repr=False)
    purpose: str
    bytes: int
    created_at: float


def add(c: sqlite3.Connection, new: File) -> None:
    c.execute(
        "INSERT INTO files (file_id, owner, name, purpose, bytes, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (new.file_id, new.owner, new.name, new.purpose, new.bytes, new.created_at),
    )


def file(c: sqlite3.Connection, file_id: str, owner: str | None = None) -> File | None:
    """The file; None when there is none, or when it is another owner's."""
    row = c.execute("SELECT * FROM files WHERE file_id = ?", (file_id,)).fetchone()
    return None if row is None or owner not in (None, row["owner"]) else File(**row)


def page(
    c: sqlite3.Connection,
    owner: str,
    *,
    after: File | None,
    limit: int,
    purpose: str | None,
    oldest_first: bool = False,
) -> tuple[File, ...]:
    """An owner's files, newest first or oldest first."""
    further, order, end = (">", "ASC", float("-inf")) if oldest_first else ("<", "DESC", float("inf"))
    since = (end, "") if after is None else (after.created_at, after.file_id)
    rows = c.execute(
        f"SELECT * FROM files WHERE owner = ? AND (created_at, file_id) {further} (?, ?) AND (? IS NULL OR purpose = ?)"
        f" ORDER BY created_at {order}, file_id {order} LIMIT ?",
        (owner, *since, purpose, purpose, limit),
    )
    return tuple(File(**row) for row in rows)


def remove(c: sqlite3.Connection, file_id: str) -> None:
    c.execute("DELETE FROM files WHERE file_id = ?", (file_id,))


def in_use(c: sqlite3.Connection, file_id: str) -> bool:
    """Whether a batch of it is not finished: its bytes count for as long (`bounds`)."""
    states = ", ".join(repr(state) for state in UNFINISHED)
    found = c.execute(f"SELECT 1 FROM batches WHERE input_file = ? AND state IN ({states}) LIMIT 1", (file_id,))
    return found.fetchone() is not None


def known(c: sqlite3.Connection) -> frozenset[str]:
    """The id of every file."""
    return frozenset(row["file_id"] for row in c.execute("SELECT file_id FROM files"))
