"""The read-only view of a policy server: the standard library's sqlite3, one connection, no writes ever.

It follows the file by name: when another file is put in its place (a restored copy), the next look reads that one.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from gonogo.store.faults import StoreFuture, StoreUnreadable
from gonogo.store.migrations import SCHEMA_VERSION
from gonogo.store.policy_view import KEYS_SQL, REVISIONS_SQL, SERVING_SQL, VERSION_SQL, PolicyView, policy_view

_BUSY_TIMEOUT_S = 1.0


class Reader:
    """One reader, for one thread at a time. After an error the next call tries anew."""

    def __init__(self, path: Path) -> None:
        """Raises `StoreUnreadable` or `StoreFuture` when it cannot read now."""
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._data_version: int | None = None
        self._policy_version: int | None = None
        try:
            connection = self._connected()
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error
        if version > SCHEMA_VERSION:
            self.close()
            raise StoreFuture(path, version, SCHEMA_VERSION)

    def changed(self) -> bool:
        """Whether keys or serving revisions changed since the last `policy_view`; microseconds when nothing did.

        Raises `StoreUnreadable` when that cannot be known.
        """
        try:
            connection = self._connected()
            data_version = connection.execute("PRAGMA data_version").fetchone()[0]
            if data_version == self._data_version and self._policy_version is not None:
                return False
            policy_version = connection.execute(VERSION_SQL).fetchone()[0]
        except (sqlite3.Error, OSError, TypeError) as error:
            raise self._failed(error) from error
        if policy_version != self._policy_version:
            return True
        self._data_version = data_version  # somebody wrote something else
        return False

    def policy_view(self) -> PolicyView:
        """All keys, and the revisions that they may use, as of one moment. Raises `StoreUnreadable`."""
        try:
            connection = self._connected()
            # Before the look, so that a change during it is seen as a change after it.
            data_version = connection.execute("PRAGMA data_version").fetchone()[0]
            connection.execute("BEGIN")
            try:
                version = connection.execute(VERSION_SQL).fetchone()[0]
                rows = (connection.execute(sql) for sql in (KEYS_SQL, SERVING_SQL, REVISIONS_SQL))
                view = policy_view(version, *rows)
            finally:
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError, TypeError, ValueError) as error:
            raise self._failed(error) from error
        self._data_version, self._policy_version = data_version, version
        return view

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._file = self._data_version = self._policy_version = None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _connected(self) -> sqlite3.Connection:
        seen = os.stat(self.path)
        file = (seen.st_dev, seen.st_ino)
        if self._connection is not None and file == self._file:
            return self._connection
        self.close()
        self._connection = sqlite3.connect(
            f"file:{quote(str(self.path.absolute()))}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=_BUSY_TIMEOUT_S,
            check_same_thread=False,
        )
        self._file = file
        return self._connection

    def _failed(self, error: Exception) -> StoreUnreadable:
        self.close()
        return StoreUnreadable(self.path, str(error))
