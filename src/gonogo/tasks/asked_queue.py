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

EVERY_S = 1.0
_SPECS_SQL = (
    "SELECT r.spec FROM services s JOIN revisions r ON r.service = s.name AND r.number = s.desired"
    " WHERE s.removed = 0 ORDER BY s.name"
)


def asked_queue(store_file: Path) -> Queue:
    """The section of the first service that has one. Without a service, or a store, it is the default."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(store_file))}?mode=ro", uri=True, timeout=1.0)) as c:
            sections = [json.loads(spec).get("queue") for (spec,) in c.execute(_SPECS_SQL)]
    except sqlite3.Error:
        return Queue()
    named = [one for one in sections if one is not None]
    try:
        return Queue.model_validate_json(json.dumps(named[0])) if named else Queue()
    except ValidationError:
        return Queue()  # of a newer gonogo


class AskedQueue:
    """The same for who asks often: at most a second old. For several threads."""

    def __init__(self, store_file: Path) -> None:
        self._file = store_file
        self._seen: tuple[float, Queue] | None = None

    def now(self) -> Queue:
        seen = self._seen
        if seen is None or time.monotonic() - seen[0] > EVERY_S:
            self._seen = seen = (time.monotonic(), asked_queue(self._file))
        return seen[1]
