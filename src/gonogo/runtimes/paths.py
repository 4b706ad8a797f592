"""Where everything of one deployment lies: one state directory, mode 0700, files 0600.

Unix socket paths are limited to 107 bytes, so `run` is a symbolic link to a short private directory when the state
directory's own path is long.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

LONGEST_SOCKET_PATH = 100
_LONGEST_SOCKET_NAME = "policy-00.sock.new"


class UnsafeDirectory(Exception):
    """A directory that must be ours alone belongs to somebody else, or is no directory."""


def default_state_dir() -> Path:
    """`$GONOGO_STATE_DIR`, else `gonogo` under the XDG state home."""
    given = os.environ.get("GONOGO_STATE_DIR")
    if given:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(home) / "gonogo"


@dataclass(frozen=True, slots=True)
class StatePaths:
    """All paths below one state directory (absolute, symbolic links resolved)."""

    root: Path

    @classmethod
    def of(cls, state_dir: str | os.PathLike[str]) -> StatePaths:
        return cls(Path(state_dir).expanduser().resolve())

    @property
    def database(self) -> Path:
        return self.root / "gonogo.db"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def gateway(self) -> Path:
        return self.root / "gateway"

    @property
    def environments(self) -> Path:
        return self.root / "environments"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def models(self) -> Path:
        """The weights that were fetched."""
        return self.root / "models"

    @property
    def valkey(self) -> Path:
        """What the embedded Valkey keeps: counters and queues."""
        return self.root / "valkey"

    @property
    def ca_file(self) -> Path:
        return self.tls / "ca.crt"

    @property
    def access_log(self) -> Path:
        return self.gateway / "access.log"

    @property
    def inner_log(self) -> Path:
        """The access log of the listener that the relays ask engines through."""
        return self.gateway / "inner.log"

    def relay_log(self, index: int) -> Path:
        """One relay's records, a JSON line for each stream."""
        return self.gateway / f"relay-{index}.log"

    @property
    def snapshot(self) -> Path:
        return self.gateway / "snapshot.bin"

    @property
    def bootstrap(self) -> Path:
        return self.gateway / "bootstrap.json"

    @property
    def lease(self) -> Path:
        return self.root / "control.lock"

    @property
    def keeper_lock(self) -> Path:
        return self.root / "keeper.lock"

    @property
    def run(self) -> Path:
        """The directory that holds the sockets, as short as it must be."""
        inside = self.root / "run"
        if len(os.fsencode(inside / _LONGEST_SOCKET_NAME)) <= LONGEST_SOCKET_PATH:
            return inside
        mark = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"gonogo-{os.getuid()}-{mark}"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def xds_socket(self) -> Path:
        return self.run / "xds.sock"

    @property
    def admin_socket(self) -> Path:
        return self.run / "admin.sock"

    @property
    def inner_socket(self) -> Path:
        """Envoy's listener for the relays."""
        return self.run / "inner.sock"

    @property
    def front_socket(self) -> Path:
        """Where Envoy takes HTTP from the gRPC server."""
        return self.run / "front.sock"

    def part_socket(self, role: str, index: int) -> Path:
        """Where a part listens (`gonogo.facts.part.PARTS`)."""
        return self.run / f"{role}-{index}.sock"

    def log(self, role: str, name: str) -> Path:
        """The log file of one process, e.g. `logs/replica-smollm2-1-0.log`."""
        return self.logs / f"{role}-{name.replace('/', '-')}.log"

    def make(self) -> None:
        """Create what is missing, all of it for the owner alone.

        Raises OSError where the file system says no, UnsafeDirectory where a directory is not ours.
        """
        for directory in (self.root, self.logs, self.tls, self.gateway, self.report, self.valkey, self.run):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_ours(directory)
        link = self.root / "run"
        if link != self.run and not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(self.run)


def _require_ours(directory: Path) -> None:
    seen = os.stat(directory, follow_symlinks=False)
    if not stat.S_ISDIR(seen.st_mode):
        raise UnsafeDirectory(f"{directory} is not a directory")
    if seen.st_uid != os.getuid():
        raise UnsafeDirectory(f"{directory} belongs to user {seen.st_uid}, not to {os.getuid()}")
