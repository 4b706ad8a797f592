"""Reads and rotates the gateway's logs (Envoy's access log, the relays'): no line lost, none read twice.

A log is rotated by renaming it to `access.00000001.log`, `…2.log` and so on; whoever writes it goes on in the renamed
file until it opens the name anew (Envoy: `POST /reopen_logs`; the relay sees that the name is gone). So a renamed file
is complete as soon as there is a newer one, and the reader finishes it first.

What is lost all the same: what Envoy had not written yet when it was killed (`bootstrap.FLUSH_MS`), and files that a
reader had not read when more than `KEPT_FILES` newer ones were there (`LogTail.gaps` counts those).
Not here: what a line means (`facts.request_record`).
"""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gonogo.facts.request_record import LogPosition

ROTATE_BYTES = 8 * 1024 * 1024
KEPT_FILES = 4
"""Renamed files that are kept for readers that are behind, and for people."""
READ_BYTES = 1024 * 1024
"""How much is read at once, and so the longest line; what is longer is given back in pieces, which are no lines."""
_MARK_BYTES = 256


class LogTail:
    """Reads one log from a position on. `position` None: from the oldest file that there is.

    Keep `position` in the same transaction as what was made of the lines; make a new tail of it when that failed.
    """

    def __init__(self, path: Path, position: LogPosition | None = None) -> None:
        self._path = path
        self._position = position
        self._open: _Open | None = None
        self.gaps = 0
        """How often the file of the position was not there any more: lines may be lost."""
        self.more = False
        """Whether the last `read` left something: the same file went on, or there is a newer one."""

    @classmethod
    def at_end(cls, path: Path) -> LogTail:
        """A tail that gives only what is written from now on."""
        tail = cls(path)
        files = _files(path)
        if files:
            with files[-1].path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                tail._position = _position(file, _line_start(file, file.tell()))
        return tail

    @property
    def position(self) -> LogPosition | None:
        """Where the next `read` begins; None while there was no file yet."""
        return self._position

    def read(self, limit_bytes: int = READ_BYTES) -> list[bytes]:
        """The next complete lines, without their newlines, at most `limit_bytes` of them; empty when there are none.

        Raises OSError when a file that is there cannot be read.
        """
        try:
            return self._read(limit_bytes)
        except FileNotFoundError:  # renamed between a look and the opening: the next call sees it under its new name
            return []

    def close(self) -> None:
        """Close the file; `read` opens it again."""
        if self._open is not None:
            self._open.file.close()
            self._open = None

    def _read(self, limit_bytes: int) -> list[bytes]:
        while True:
            opened = self._opened()
            self.more = False
            if opened is None:
                return []
            # Asked before reading: once there is a newer file, nobody writes into this one any more.
            newer = self._newer(opened)
            lines = self._read_lines(opened, limit_bytes, complete=newer is not None)
            if lines:
                return lines
            if newer is None:
                return []
            self._enter(newer, 0)

    def _read_lines(self, opened: _Open, limit_bytes: int, *, complete: bool) -> list[bytes]:
        assert self._position is not None
        opened.file.seek(self._position.offset)
        content = opened.file.read(limit_bytes)
        self.more = complete or len(content) == limit_bytes
        end = content.rfind(b"\n") + 1
        if end == 0 and (len(content) == limit_bytes or complete):
            end = len(content)  # too long for a line, or cut off by the writer's death: given back as it is
        if end == 0:
            return []
        self._position = _position(opened.file, self._position.offset + end)
        return content[:end].removesuffix(b"\n").split(b"\n")

    def _opened(self) -> _Open | None:
        if self._open is None:
            self._find()
        elif self._position is not None and os.fstat(self._open.file.fileno()).st_size < self._position.offset:
            self.gaps += 1  # somebody emptied it
            self._enter(self._open.found, 0)
        return self._open

    def _find(self) -> None:
        """Open the file of the position, or the oldest one."""
        files = _files(self._path)
        position = self._position
        if not files:
            return
        if position is None:
            self._enter(files[0], 0)
            return
        # By its inode, and where that names nothing (the directory was copied) by what stands before the offset.
        for found in sorted(files, key=lambda one: one.inode != position.inode):
            with _opened(found) as file:
                same = _position(file, position.offset).mark == position.mark
            if same:
                self._enter(found, position.offset)
                return
        self.gaps += 1
        self._enter(files[0], 0)

    def _newer(self, opened: _Open) -> _Found | None:
        """The file that comes after this one; None while this is the newest."""
        live = _found(self._path)
        if live is not None and live.inode == opened.found.inode:
            return None  # this one bears the name itself: asked a hundred times a second, so that nothing is listed
        files = _files(self._path)
        for index, found in enumerate(files):
            if found.inode == opened.found.inode:
                return files[index + 1] if index + 1 < len(files) else None
        if not files:
            return None
        self.gaps += 1  # ours was removed since, and perhaps others that came after it
        return files[0]

    def _enter(self, found: _Found, offset: int) -> None:
        self.close()
        file = _opened(found)
        self._open = _Open(found=found, file=file)
        self._position = _position(file, offset)


