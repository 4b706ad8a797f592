"""A queue of one's own: a real Valkey, the real parts `tasks` and `worker`, and a gateway that answers by rule.

The gateway that stands in is an HTTP server on the front socket: it knows keys as the real one does, writes down what
was asked, and answers what its `answer` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import httpx
from aiohttp import web

from gonogo.gateway.policy.decide import RequestHeaders, decide
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.view import ruled
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.valkey import valkey_command
from tests.shell.policy_parts import Deployment, until


@dataclass(frozen=True)
class Said:
    """What the gateway answers."""

    status: int = 200
    body: Any = field(default_factory=lambda: {"object": "chat.completion", "choices": []})
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0


def content_of(body: Any) -> str:
    """The last message of a request."""
    return str(body["messages"][-1]["content"])


def echo(body: Any) -> Said:
    """An answer that says what was asked."""
    message = {"role": "assistant", "content": f"echo {content_of(body)}"}
    return Said(body={"object": "chat.completion", "choices": [{"index": 0, "message": message}]})


class FakeGateway:
    """Answers on a unix socket in a thread of its own. A context."""

    def __init__(self, socket: Path, deployment: Deployment, answer: Callable[[Any], Said] = echo) -> None:
        self.socket, self.answer = socket, answer
        self.asked: list[tuple[str, str]] = []
        """Whose key it was (the owner's id), and the last message."""
        self.running = self.most_running = 0
        self._deployment = deployment
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listening = threading.Event()

    def __enter__(self) -> FakeGateway:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self.socket.unlink(missing_ok=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._listening.set()
        self._loop.run_forever()

    async def _serve(self) -> None:
        application = web.Application(client_max_size=2**26)
        application.router.add_post("/v1/{rest:.*}", self._post)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        self.socket.unlink(missing_ok=True)
        await web.UnixSite(runner, str(self.socket)).start()

    async def _post(self, request: web.Request) -> web.Response:
        headers = RequestHeaders(
            method="POST",
            path=request.path,
            authorization=tuple(request.headers.getall("authorization", [])),
            request_id="r",
        )
        decided = decide(headers, ruled(self._deployment.store.policy_view()), time.time())
        if isinstance(decided, Deny):
            return web.json_response({"error": {"code": decided.code}}, status=decided.status)
        body = await request.json()
        self.asked.append((decided.key.key_id, content_of(body)))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            said = self.answer(body)
            await asyncio.sleep(said.after_s)
        finally:
            self.running -= 1
        return web.json_response(said.body, status=said.status, headers={"x-request-id": "req-1", **said.headers})


class QueueParts:
    """One state directory with the queue's processes. A context; whatever it started ends with it.

    `gateway` False: no gateway stands in, for a real one listens on the front socket.
    """

    def __init__(self, root: Path, answer: Callable[[Any], Said] = echo, *, gateway: bool = True) -> None:
        self._fake = gateway
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.paths = StatePaths.of(root)
        self.deployment = Deployment.make(root)
        self.paths.make()
        self.gateway = FakeGateway(self.paths.front_socket, self.deployment, answer)
        self.key = self.deployment.add_key()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> QueueParts:
        if self._fake:
            self.gateway.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.processes):
            self.kill(name)
        if self._fake:
            self.gateway.__exit__()
        self.deployment.close()

    def start(self, *names: str, wait: bool = True) -> None:
        """Start these parts, each until its socket is there."""
        for name in names:
            socket = self.paths.part_socket(name, 0)
            if name == "valkey":
                folder = self.paths.root / "valkey"
                folder.mkdir(mode=0o700, exist_ok=True)
                words = list(valkey_command(socket, folder))
            else:
                module = {"tasks": "gonogo.tasks.main", "worker": "gonogo.tasks.worker"}[name]
                words = [sys.executable, "-m", module, "--state-dir", str(self.paths.root), "--socket", str(socket)]
            socket.unlink(missing_ok=True)
            with (self.paths.logs / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            if wait:
                until(socket.exists, 30)

    def kill(self, name: str) -> None:
        """The part and all that it started, at once."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def keep(self, name: str) -> None:
        """Start it again if it has ended, as control does: Celery ends when a child dies while it is being born."""
        if self.processes[name].poll() is not None:
            self.kill(name)
            self.start(name, wait=False)

    def client(self, key_id: str | None = None) -> httpx.Client:
        """What the gateway lets through to the part: whose key it is stands in a header."""
        transport = httpx.HTTPTransport(uds=str(self.paths.part_socket("tasks", 0)))
        headers = {"x-gonogo-key-id": key_id or self.key.key_id}
        return httpx.Client(transport=transport, base_url="http://tasks", headers=headers, timeout=60.0)

    def log(self, name: str) -> str:
        return (self.paths.logs / f"{name}.log").read_text(errors="replace")


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}


def jsonl(*lines: Any) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def line(custom_id: str, text: str | None = None, **changes: Any) -> dict[str, Any]:
    """A line of a batch."""
    body = chat(custom_id if text is None else text)
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **changes}
