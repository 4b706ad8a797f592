"""The real Valkey, run as a deployment runs it, for tests that stop, kill and start it again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from redis import Redis

from gonogo.facts.part import COUNTERS_DB
from gonogo.runtimes.valkey import valkey_command
from tests.shell.policy_parts import until


class Valkey:
    """One server in a folder of its own, or with its socket among those of a deployment. A context: it ends with the
    block. `extra`: settings that win over ours.
    """

    def __init__(self, *extra: str, run: Path | None = None) -> None:
        self.root = run or Path(tempfile.mkdtemp(prefix="gonogo-valkey-"))
        self._ours = run is None
        self._extra = extra
        self.socket = self.root / "valkey-0.sock"
        self.directory = self.root / "valkey"
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Valkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)
        if self._ours:
            shutil.rmtree(self.root, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, answers: bool = True) -> None:
        """Run it; with `answers` until it does."""
        with (self.root / "valkey-0.log").open("ab") as log:
            command = (*valkey_command(self.socket, self.directory), *self._extra)
            self.process = subprocess.Popen(command, stdout=log, stderr=log, umask=0o077, start_new_session=True)
        if answers:
            until(self.answers, 20)

    def answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except Exception:
            return False

    def client(self, db: int = COUNTERS_DB) -> Redis:
        return Redis(unix_socket_path=str(self.socket), db=db, socket_timeout=2)

    def stop(self) -> None:
        """SIGSTOP: it is there, and silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """End it; its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        return process.wait(20)


async def reads(condition: object, within_s: float = 10.0) -> None:
    """Wait on the loop until `condition()` is true."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():  # type: ignore[operator]
        assert asyncio.get_running_loop().time() < deadline, f"still not so after {within_s} s"
        await asyncio.sleep(0.01)