def rotate_log(path: Path, limit_bytes: int = ROTATE_BYTES) -> bool:
    """Rename the log away once it passes the limit, and drop renamed ones that are too many.

    True: there is no file of that name now, and its writer must be told to open it anew. Done twice is done once.
    """
    older = _renamed(path)
    try:
        if path.stat().st_size <= limit_bytes:
            return False
    except FileNotFoundError:
        return bool(older)
    number = 1 + (_number(older[-1], path) if older else 0)
    path.rename(path.with_name(f"{path.stem}.{number:08d}{path.suffix}"))
    for file in older[: len(older) + 1 - KEPT_FILES] if len(older) >= KEPT_FILES else ():
        file.unlink(missing_ok=True)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    path: Path
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    found: _Found
    file: BinaryIO


def _files(path: Path) -> list[_Found]:
    """Every file of this log, the oldest first.

    The name itself is looked at before the renamed ones: whatever is renamed in between is then seen under its new
    name, and a file newer than that is seen the next time.
    """
    live = _found(path)
    found = [one for one in (_found(file) for file in _renamed(path)) if one is not None]
    if live is not None and all(one.inode != live.inode for one in found):
        found.append(live)
    return found


def _found(path: Path) -> _Found | None:
    try:
        return _Found(path=path, inode=path.stat().st_ino)
    except FileNotFoundError:
        return None


def _opened(found: _Found) -> BinaryIO:
    """Raises FileNotFoundError when another file has that name by now."""
    file = found.path.open("rb")
    if os.fstat(file.fileno()).st_ino != found.inode:
        file.close()
        raise FileNotFoundError(found.path)
    return file


def _renamed(path: Path) -> list[Path]:
    pattern = re.compile(rf"{re.escape(path.stem)}\.\d{{8}}{re.escape(path.suffix)}")
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    return [path.with_name(name) for name in sorted(names) if pattern.fullmatch(name)]


def _number(renamed: Path, path: Path) -> int:
    return int(renamed.name[len(path.stem) + 1 :].split(".", 1)[0])


def _position(file: BinaryIO, offset: int) -> LogPosition:
    size = min(offset, _MARK_BYTES)
    file.seek(offset - size)
    mark = zlib.crc32(offset.to_bytes(8, "big") + file.read(size))
    return LogPosition(inode=os.fstat(file.fileno()).st_ino, offset=offset, mark=mark)


def _line_start(file: BinaryIO, end: int) -> int:
    """The first byte of the line that `end` is in."""
    begin = max(0, end - READ_BYTES)
    file.seek(begin)
    return begin + file.read(end - begin).rfind(b"\n") + 1
