"""The keeper: starts control again when it died. Nothing else, so that it never needs to be restarted itself.

systemd does the same job where it runs control (`gonogo render systemd`). Imports only what imports nothing itself.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.tell import tell

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
HEALTHY_AFTER_S = 10.0
EXIT_LOCKED = 75
KEPT = "GONOGO_KEPT"
"""Set for a control process that a keeper started: it starts the keeper again when that died."""


def control_command(state_dir: Path) -> list[str]:
    """How control is started."""
    return [sys.executable, "-m", "gonogo.control.main", "--state-dir", str(state_dir)]


def keep(paths: StatePaths) -> int:
    """Run control until it ends by itself with exit code 0; returns the keeper's exit code."""
    lock = os.open(paths.keeper_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return EXIT_LOCKED
    environment = {
        **os.environ,
        "GONOGO_STATE": str(paths.root),
        "GONOGO_ROLE": "control",
        "GONOGO_NAME": "control",
        KEPT: "1",
    }
    pause_s = SHORTEST_PAUSE_S
    while True:
        _wait_until_free(paths.lease)
        log = os.open(paths.log("control", "main"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        started_at = time.monotonic()
        child = subprocess.Popen(
            control_command(paths.root),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        os.close(log)
        code = child.wait()
        if code == 0:
            return 0
        lived_s = time.monotonic() - started_at
        pause_s = SHORTEST_PAUSE_S if lived_s > HEALTHY_AFTER_S else min(LONGEST_PAUSE_S, pause_s * 2)
        tell(f"control ended with {code} after {lived_s:.1f} s; again in {pause_s:.1f} s")
        time.sleep(pause_s)


def _wait_until_free(lease: Path) -> None:
    """Return once no control process holds the lock (the keeper may have been started beside a living one)."""
    descriptor = os.open(lease, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="gonogo-keeper", description=__doc__)
    parser.add_argument("--state-dir", required=True)
    signal.signal(signal.SIGTERM, _leave)
    return keep(StatePaths.of(parser.parse_args().state_dir))


if __name__ == "__main__":
    sys.exit(main())
