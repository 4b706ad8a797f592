"""Tables, named queries and append-only events: desired state, keys, findings, the lease, and the audit log.

`open_store` gives control and the CLI everything; `open_reader` gives a policy server its read-only view, and imports
no SQL library beyond the standard one. Nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from gonogo.store.reader import Reader
    from gonogo.store.store import Store


def open_store(url_or_path: str | Path, *, clock: Callable[[], float]) -> Store:
    """Open the store, made and migrated when needed. `clock` gives Unix seconds.

    A path, or `sqlite:///path`. The file gets mode 0600, its directory 0700 when it is made here.
    Raises `StoreUnreadable`, `StoreFuture`, `StoreFull`, `StoreBusy`; ValueError for another kind of URL.
    """
    from gonogo.store.sqlite import SqliteBackend
    from gonogo.store.store import Store

    return Store(SqliteBackend.open(_sqlite_path(str(url_or_path))), clock)


def open_reader(path: str | Path) -> Reader:
    """The read-only view for policy servers. Raises `StoreUnreadable`, `StoreFuture`."""
    from gonogo.store.reader import Reader

    return Reader(Path(path))


def _sqlite_path(url_or_path: str) -> Path:
    scheme, separator, rest = url_or_path.partition("://")
    if not separator:
        return Path(url_or_path).absolute()
    if scheme != "sqlite" or not rest.startswith("/") or len(rest) < 2:
        raise ValueError(f"the store is a path or sqlite:///path, not {scheme}://…")
    return Path(rest[1:]).absolute()
