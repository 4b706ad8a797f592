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
from tests.shell.gateway_parts import Front
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
