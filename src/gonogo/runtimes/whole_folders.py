"""Folders that are there whole or not at all: the lock while one is made, files that appear in one move, sizes.

Not here: which folders there are. That is `environments.py` and `models.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import Callable, Iterator, Sequence

LONGEST_WAIT_S = 3600.0
POLL_S = 0.2


class StillHeld(Exception):
    """Somebody else holds the lock for longer than was to be waited."""


def make_private(folders: Sequence[Path]) -> None:
    """Create these folders, for the owner alone. Raises OSError."""
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextlib.contextmanager
def held(lock: Path, limit_s: float = LONGEST_WAIT_S, waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """Nobody else holds this lock meanwhile. Gives its descriptor, which a child may inherit.

    `waiting` is called again and again while somebody else holds it. Raises StillHeld after `limit_s`, OSError.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for(descriptor, limit_s, waiting)
        yield descriptor
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """What was moved into or out of the folder is on the disk before anybody is told."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_bytes(folder: Path) -> int:
    """What the files below a folder take on the disk, each file once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; nothing there is fine. Raises OSError."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _wait_for(lock: int, limit_s: float, waiting: Callable[[], None] | None) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise StillHeld from None
        if waiting is not None:
            waiting()
        time.sleep(POLL_S)
