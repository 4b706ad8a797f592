"""The ledger's file: SQLite of its own, in WAL mode; opened, migrated, read, written, and written in groups.

Not in control's store, whose write lock each change of the deployment needs (docs/decisions/0010). Errors come out as
the store's (`gonogo.store.faults`).
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable, Iterator, Sequence, TypeVar

from gonogo.store.explained import BUSY_TIMEOUT_S, explained
from gonogo.store.faults import StoreFuture, StoreUnreadable

Answer = TypeVar("Answer")
Write = Callable[[sqlite3.Connection], Answer]

NAME = "tasks.db"
APPLICATION_ID = 0x676E6771
"""`gngq`."""
MOST_IN_GROUP = 512
_WAL_LIMIT_BYTES = 64 * 2**20

_VERSION_1: Sequence[str] = (
    "CREATE TABLE leases (number INTEGER PRIMARY KEY AUTOINCREMENT, worker TEXT NOT NULL, pid INTEGER NOT NULL,"
    " started TEXT NOT NULL, boot TEXT NOT NULL, until REAL NOT NULL)",
    "CREATE TABLE tasks (number INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL UNIQUE,"
    " owner TEXT NOT NULL, rank INTEGER NOT NULL, idempotency_key TEXT, batch_id TEXT, line INTEGER, mark BLOB,"
    " url TEXT NOT NULL, model TEXT, tokens INTEGER NOT NULL, state TEXT NOT NULL,"
    " attempts INTEGER NOT NULL DEFAULT 0, losses INTEGER NOT NULL DEFAULT 0, lease INTEGER,"
    " not_before REAL NOT NULL DEFAULT 0, created_at REAL NOT NULL, expires_at REAL NOT NULL, started_at REAL,"
    " finished_at REAL, status INTEGER, reason TEXT, message TEXT)",
    "CREATE UNIQUE INDEX tasks_once ON tasks (owner, idempotency_key) WHERE idempotency_key IS NOT NULL",
    "CREATE UNIQUE INDEX tasks_marks ON tasks (batch_id, mark) WHERE mark IS NOT NULL",
    "CREATE INDEX tasks_queued ON tasks (rank, owner, number) WHERE state = 'queued'",
    "CREATE INDEX tasks_held ON tasks (lease) WHERE state = 'leased'",
    "CREATE INDEX tasks_open_until ON tasks (expires_at) WHERE state IN ('queued', 'leased')",
    "CREATE INDEX tasks_of_batch ON tasks (batch_id, state, number) WHERE batch_id IS NOT NULL",
    "CREATE INDEX tasks_of_owner ON tasks (owner, number) WHERE batch_id IS NULL",
    "CREATE INDEX tasks_by_state ON tasks (state)",
    "CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL",
    "CREATE INDEX tasks_dead ON tasks (number) WHERE state = 'dead'",
    "CREATE TABLE bodies (number INTEGER PRIMARY KEY, prompt BLOB NOT NULL, result BLOB)",
    "CREATE TABLE files (file_id TEXT PRIMARY KEY, owner TEXT NOT NULL, name BLOB NOT NULL, purpose TEXT NOT NULL,"
    " bytes INTEGER NOT NULL, created_at REAL NOT NULL)",
    "CREATE INDEX files_of_owner ON files (owner, created_at)",
    "CREATE TABLE batches (batch_id TEXT PRIMARY KEY, owner TEXT NOT NULL, endpoint TEXT NOT NULL,"
    " input_file TEXT NOT NULL, window TEXT NOT NULL, metadata BLOB, state TEXT NOT NULL,"
    " lines INTEGER NOT NULL DEFAULT 0, output_file TEXT, error_file TEXT, error_code TEXT, error_message TEXT,"
    " total INTEGER, completed INTEGER, failed INTEGER, created_at REAL NOT NULL, expires_at REAL NOT NULL,"
    " in_progress_at REAL, finalizing_at REAL, finished_at REAL, cancelling_at REAL)",
    "CREATE INDEX batches_of_owner ON batches (owner, created_at)",
    "CREATE INDEX batches_open ON batches (state)"
    " WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling')",
    "CREATE TABLE delegates (owner TEXT PRIMARY KEY, key BLOB NOT NULL, made_at REAL NOT NULL,"
    " expires_at REAL NOT NULL)",
    "CREATE TABLE switches (name TEXT PRIMARY KEY, on_since REAL NOT NULL)",
)

_VERSION_2: Sequence[str] = (
    "CREATE TABLE runs (number INTEGER PRIMARY KEY, program TEXT NOT NULL, device TEXT NOT NULL,"
    " max_steps INTEGER NOT NULL, time_limit_s REAL NOT NULL, on_worker_death TEXT NOT NULL,"
    " attempt INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0, key_id TEXT)",
    "CREATE TABLE steps (number INTEGER NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL, at REAL NOT NULL,"
    " body BLOB NOT NULL, PRIMARY KEY (number, attempt, step)) WITHOUT ROWID",
    # A row is there for as long as a process of a run may touch the device: the primary key is what keeps runs apart.
    "CREATE TABLE devices (device TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, lease INTEGER NOT NULL)",
)

MIGRATIONS: Sequence[Sequence[str]] = (_VERSION_1, _VERSION_2)
"""`MIGRATIONS[n]` leads from schema version n to n + 1. A list that was released is never edited."""


class Database:
    """One SQLite file. Safe to use from several threads and processes at once. `cache_mib` for each connection."""

    def __init__(self, path: Path, cache_mib: int = 2) -> None:
        self.path, self._cache_mib = path, cache_mib
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open `path`, made (0600, its directory 0700) and migrated when needed. Raises `StoreError`s."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        made = cls(path)
        with made.writing() as connection:
            made._migrate(connection)
        return made

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent look."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its start; when the block raises, nothing of it."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def close(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with _reported(self.path):
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = self._connect()
            try:
                connection.execute(begin)
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            finally:
                self._idle.put(connection)

    def _connect(self) -> sqlite3.Connection:
        made = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        made.row_factory = sqlite3.Row
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = FULL")  # an acknowledged task survives a power cut
        made.execute(f"PRAGMA cache_size = {-1024 * self._cache_mib}")
        made.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        return made

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        application = int(connection.execute("PRAGMA application_id").fetchone()[0])
        if version and application != APPLICATION_ID:
            raise StoreUnreadable(self.path, "it is a database of another program")
        if version > len(MIGRATIONS):
            raise StoreFuture(self.path, version, len(MIGRATIONS))
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < len(MIGRATIONS):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Whatever SQLite says inside comes out as a `StoreError`; a broken rule of the schema comes out as it is."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        translated = explained(path, str(error))
        if translated is None:
            raise
        raise translated from error


class GroupWriter:
    """Writes what many threads ask for in few transactions: each waits for one disk flush, together with others.

    A write that raises is undone alone; its caller gets the error. `close` lets what was asked for be written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: queue.Queue[tuple[Write[object], Future[object]] | None] = queue.Queue(maxsize=4 * MOST_IN_GROUP)
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def write(self, act: Write[Answer]) -> Future[Answer]:
        """Do this inside a transaction soon. The future is done after the commit; it carries the act's own error."""
        future: Future[Answer] = Future()
        self._asked.put((act, future))  # type: ignore[arg-type]
        return future

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join(timeout=30.0)

    def _run(self) -> None:
        while (first := self._asked.get()) is not None:
            group = [first]
            with suppress(queue.Empty):
                while len(group) < MOST_IN_GROUP and (more := self._asked.get_nowait()) is not None:
                    group.append(more)
                if len(group) < MOST_IN_GROUP:
                    self._asked.put(None)  # the end was taken out with the group: put it back
            self._commit(group)

    def _commit(self, group: Sequence[tuple[Write[object], Future[object]]]) -> None:
        answers: list[tuple[Future[object], object, Exception | None]] = []
        try:
            with self._database.writing() as connection:
                for act, future in group:
                    answers.append((future, *_alone(connection, act)))
        except Exception as error:  # noqa: BLE001 (the boundary: whoever waits must hear of it, whatever it is)
            for _, future in group:
                future.set_exception(error)
            return
        for future, answer, error_of_one in answers:
            if error_of_one is None:
                future.set_result(answer)
            else:
                future.set_exception(error_of_one)


def _alone(connection: sqlite3.Connection, act: Write[object]) -> tuple[object, Exception | None]:
    """Do one write so that its failure undoes itself only."""
    connection.execute("SAVEPOINT one")
    try:
        answer = act(connection)
    except sqlite3.Error:
        raise  # a full disk or a lost file concerns the whole group
    except Exception as error:  # noqa: BLE001 (it is the caller's: handed over with the future)
        connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")
        return None, error
    connection.execute("RELEASE one")
    return answer, None
