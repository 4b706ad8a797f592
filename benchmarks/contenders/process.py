"""Processes of a benchmark: started with a log file, awaited through a real request, ended whatever happens."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

CHAT = "/v1/chat/completions"
MODEL = "bench"
QUESTION = json.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 16}
)


class NotReady(Exception):
    """A contender cannot be measured; the text is the reason for its row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Something that answers chat requests on 127.0.0.1. `key` goes into the Authorization header.

    `tls` False: over plain HTTP, because it has no TLS of its own.
    """

    name: str
    port: int
    key: str = field(repr=False)
    asks_for_key: bool
    note: str
    tls: bool = True


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, in a session of its own; its whole session is ended on the way out."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def await_answer(process: subprocess.Popen[bytes], contender: Contender, log: Path, within_s: float) -> None:
    """Until it answers the question right. Raises `NotReady` with what it said last when it ends or takes too long."""
    ends = time.monotonic() + within_s
    seen = "no answer"
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise NotReady(f"ended with exit code {process.returncode}: {_last_line(log)}")
        try:
            status, body = ask(contender, contender.key)
        except (OSError, http.client.HTTPException) as error:
            seen = f"{type(error).__name__}: {error}"
        else:
            if status == 200 and "choices" in body:
                return
            seen = f"status {status}: {json.dumps(body)[:200]}"
        time.sleep(0.1)
    raise NotReady(f"did not answer within {within_s:g} s ({seen})")


def refuses_without_key(contender: Contender) -> bool:
    """Whether a request without a key gets no answer. LiteLLM without a database says 500 instead of 401."""
    status, body = ask(contender, None)
    return status >= 400 and "choices" not in body


def ask(contender: Contender, key: str | None) -> tuple[int, dict[str, Any]]:
    """One chat request: status and JSON body ({} where it is none). Certificates are not verified here."""
    connection = _connection(contender)
    headers = {"content-type": "application/json", **({} if key is None else {"authorization": f"Bearer {key}"})}
    try:
        connection.request("POST", CHAT, QUESTION, headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    try:
        content = json.loads(text)
    except ValueError:
        content = {}
    return answer.status, content if isinstance(content, dict) else {}


def _connection(contender: Contender) -> http.client.HTTPConnection:
    if not contender.tls:
        return http.client.HTTPConnection("127.0.0.1", contender.port, timeout=10)
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", contender.port, context=trust, timeout=10)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    # Whatever it started is in its session and may have outlived it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
