"""The load: wrk where it is installed, else an asyncio client in a process of its own. It asks one question, over TLS
keep-alive, as fast as the answers come, on a given number of connections.

Not here: whom to ask and how often (benchmarks/gateway.py). Any answer but 200, and any connection error, is counted.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contenders.process import CHAT, QUESTION, Contender, NotReady

# wrk tells its latencies in µs. Its percentiles also count what a stalled connection would have asked meanwhile.
_SCRIPT = """wrk.method = "POST"
wrk.body = [=[{question}]=]
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer {key}"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{{"p50_ms":%.4f,"p99_ms":%.4f,"requests":%d,"seconds":%.4f,"failed":%d}}\\n',
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, summary.requests, summary.duration / 1000000,
    e.status + e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measurement. `failed` counts answers other than 200 and broken connections."""

    p50_ms: float
    p99_ms: float
    requests_per_s: float
    requests: int
    failed: int


class Generator(Protocol):
    """Something that makes load. `name` is for the table's heading."""

    @property
    def name(self) -> str: ...

    def measure(self, contender: Contender, connections: int, seconds: float) -> Measured:
        """Ask for so long. Raises `NotReady` when nothing was answered."""


def generator(folder: Path) -> Generator:
    """The best that is installed."""
    found = shutil.which("wrk")
    return Wrk(found, folder) if found else PythonLoad()


class Wrk:
    """wrk, one thread."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder

    @property
    def name(self) -> str:
        said = subprocess.run((self._program, "-v"), capture_output=True, text=True, timeout=10, check=False).stdout
        seen = re.search(r"wrk \S*?(\d+\.\d+(?:\.\d+)?)", said)
        return f"wrk {seen[1]}" if seen else "wrk"

    def measure(self, contender: Contender, connections: int, seconds: float) -> Measured:
        script = self._folder / f"wrk-{contender.name}.lua"
        script.touch(mode=0o600)
        script.write_text(_SCRIPT.format(question=QUESTION, key=contender.key))
        return _run(
            (
                self._program, "--threads", "1", "--connections", str(connections), "--timeout", "5s",
                "--duration", f"{max(1, round(seconds))}s", "--script", str(script),
                f"{'https' if contender.tls else 'http'}://127.0.0.1:{contender.port}{CHAT}",
            ),
            "",
            seconds,
        )  # fmt: skip


class PythonLoad:
    """The same in Python: at many connections it is itself a limit, which the table's heading says."""

    name = "a Python client (wrk is not installed; at 32 connections this client is a limit: apt-get install wrk)"

    def measure(self, contender: Contender, connections: int, seconds: float) -> Measured:
        words = (str(contender.port), str(connections), str(seconds), "tls" if contender.tls else "plain")
        # The key goes through standard input: command lines are everybody's to read.
        return _run((sys.executable, str(Path(__file__).with_name("asyncio_load.py")), *words), contender.key, seconds)


def _run(command: tuple[str, ...], given: str, seconds: float) -> Measured:
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds + 30, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotReady(f"the load generator did not end within {seconds + 30:g} s") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise NotReady(f"the load generator ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    seen = json.loads(lines[-1])
    if not seen["requests"]:
        raise NotReady("not one request was answered")
    return Measured(
        p50_ms=seen["p50_ms"],
        p99_ms=seen["p99_ms"],
        requests_per_s=seen["requests"] / seen["seconds"],
        requests=seen["requests"],
        failed=seen["failed"],
    )
