"""The store of a deployment that there is, for verbs that only read and work without control."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator

from gonogo.cli.refusal import WORLD_DID_NOT_COMPLY, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.store.store import Store


@contextmanager
def existing_store(session: Session) -> Iterator[Store]:
    """Raises `Refusal` ControlNotRunning where nothing was ever deployed, and `StoreError`s."""
    from gonogo.store import open_store

    if not session.paths.database.exists():
        raise Refusal("ControlNotRunning", WORLD_DID_NOT_COMPLY, {"state_dir": str(session.paths.root)})
    store = open_store(session.paths.database, clock=time.time)
    try:
        yield store
    finally:
        store.close()
