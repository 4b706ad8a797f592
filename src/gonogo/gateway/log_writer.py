"""Writes one log of the gateway, a JSON object a line, so that `access_log` can read and rotate it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Mapping


class LogWriter:
    """Appends lines to `path`, which it opens anew when it was renamed away. For one thread of one process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._inode: int | None = None
        self._half = False

    def write(self, record: Mapping[str, object]) -> None:
        """Append one line, in one call of the system. Raises OSError when the disk takes it not."""
        descriptor = self._opened()
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
        line = b"\n" + line if self._half else line  # what a full disk or a kill cut off ends here
        self._half = True
        self._half = os.write(descriptor, line) < len(line)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = self._inode = None

    def _opened(self) -> int:
        try:
            same = os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            same = False
        if self._descriptor is not None and same:
            return self._descriptor
        self.close()
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        seen = os.fstat(self._descriptor)
        self._inode = seen.st_ino
        self._half = seen.st_size > 0 and os.pread(self._descriptor, 1, seen.st_size - 1) != b"\n"
        return self._descriptor
