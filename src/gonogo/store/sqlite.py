"""SQLite as the store's database: how it is opened, migrated, locked, and how its errors are told.

Everything that another database does otherwise is here or in the triggers of `migrations.py`.

The process must never `open()` and close the database file itself while a connection is open: closing any descriptor
of a file drops all POSIX locks that the process has on it, SQLite's too.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

import sqlalchemy as sa
from sqlalchemy import event as sa_event
from sqlalchemy.exc import DBAPIError

from gonogo.store.explained import BUSY_TIMEOUT_S, explained, free_bytes
from gonogo.store.faults import StoreFull, StoreFuture, StoreNotWritable, StoreUnreadable
from gonogo.store.migrations import MIGRATIONS, SCHEMA_VERSION

_WAL_LIMIT_BYTES = 4 * 2**20

APPLICATION_ID = 0x676E676F
"""`gngo`: SQLite files of ours carry it."""


class SqliteBackend:
    """One SQLite file in WAL mode. Safe to use from several threads; each transaction has its own connection."""

    def __init__(self, path: Path, engine: sa.Engine) -> None:
        self.path = path
        self._engine = engine
        self._writer = engine.execution_options(writes=True)

    @classmethod
    def open(cls, path: Path) -> SqliteBackend:
        """Open `path`, made and migrated when needed. Raises `StoreError`s."""
        _make_private(path)
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_TIMEOUT_S})
        sa_event.listen(engine, "connect", _on_connect)
        sa_event.listen(engine, "begin", _on_begin)
        backend = cls(path, engine)
        try:
            backend._prepare()
        except BaseException:
            backend.close()
            raise
        return backend

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent look: all queries inside see the same moment."""
        with reported(self.path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction that holds the write lock from its start, so that what it read stays true; or nothing."""
        with reported(self.path), self._writer.begin() as connection:
            yield connection

    def made(self) -> AbstractContextManager[None]:
        """Errors of making a file beside the database come out as `StoreError`s."""
        return _made(self.path)

    def close(self) -> None:
        self._engine.dispose()

    def _prepare(self) -> None:
        with reported(self.path):
            self._use_wal()
        with self.reading() as connection:
            version = self._schema_version(connection)
        if version > SCHEMA_VERSION:
            raise StoreFuture(self.path, version, SCHEMA_VERSION)
        if version < SCHEMA_VERSION:
            self._migrate()

    def _migrate(self) -> None:
        with self.writing() as connection:
            version = self._schema_version(connection)  # again, under the lock: another process may have been faster
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {max(version, SCHEMA_VERSION)}")

    def _schema_version(self, connection: sa.Connection) -> int:
        """The version that the file has, 0 when it is new. Raises `StoreUnreadable` for somebody else's database."""
        application = int(connection.exec_driver_sql("PRAGMA application_id").scalar_one())
        tables = int(connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one())
        if application != APPLICATION_ID and (application or tables):
            raise StoreUnreadable(self.path, "it is a database of another program")
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def _use_wal(self) -> None:
        """Switching to WAL fails at once, without the busy timeout, while another process opens the file too."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                with self._engine.connect() as connection:
                    raw = connection.connection.dbapi_connection
                    assert isinstance(raw, sqlite3.Connection)
                    raw.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Whatever the database says inside comes out as a `StoreError` that a user can act on."""
    try:
        yield
    except DBAPIError as error:
        translated = explained(path, str(error.orig))
        if translated is None:
            raise
        raise translated from error
    except sqlite3.Error as error:  # what SQLAlchemy does not wrap: the statements of a new connection
        translated = explained(path, str(error))
        if translated is None:
            raise
        raise translated from error


def _make_private(path: Path) -> None:
    """Make the file before SQLite does, with mode 0600: SQLite gives its side files the same mode."""
    with _made(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


@contextmanager
def _made(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(path, free_bytes(path)) from error
        raise StoreNotWritable(path, error.strerror or str(error)) from error


def _on_connect(raw: Any, _record: Any) -> None:
    raw.isolation_level = None  # transactions begin where `_on_begin` says, not where the driver guesses
    raw.execute("PRAGMA synchronous = FULL")  # an acknowledged change survives a power cut
    raw.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")


def _on_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
