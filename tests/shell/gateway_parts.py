"""A real Envoy in front of a fake engine and real policy servers, configured over a real ADS server.

The engine answers everything with 200 and counts it; a body that says `stream` gets its answer in pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Mapping

import envoy

from gonogo.actions.model import ClusterPlan, EndpointPlan, ListenerPlan
from gonogo.facts.replica import ReplicaName
from gonogo.gateway.ads import AdsServer
from gonogo.gateway.bootstrap import Bootstrap, bootstrap_json, command
from gonogo.gateway.translate import GatewayInput, translate
from gonogo.security.certificates import ensure_certificates
from tests.free_ports import free_port
from tests.shell.policy_parts import Deployment, question

__all__ = ["Client", "FakeEngine", "Front", "Reply", "question"]

ENVOY = next(Path(folder) / "_bin" / "envoy" for folder in envoy.__path__ if (Path(folder) / "_bin").is_dir())


@dataclass
class FakeEngine:
    """HTTP/1.1: counts requests other than Envoy's health checks. A streamed answer has `pieces`, 0.1 s apart."""

    requests: int = 0
    seen_headers: list[bytes] = field(default_factory=list)
    bodies: deque[bytes] = field(default_factory=lambda: deque(maxlen=4))
    pieces: int = 20
    port: int = 0
    server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await read_body(reader, head)
                if head.startswith(b"GET /health "):
                    await self._send(writer, b"{}")
                    continue
                self.requests += 1
                self.seen_headers.append(head)
                self.bodies.append(body)
                await (self._stream(writer) if b"stream" in body else self._send(writer, b'{"ok":true}'))
        writer.close()

    async def _send(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(self.pieces):
            piece = f"data: {number}\n\n".encode()
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n")


async def read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body that this head announces, in either of the two ways."""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if fields.get(b"transfer-encoding") == b"chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body
    return await reader.readexactly(int(fields.get(b"content-length", b"0")))


@dataclass(frozen=True)
class Reply:
    """What the client got."""

    status: int
    head: bytes
    body: bytes


class Client:
    """One HTTP/1.1 keep-alive connection over TLS; it dials again when the other side closed it."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self._port, self._trust = port, trust
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, key: str | None, body: bytes = b"", *, chunked: bool = False) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=self._trust, server_hostname="localhost"
            )
        reader, writer = self._streams
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n"
        if key is not None:
            head += f"authorization: Bearer {key}\r\n"
        if chunked:
            head += "transfer-encoding: chunked\r\n\r\n"
            payload = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        else:
            head += f"content-length: {len(body)}\r\n\r\n" if method != "GET" else "\r\n"
            payload = body
        writer.write(head.encode() + payload)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        reply = Reply(status, answer, await read_body(reader, answer))
        if b"connection: close" in answer.lower():
            self.close()
        return reply

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Front:
    """Envoy, its ADS server and the fake engine, around a deployment. `async with`.

    `engine_port`: another engine, which runs already, stands behind the gateway in place of the fake one.
    `others`: more revisions by their names, each with the port of its one engine.
    """

    def __init__(
        self, deployment: Deployment, engine_port: int | None = None, others: Mapping[str, int] | None = None
    ) -> None:
        self._others = others or {}
        self.deployment = deployment
        self.engine = FakeEngine()
        self._engine_port = engine_port
        self.port = free_port()
        root = deployment.root
        self._ads = AdsServer(root / "run" / "xds.sock")
        self._process: subprocess.Popen[bytes] | None = None
        self._certificates = ensure_certificates(root / "tls", ["127.0.0.1"], time.time())
        assert self._certificates.ca_file is not None
        self._trust = ssl.create_default_context(cafile=str(self._certificates.ca_file))
        self.envoy_log = root / "logs" / "envoy.log"
        self.access_log = root / "logs" / "access.log"

    @property
    def ca_file(self) -> str:
        return str(self._certificates.ca_file)

    def client(self) -> Client:
        return Client(self.port, self._trust)

    async def __aenter__(self) -> Front:
        root = self.deployment.root
        if self._engine_port is None:
            await self.engine.start()
            self._engine_port = self.engine.port
        await self._ads.start()
        self._ads.set_snapshot(translate(self._input()))
        given = Bootstrap(
            node_id="test", xds_socket=str(root / "run" / "xds.sock"), admin_socket=str(root / "run" / "admin.sock")
        )
        (root / "bootstrap.json").write_text(bootstrap_json(given))
        words = command(str(ENVOY), str(root / "bootstrap.json"), 1, str(self.envoy_log))
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=-3)
        try:
            await self._until_ready()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
        await self._ads.stop()
        if self.engine.server is not None:
            self.engine.server.close()

    def send_envoy(self, number: signal.Signals) -> None:
        """A signal to the running Envoy."""
        assert self._process is not None
        self._process.send_signal(number)

    def publish(self, **changes: Any) -> None:
        """Give Envoy this configuration with these changes."""
        self._ads.set_snapshot(translate(replace(self._input(), **changes)))

    async def admin(self, path: str) -> str:
        """What Envoy's admin interface says."""
        reader, writer = await asyncio.open_unix_connection(str(self.deployment.root / "run" / "admin.sock"))
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        return text

    async def _until_ready(self) -> None:
        """The listener is up and the engine has passed a health check."""
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                seen = await self.admin("/clusters")
                ports = (self._engine_port, *self._others.values())
                if all(f"127.0.0.1:{port}::health_flags::healthy" in seen for port in ports):
                    with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                        return
            await asyncio.sleep(0.05)
        raise AssertionError(f"the gateway did not become ready: {self.envoy_log.read_text()[-2000:]}")

    def _input(self) -> GatewayInput:
        assert self._engine_port is not None
        ports = {"svc/1": self._engine_port, **self._others}
        return GatewayInput(
            listeners=(ListenerPlan(address="127.0.0.1", port=self.port),),
            clusters=tuple(_cluster(name, port) for name, port in ports.items()),
            policy_sockets=tuple(str(self.deployment.socket(index)) for index in (0, 1)),
            certificate_chain_pem=self._certificates.chain_pem,
            private_key_pem=self._certificates.key_pem,
            access_log_path=str(self.access_log),
            queue_socket=str(self.deployment.root / "run" / "tasks-0.sock"),
            rpc_socket=str(self.deployment.root / "run" / "rpc-0.sock"),
            front_socket=str(self.deployment.root / "run" / "front.sock"),
        )


def _cluster(name: str, port: int) -> ClusterPlan:
    service, _, number = name.rpartition("/")
    replica = ReplicaName(service=service, revision=int(number), index=0)
    return ClusterPlan(name=name, endpoints=(EndpointPlan(name=replica, address="127.0.0.1", port=port),))
