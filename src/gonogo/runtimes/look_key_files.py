"""Looks at files with keys of hosted APIs: are they there, who may read them? The key stays in the file."""

from __future__ import annotations

import os
import stat
from typing import Iterable, Mapping

from gonogo.facts.key_file import MOST_BYTES, KeyFileFacts, is_key


def look_at_key_files(paths: Iterable[str]) -> Mapping[str, KeyFileFacts]:
    """By path, as each is now."""
    return {path: _look(path) for path in dict.fromkeys(paths)}


def _look(path: str) -> KeyFileFacts:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            seen = os.fstat(file.fileno())
            regular = stat.S_ISREG(seen.st_mode)
            content = file.read(MOST_BYTES + 1) if regular else b""
    except FileNotFoundError:
        return KeyFileFacts(trouble="key_file_missing", owner_only=None)
    except OSError:
        return KeyFileFacts(trouble="key_file_unreadable", owner_only=None)
    right = regular and len(content) <= MOST_BYTES and is_key(content)
    return KeyFileFacts(
        trouble=None if right else "key_file_no_key",
        owner_only=not seen.st_mode & (stat.S_IRWXG | stat.S_IRWXO),
        stamp=f"{seen.st_ino} {seen.st_mtime_ns}",
    )


def _without_waiting(path: str, flags: int) -> int:
    """A pipe in place of the file would wait for somebody who writes into it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
