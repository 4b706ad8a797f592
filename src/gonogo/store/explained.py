"""What SQLite's words mean, as an error that a user can act on. Imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

from gonogo.store.faults import StoreBusy, StoreError, StoreFull, StoreNotWritable, StoreUnreadable

BUSY_TIMEOUT_S = 5.0
_SCARCE_BYTES = 256 * 1024
"""With less free than this an input/output error is taken for a full disk: SQLite reports some of them so."""

_DAMAGED = ("not a database", "malformed", "unable to open", "disk I/O error", "no such table")
_READ_ONLY = ("readonly", "read-only", "access permission denied")


def explained(path: Path, words: str) -> StoreError | None:
    """The `StoreError` for what SQLite said; None when it is a mistake of ours.

    By its words, because Python 3.10 does not pass on SQLite's error codes.
    """
    if "disk is full" in words:
        return StoreFull(path, free_bytes(path))
    if "disk I/O error" in words and free_bytes(path) < _SCARCE_BYTES:
        return StoreFull(path, free_bytes(path))
    if "locked" in words:
        return StoreBusy(path, BUSY_TIMEOUT_S)
    if any(sign in words for sign in _READ_ONLY):
        return StoreNotWritable(path, words)
    if any(sign in words for sign in _DAMAGED):
        return StoreUnreadable(path, words)
    return None


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write where `path` lies; 0 when that cannot be asked."""
    try:
        seen = os.statvfs(path.parent)
    except OSError:
        return 0
    return seen.f_bavail * seen.f_frsize
