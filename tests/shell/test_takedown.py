"""`gonogo down --all` asks what runs to end; it does not kill it together with the control that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from gonogo.control.takedown import take_down
from gonogo.runtimes.paths import StatePaths

WORKER = """
import pathlib, signal, sys, time
def asked(*_):
    pathlib.Path(sys.argv[1], "asked").touch()
    sys.exit()
signal.signal(signal.SIGTERM, asked)
pathlib.Path(sys.argv[1], "began").touch()
time.sleep(60)
"""
CONTROL = """
import os, subprocess, sys, time
marks = {**os.environ, "GONOGO_ROLE": "worker", "GONOGO_NAME": "0"}
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], env=marks, start_new_session=True)
time.sleep(60)
"""


def test_a_worker_is_asked_to_end_and_not_killed_with_control(tmp_path: Path) -> None:
    paths = StatePaths.of(tmp_path / "state")
    paths.make()
    marks = {"GONOGO_STATE": str(paths.root), "GONOGO_ROLE": "control", "GONOGO_NAME": "main"}
    control = subprocess.Popen(
        [sys.executable, "-c", CONTROL, str(tmp_path), WORKER],
        env={**os.environ, **marks},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "began").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        down = take_down(paths, "root")
        assert {role for role, _, _ in down.ended} == {"control", "worker"} and down.left == ()
        assert (tmp_path / "asked").exists()
    finally:
        control.kill()
        control.wait(10)
        for pid in psutil.pids():
            with contextlib.suppress(psutil.Error, OSError):
                if psutil.Process(pid).environ().get("GONOGO_STATE") == str(paths.root):
                    os.kill(pid, signal.SIGKILL)
