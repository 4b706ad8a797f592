"""What the deployment's specs say of the queue, read from the store as policy servers read theirs: never written."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from pydantic import ValidationError

from gonogo.spec.queue import Queue
from gonogo.store.faults import StoreUnreadable

EVERY_S = 1.0
_SPECS_SQL = (
    "SELECT r.spec FROM services s JOIN revisions r ON r.service = s.name AND r.number = s.desired"
    " WHERE s.removed = 0 ORDER BY s.name"
)


def asked_queue(store_file: Path) -> Queue:
    """The section of the first service that has one; without a service, or a store, the default.

    Raises `StoreUnreadable`: a store that cannot be read now is no reason to hang the bell elsewhere.
    """
    if not store_file.exists():
        return Queue()
    try:
        with closing(sqlite3.connect(f"file:{quote(str(store_file))}?mode=ro", uri=True, timeout=1.0)) as c:
            sections = [json.loads(spec).get("queue") for (spec,) in c.execute(_SPECS_SQL)]
    except sqlite3.Error as error:
        raise StoreUnreadable(store_file, str(error)) from error
    named = [one for one in sections if one is not None]
    try:
        return Queue.model_validate_json(json.dumps(named[0])) if named else Queue()
    except ValidationError:
        return Queue()  # of a newer gonogo


class AskedQueue:
    """The same for who asks often: at most a second old, or as it was when the store could be read. For threads."""

    def __init__(self, store_file: Path) -> None:
        self._file = store_file
        self._seen: tuple[float, Queue] | None = None

    def now(self) -> Queue:
        """Raises `StoreUnreadable` where it could never be read."""
        seen = self._seen
        if seen is not None and time.monotonic() - seen[0] <= EVERY_S:
            return seen[1]
        try:
            found = asked_queue(self._file)
        except StoreUnreadable:
            if seen is None:
                raise
            found = seen[1]
        self._seen = (time.monotonic(), found)
        return found
