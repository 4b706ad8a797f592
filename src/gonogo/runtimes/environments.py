"""The environments of engines and agents, below the state directory: which there are, where, and whether each is whole.

An environment counts as there only with its marker, which is written and moved into place last; anything else is
unfinished and is swept away. Not here: making one (`environment_building.py`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from gonogo.runtimes.uv import EnvironmentFault
from gonogo.runtimes.whole_folders import LONGEST_WAIT_S, StillHeld, held, make_private, remove_tree, write_whole

MARKER = "gonogo-environment.json"
LARGEST_MARKER_BYTES, LARGEST_LOG_BYTES = 65_536, 16_000_000
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
            make_private((self.root.parent, self.root, self.locks))
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
                remove_tree(path)
            except OSError as error:
                raise fault_of(error, path) from None
        return True

    def sweep(self, name: str) -> None:
        """Take away what an interrupted build of this environment left. Only for whoever holds it."""
        for left in self.root.glob(f"{UNFINISHED}{name}-*"):
            remove_tree(left)
        path = self.path(name)
        if path.exists() and _read_marker(path) is None:
            remove_tree(path)

    @contextlib.contextmanager
    def held(
        self, name: str, limit_s: float = LONGEST_WAIT_S, waiting: Callable[[], None] | None = None
    ) -> Iterator[int]:
        """Nobody else makes or removes it meanwhile. Gives the descriptor of the lock, which a child may inherit.

        Raises EnvironmentFault when somebody else holds it for longer than `limit_s`.
        """
        self.make()
        try:
            with held(self.root / f".{name}.lock", limit_s, waiting) as lock:
                yield lock
        except StillHeld:
            raise EnvironmentFault("EnvironmentBusy", {"name": name, "seconds": int(limit_s)}) from None


def fault_of(error: OSError, path: Path) -> EnvironmentFault:
    """An error of the file system as a reason."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentFault("DiskFull", {"words": error.strerror or "", "log": str(path)})
    words = f"{error.filename or path}: {error.strerror or error}"
    return EnvironmentFault("EnvironmentUnwritable", {"words": words})


def _read_marker(folder: Path) -> Made | None:
    try:
        with (folder / MARKER).open("rb") as file:
            told = json.loads(file.read(LARGEST_MARKER_BYTES))
            used_at = os.fstat(file.fileno()).st_mtime
        made = Made(**{**told, "path": folder, "used_at": used_at})
    except (OSError, ValueError, TypeError):
        return None
    return made if made.name == folder.name and made.python_path.exists() else None
