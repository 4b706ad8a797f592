"""What tests of policy servers share: a real store, real server processes, and a gRPC client that asks like Envoy."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Mapping

import grpc
import grpc.aio
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

from gonogo.gateway.policy.question import STAGE, WHOLE
from gonogo.security.keys import RANDOM_BYTES, KeyRow, MintedKey, mint
from gonogo.spec import Spec
from gonogo.spec.model import Expect
from gonogo.store import open_store
from gonogo.store.store import Store

CHECK = "/envoy.service.auth.v3.Authorization/Check"
CONTEXT = Expect(context_tokens=25_480)
BODY = b'{"model":"svc","messages":[{"role":"user","content":"Hello"}],"max_tokens":4}'


def until(true: Callable[[], object], within_s: float = 10.0) -> float:
    """Wait for it; how long it took in seconds. Fails when it did not come true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, f"still not so after {within_s} s"
        time.sleep(0.01)
    return time.monotonic() - began


@dataclass
class Deployment:
    """A state directory with a store in which service `svc` serves revision 1."""

    root: Path
    store: Store
    epoch: int
    servers: list[PolicyProcess] = field(default_factory=list)

    @classmethod
    def make(cls, root: Path) -> Deployment:
        (root / "run").mkdir(mode=0o700)
        (root / "logs").mkdir(mode=0o700)
        store = open_store(root / "gonogo.db", clock=time.time)
        epoch = store.acquire_lease("test")
        with store.change(epoch=epoch, actor="control", principal="test") as change:
            # As much context as a phone's agent asks for.
            revision = change.add_revision(Spec(service="svc", model="m.gguf", projector="p.gguf", expect=CONTEXT))
            change.set_serving("svc", revision.number)
        return cls(root=root, store=store, epoch=epoch)

    def add_key(self, **fields: object) -> MintedKey:
        """A key for `svc`, or with these fields."""
        key = mint(os.urandom(RANDOM_BYTES))
        values: dict[str, object] = {
            "key_id": key.key_id,
            "secret_hash": key.secret_hash,
            "name": "test",
            "service": "svc",
            "revision": None,
            "scopes": ("inference",),
            "created_at": time.time(),
            "expires_at": None,
            "revoked_at": None,
        }
        with self.store.change(epoch=None, actor="cli", principal="test") as change:
            change.add_key(KeyRow(**{**values, **fields}))  # type: ignore[arg-type]
        return key

    def add_service(self, name: str, number_of_revisions: int = 1) -> None:
        """Another service, which serves its newest revision."""
        with self.store.change(epoch=self.epoch, actor="control", principal="test") as change:
            for context in range(number_of_revisions):
                spec = Spec(service=name, model="m.gguf", expect=Expect(context_tokens=4096 + context))
                number = change.add_revision(spec).number
            change.set_serving(name, number)

    def ask(self, **fields: object) -> None:
        """Another revision of `svc`, with these fields in its spec."""
        spec = Spec(service="svc", model="m.gguf", projector="p.gguf", expect=CONTEXT, **fields)  # type: ignore[arg-type]
        with self.store.change(epoch=self.epoch, actor="api", principal="test") as change:
            change.add_revision(spec)

    def revoke(self, key: MintedKey) -> None:
        with self.store.change(epoch=None, actor="cli", principal="test") as change:
            change.revoke_key(key.key_id)

    def socket(self, index: int) -> Path:
        return self.root / "run" / f"policy-{index}.sock"

    def start(self, index: int = 0) -> PolicyProcess:
        """A server that listens."""
        server = PolicyProcess(self.root, index, self.socket(index))
        self.servers.append(server)
        until(lambda: f"listens (pid {server.process.pid})" in server.log())
        return server

    def close(self) -> None:
        for server in self.servers:
            if server.process.poll() is None:
                server.process.kill()
            server.process.wait(10)
        self.store.close()


class PolicyProcess:
    """One `python -m gonogo.gateway.policy.main`, started the way that control starts it."""

    def __init__(self, root: Path, index: int, socket: Path) -> None:
        self.socket = socket
        self._log = root / "logs" / f"policy-{index}.log"
        words = ["--socket", str(socket), "--database", str(root / "gonogo.db"), "--index", str(index)]
        words += ["--valkey", str(root / "run" / "valkey-0.sock"), "--access-log", str(root / "logs" / "access.log")]
        words += ["--envoy", str(root / "run" / "admin.sock")]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gonogo.gateway.policy.main", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> float:
        """SIGTERM; how long it took to end with exit code 0."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0, self.log()
        return time.monotonic() - began


def question(key: str | None, path: str = "/v1/chat/completions", body: bytes = BODY, **extra: str) -> CheckRequest:
    """The message that Envoy sends for a request with this key; `extra` headers, or another `method`."""
    asked = CheckRequest()
    http = asked.attributes.request.http
    http.method, http.path, http.raw_body = extra.pop("method", "POST"), path, body
    headers = {"content-length": str(len(body)), "x-request-id": "r-1", **extra}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    for name, value in headers.items():
        http.headers[name] = value
    return asked


@dataclass(frozen=True)
class Answer:
    """What a server said: the headers it set on the request, or the refusal's status, code and words."""

    headers: Mapping[str, str]
    status: int | None = None
    code: str | None = None
    body: str = ""


async def ask_on(channel: grpc.aio.Channel, message: CheckRequest | bytes, stage: str = WHOLE) -> Answer:
    """One question, one answer."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    call = channel.unary_unary(CHECK)(data, timeout=10, metadata=((STAGE, stage),))
    response = CheckResponse.FromString(await call)
    assert await call.code() is grpc.StatusCode.OK
    if response.status.code == 0:
        return Answer({option.header.key: option.header.value for option in response.ok_response.headers})
    denied = response.denied_response
    headers = {option.header.key: option.header.value for option in denied.headers}
    return Answer(headers, status=denied.status.code, code=headers.get("x-gonogo-code"), body=denied.body)


def ask(socket: Path, *messages: CheckRequest | bytes, stage: str = WHOLE) -> list[Answer]:
    """Questions on one connection, one after the other."""

    async def run() -> list[Answer]:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            return [await ask_on(channel, message, stage) for message in messages]

    return asyncio.run(run())
