"""Where a part of the gateway listens: a unix socket that is there from one moment to the next, for this user alone.

A part binds at `Place.temporary` and then moves it: whoever connects finds either a dead predecessor's socket or the
new one, never none.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

LONGEST_SOCKET_PATH = 107


class SocketRefused(Exception):
    """The place for the socket cannot be used; the text says what was seen and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """`socket` is where clients connect, `temporary` where to bind first."""

    socket: Path
    temporary: Path

    @classmethod
    def find(cls, socket: Path) -> Place:
        """Raises `SocketRefused` when others could reach the socket, or its path is too long."""
        temporary = socket.with_name(f"{socket.name}.{os.getpid()}")
        if len(os.fsencode(temporary)) > LONGEST_SOCKET_PATH:
            raise SocketRefused(
                f"{temporary}: the path has more than {LONGEST_SOCKET_PATH} bytes; use a shorter directory"
            )
        try:
            seen = socket.parent.stat()
        except OSError as error:
            raise SocketRefused(f"{socket.parent}: {error.strerror}; it must be a directory of this user's") from error
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
            raise SocketRefused(
                f"{socket.parent}: others may enter it (mode {stat.S_IMODE(seen.st_mode):o}, user {seen.st_uid}); "
                "whoever reaches the socket can try keys: it must be this user's, with mode 700"
            )
        _sweep(socket)
        return cls(socket, temporary)

    def open(self) -> Open:
        """What was bound at `temporary` is what clients find from now on."""
        mine = _identity(self.temporary)
        self.temporary.replace(self.socket)
        return Open(self.socket, mine)


@dataclass(frozen=True, slots=True)
class Open:
    """A socket that clients find."""

    socket: Path
    _mine: tuple[int, int] | None

    def close(self) -> None:
        """Nobody finds it any more, unless a successor's is there already."""
        if _identity(self.socket) == self._mine:
            self.socket.unlink()


def _sweep(socket: Path) -> None:
    """Remove what predecessors that died between binding and renaming left."""
    for left in socket.parent.glob(f"{socket.name}.*"):
        owner = left.name.rpartition(".")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            left.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino
