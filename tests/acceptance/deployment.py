"""A whole deployment for tests: the real CLI, control, Envoy, policy and llama.cpp, in a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping

import httpx

GONOGO = (sys.executable, "-m", "gonogo.cli.main")


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Deployment:
    """One state directory and everything that runs for it."""

    state_dir: Path
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    last_up: Any = None

    def run(self, *words: str, timeout_s: float = 120.0, **environment: str) -> Result:
        """Run a gonogo command for this state directory and wait for it."""
        done = subprocess.run(
            [*GONOGO, *words, "--state-dir", str(self.state_dir)],
            capture_output=True,
            check=False,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **self.environment, **environment},
            stdin=subprocess.DEVNULL,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def up(self, *words: str, **environment: str) -> Any:
        """`gonogo up --json`, which must succeed; remembers the key."""
        result = self.run("up", *words, "--json", "--yes", "--listen", f"127.0.0.1:{self.port}", **environment)
        assert result.code == 0, f"exit code {result.code}\n{result.out}\n{result.err}\n{self.logs()}"
        self.last_up = result.json
        self.key = self.last_up.get("api_key") or self.key
        return self.last_up

    def status(self) -> Any:
        return self.run("status", "--json").json

    def pids(self, role: str) -> list[int]:
        return list(self.status()["processes"][role])

    def down(self) -> None:
        """End everything; whatever is left is killed, so that no test leaves processes behind."""
        self.run("down", "--all", "--json", "--yes")
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)

    def left(self) -> list[int]:
        """Processes of this deployment that are alive, found without gonogo's help.

        Some write a name over their environment: those are known by the log that they write to.
        """
        mark, found = f"GONOGO_STATE={self.state_dir.resolve()}".encode(), []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                output = os.readlink(f"/proc/{entry}/fd/1")
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            ours = mark in environment or output.startswith(f"{self.state_dir.resolve()}/logs/")
            if ours and state != "Z":
                found.append(int(entry))
        return found

    def logs(self) -> str:
        """The end of every log, for a failing test's message."""
        parts = []
        for log in sorted((self.state_dir / "logs").glob("*.log")):
            parts.append(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]))
        return "\n".join(parts)

    def client(self, **options: Any) -> httpx.Client:
        """A client that trusts the deployment's CA and carries its key."""
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=ssl.create_default_context(cafile=str(self.state_dir / "tls" / "ca.crt")),
            headers={"authorization": f"Bearer {self.key}"},
            timeout=60.0,
            trust_env=False,
            **options,
        )

    def ask(self, client: httpx.Client, text: str = "Say the word hello.", tokens: int = 4) -> httpx.Response:
        question = {
            "model": self.service,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
        }
        return client.post("/v1/chat/completions", json=question)

    @property
    def service(self) -> str:
        """The service that was brought up last: the model that clients ask for."""
        return str(self.last_up["service"])

    def settings(self) -> list[str]:
        return ["--listen", f"127.0.0.1:{self.port}"]


def wait_for(question: Callable[[], Any], limit_s: float, what: str) -> Any:
    """Ask until the answer is truthy; fail with `what` after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.05)
