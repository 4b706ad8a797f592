"""The gRPC server as a process behind the real Envoy and real policy servers, and clients as users write them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, AsyncIterator, Awaitable, Callable

import grpc
import grpc.aio

from gonogo.rpc.v1 import inference_pb2 as pb
from gonogo.rpc.v1 import inference_pb2_grpc
from tests.shell.gateway_parts import Front, read_body
from tests.shell.policy_parts import Deployment, until

PATIENCE_S = 20.0
"""Nothing here takes longer, on a busy machine either."""


class RpcProcess:
    """One `python -m gonogo.gateway.rpc.main`, started the way that control starts it. `with`."""

    def __init__(self, root: Path) -> None:
        self.socket = root / "run" / "rpc-0.sock"
        self._words = ("--socket", str(self.socket), "--front", str(root / "run" / "front.sock"))
        self._log = root / "logs" / "rpc-0.log"
        self.process: subprocess.Popen[bytes] = self._start()

    def __enter__(self) -> RpcProcess:
        self.wait_until_listens()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(10)

    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def start_again(self) -> None:
        self.process = self._start()
        self.wait_until_listens()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait_until_listens(self) -> None:
        until(lambda: f"listens (pid {self.process.pid})" in self.log())

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "gonogo.gateway.rpc.main", *self._words]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)


@contextlib.asynccontextmanager
async def gateway(deployment: Deployment, engine_port: int | None = None) -> AsyncIterator[tuple[Front, RpcProcess]]:
    """Envoy, one policy server and the gRPC server in front of an engine."""
    deployment.start(0)
    with RpcProcess(deployment.root) as rpc:
        async with Front(deployment, engine_port=engine_port) as front:
            yield front, rpc


def channel_to(front: Front) -> grpc.aio.Channel:
    """TLS with the gateway's CA, as `examples/grpc_client.py` does it."""
    credentials = grpc.ssl_channel_credentials(Path(front.ca_file).read_bytes())
    return grpc.aio.secure_channel(f"localhost:{front.port}", credentials)


def stub_of(channel: grpc.aio.Channel) -> Any:
    return inference_pb2_grpc.InferenceStub(channel)


def bearer(key: str | None) -> tuple[tuple[str, str], ...]:
    return () if key is None else (("authorization", f"Bearer {key}"),)


def said(text: str) -> pb.Conversation:
    return pb.Conversation(messages=[pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text=text)])])


async def error_of(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """The error that this call ends with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"no error but {answer}")


async def all_of(call: Any) -> list[pb.GenerateResponse]:
    """Every message of a stream."""
    return [message async for message in call]


def trailing(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """All metadata of an answer that is an error; Envoy's own are in its first headers."""
    return {**dict(error.initial_metadata() or ()), **dict(error.trailing_metadata() or ())}


async def soon(true: Callable[[], Any], what: str) -> Any:
    """Wait for it; fails when it does not come true in time."""
    ends = time.monotonic() + PATIENCE_S
    while not (seen := true()):
        assert time.monotonic() < ends, what
        await asyncio.sleep(0.02)
    return seen


def logged(front: Front) -> list[dict[str, Any]]:
    """The access log's lines so far."""
    return [json.loads(line) for line in front.access_log.read_text().splitlines()]


class HeldEngine:
    """An engine that writes what a test tells it to, when it tells it to. `async with`.

    `requests`: heads and bodies as they came. `gone` is set when the other side closed a connection in mid-answer.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.gone = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> HeldEngine:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def asked(self, count: int = 1) -> tuple[str, Any]:
        """The newest request, once there are `count`."""
        await soon(lambda: len(self.requests) >= count, f"request {count} came to the engine")
        return self.requests[-1]

    async def begin(self) -> None:
        """The head of a streamed answer."""
        await self._send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def event(self, content: Any) -> None:
        """One event; text as it stands, else as JSON."""
        text = content if isinstance(content, str) else json.dumps(content)
        await self.chunk(f"data: {text}\n\n".encode())

    async def text(self, text: str) -> None:
        """One event as chat completions have them."""
        await self.event({"id": "a-1", "model": "svc", "choices": [{"index": 0, "delta": {"content": text}}]})

    async def chunk(self, data: bytes) -> None:
        await self._send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self._send(b"0\r\n\r\n")

    def cut(self) -> None:
        """The newest connection is reset, as when the engine dies."""
        self._writers[-1].transport.abort()

    async def _send(self, data: bytes) -> None:
        self._writers[-1].write(data)
        await self._writers[-1].drain()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /health "):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    continue
                body = await read_body(reader, head)
                self._writers.append(writer)
                self.requests.append((head.decode(), json.loads(body) if body else None))
                if not await reader.read(1):
                    self.gone.set()
                    break
        writer.close()
