"""Which processes of this host run from an environment: by their command, and by the libraries they have loaded."""

from __future__ import annotations

import os
from pathlib import Path


def processes_in(environment: Path) -> tuple[int, ...]:
    """The pids, sorted. A process that may not be looked at (another user's) does not count."""
    mark = os.fsencode(f"{environment.resolve()}{os.sep}")
    return tuple(sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _runs_from(pid, mark)))


def _runs_from(pid: str, mark: bytes) -> bool:
    for name in ("cmdline", "maps"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                if mark in file.read():
                    return True
        except OSError:  # it has ended, or is not ours
            return False
    return False
