"""A niced process goes behind others in fact: its session does too, for the kernel divides time by session first."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from gonogo.engines.model import Launch
from gonogo.runtimes.local import LocalRuntime

SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")


def test_a_niced_process_is_niced_together_with_its_session(tmp_path: Path) -> None:
    if not Path("/proc/self/autogroup").exists():
        pytest.skip("this kernel does not group by session: a process's own niceness counts")
    runtime = LocalRuntime(tmp_path)
    launch = Launch(command=SLEEPER, environment={}, niceness=5)
    started = [runtime.start(launch, ("replica", f"svc/1/{index}", None), tmp_path / "log") for index in range(2)]
    try:
        wanted = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
        for process in started:
            assert os.getpriority(os.PRIO_PROCESS, process.pid) == wanted
            assert Path(f"/proc/{process.pid}/autogroup").read_text().split()[-2:] == ["nice", str(wanted)]
    finally:
        for process in started:
            runtime.send(process.handle, signal.SIGKILL)
