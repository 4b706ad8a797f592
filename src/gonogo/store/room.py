"""Is there room to write at all? Asked by writing, because a quota or a reserve is in no number of free bytes."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from gonogo.store.explained import free_bytes
from gonogo.store.faults import StoreFull

BEGIN_BYTES = 512 * 1024
"""What a new store and its first changes take: its tables and their log had 0.3 MiB when a spec was asked for."""
GO_ON_BYTES = 64 * 1024
"""What a change or two take."""


def require_room(database: Path, need_bytes: int) -> None:
    """Raises `StoreFull` where so much cannot be written beside the database. What else is wrong there is not told."""
    try:
        with tempfile.TemporaryFile(dir=database.parent, buffering=0) as file:
            file.write(os.urandom(need_bytes))  # what no file system stores in fewer bytes
            os.fsync(file.fileno())
            wrote = os.fstat(file.fileno()).st_size
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return
        wrote = 0
    if wrote < need_bytes:
        raise StoreFull(database, free_bytes(database))
