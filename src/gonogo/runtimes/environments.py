"""The environments of engines and agents, below the state directory: which there are, where, and whether each is whole.

An environment counts as there only with its marker, which is written and moved into place last; anything else is
unfinished and is swept away. Not here: making one (`environment_building.py`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from gonogo.runtimes.uv import EnvironmentFault

MARKER = "gonogo-environment.json"
LARGEST_MARKER_BYTES, LARGEST_LOG_BYTES = 65_536, 16_000_000
LONGEST_WAIT_S = 3600.0
POLL_S = 0.2
UNFINISHED = ".building-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One whole environment. `answered`: the version that its engine gave when it was asked.

    `used_at` (Unix seconds): when it was last asked for or in use; the time of its marker's file.
    """

    name: str
    path: Path
    engine: str
    version: str
    answered: str
    python: str
    lock: str
    packages: int
    disk_bytes: int
    made_at: float
    used_at: float = 0.0

    @property
    def python_path(self) -> Path:
        return self.path / "bin" / "python"


@dataclass(frozen=True, slots=True)
class EnvironmentStore:
    """All of them: `root` is `environments` below the state directory."""

    root: Path

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def cache(self) -> Path:
        """Where uv keeps what it downloaded: `UV_CACHE_DIR`, or beside the environments."""
        given = os.environ.get("UV_CACHE_DIR")
        return Path(given) if given else self.root / "cache"

    @property
    def log(self) -> Path:
        return self.root / "uv.log"

    def make(self) -> None:
        """Create the folders, for the owner alone. Raises EnvironmentFault."""
        try:
            for folder in (self.root.parent, self.root, self.locks):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.log.exists() and self.log.stat().st_size > LARGEST_LOG_BYTES:
                self.log.unlink()
        except OSError as error:
            raise fault_of(error, self.root) from None

    def path(self, name: str) -> Path:
        return self.root / name

    def lock_path(self, digest: str) -> Path:
        """Where the lock with this address lies."""
        return self.locks / f"{digest}.lock"

    def keep_lock(self, digest: str, text: str) -> Path:
        """Write a lock under its address; it is there whole or not at all. Raises EnvironmentFault."""
        path = self.lock_path(digest)
        self.make()
        try:
            write_whole(path, text)
        except OSError as error:
            raise fault_of(error, path) from None
        return path

    def find(self, name: str) -> Made | None:
        """One whole environment by its name; None: there is none, it is not whole, or the name leads elsewhere."""
        if name != os.path.basename(name) or name.startswith("."):
            return None
        return _read_marker(self.path(name))

    def all(self) -> tuple[Made, ...]:
        """Every whole environment, by name."""
        try:
            folders = sorted(entry for entry in self.root.iterdir() if not entry.name.startswith("."))
        except OSError:
            return ()
        return tuple(made for folder in folders if (made := _read_marker(folder)) is not None)

    def of_engine(self, engine: str) -> tuple[Made, ...]:
        """Those of one engine, newest first."""
        return tuple(sorted((made for made in self.all() if made.engine == engine), key=lambda made: -made.made_at))

    def touch(self, name: str) -> Made | None:
        """It was asked for or is in use now. Gives it as it is after that, None where it is not there (any more)."""
        with contextlib.suppress(OSError):
            os.utime(self.path(name) / MARKER)
        return self.find(name)

    def remove(self, name: str, limit_s: float = LONGEST_WAIT_S, still: Callable[[], bool] = lambda: True) -> bool:
        """Take one away: it stops counting as there before its files go. Raises EnvironmentFault.

        `still` is asked once nobody else can make or remove it; False: it stays, and so is the answer.
        """
        path = self.path(name)
        with self.held(name, limit_s):
            if not still():
                return False
            try:
                (path / MARKER).unlink(missing_ok=True)
                _remove_tree(path)
            except OSError as error:
                raise fault_of(error, path) from None
        return True

    def sweep(self, name: str) -> None:
        """Take away what an interrupted build of this environment left. Only for whoever holds it."""
        for left in self.root.glob(f"{UNFINISHED}{name}-*"):
            _remove_tree(left)
        path = self.path(name)
        if path.exists() and _read_marker(path) is None:
            _remove_tree(path)

    @contextlib.contextmanager
    def held(
        self, name: str, limit_s: float = LONGEST_WAIT_S, waiting: Callable[[], None] | None = None
    ) -> Iterator[int]:
        """Nobody else makes or removes it meanwhile. Gives the descriptor of the lock, which a child may inherit.

        Raises EnvironmentFault when somebody else holds it for longer than `limit_s`.
        """
        self.make()
        lock = os.open(self.root / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _wait_for(lock, name, limit_s, waiting)
            yield lock
        finally:
            os.close(lock)


def fault_of(error: OSError, path: Path) -> EnvironmentFault:
    """An error of the file system as a reason."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentFault("DiskFull", {"words": error.strerror or "", "log": str(path)})
    words = f"{error.filename or path}: {error.strerror or error}"
    return EnvironmentFault("EnvironmentUnwritable", {"words": words})


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


def _wait_for(lock: int, name: str, limit_s: float, waiting: Callable[[], None] | None) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EnvironmentFault("EnvironmentBusy", {"name": name, "seconds": int(limit_s)}) from None
        if waiting is not None:
            waiting()
        time.sleep(POLL_S)


def _remove_tree(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _read_marker(folder: Path) -> Made | None:
    try:
        with (folder / MARKER).open("rb") as file:
            told = json.loads(file.read(LARGEST_MARKER_BYTES))
            used_at = os.fstat(file.fileno()).st_mtime
        made = Made(**{**told, "path": folder, "used_at": used_at})
    except (OSError, ValueError, TypeError):
        return None
    return made if made.name == folder.name and made.python_path.exists() else None
