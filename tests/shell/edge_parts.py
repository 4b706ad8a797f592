"""A real Envoy, our ADS server, engines that are processes of their own, and a policy that only knows two keys.

The real policy server has its own tests; this one is small so that a test can make it say anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, ClassVar
from urllib.parse import unquote

import grpc
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3 import external_auth_pb2 as auth
from envoy.service.auth.v3 import external_auth_pb2_grpc as auth_grpc
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.rpc.status_pb2 import Status

from gonogo.actions.model import ClusterPlan, EndpointPlan, ListenerPlan
from gonogo.facts.gateway import ResourceStatus
from gonogo.facts.replica import ReplicaName
from gonogo.gateway.ads import AdsServer
from gonogo.gateway.bootstrap import Bootstrap, bootstrap_json, command
from gonogo.gateway.policy.question import HEAD, STAGE
from gonogo.gateway.translate import GatewayInput, translate
from gonogo.security.certificates import ensure_certificates
from tests.free_ports import free_port
from tests.shell.gateway_parts import ENVOY, Client, read_body

KEY = "key-of-svc-1"


class Engine:
    """An engine that is a process: answers what the request's x-want header says, so that it can be killed for real."""

    def __init__(self, name: str = "engine", port: int | None = None) -> None:
        self.port = port or free_port()
        program = Path(__file__).with_name("fake_engine.py")
        self.process = subprocess.Popen([sys.executable, str(program), str(self.port), name])

    async def ready(self) -> None:
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the engine did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Policy(auth_grpc.AuthorizationServicer):  # type: ignore[misc]
    """Lets `KEY` in, to the revision that the query names (svc/1 by default); refuses the rest with odd characters.

    What else it is to do is said in the query too: policy is shown only the headers that it needs. `asked` counts the
    questions of all of them, by their stage.
    """

    asked: ClassVar[Counter[str]] = Counter()

    async def Check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        http = request.attributes.request.http
        shown = {"authorization", "content-length", "x-request-id", "x-envoy-auth-partial-body"}
        assert set(http.headers) <= shown, http.headers
        said = dict(pair.split("=", 1) for pair in http.path.partition("?")[2].split("&") if pair)
        stage = str(dict(context.invocation_metadata() or ())[STAGE])
        Policy.asked[stage] += 1
        if said.get("policy") == "crash":
            await context.abort(grpc.StatusCode.INTERNAL, "internal words of policy")
        if http.headers.get("authorization") == f"Bearer {KEY}":
            told = {"x-ratelimit-remaining-requests": said["left"]} if "left" in said else {}
            if stage == HEAD:
                return auth.CheckResponse(status=Status(code=0), ok_response=auth.OkHttpResponse())
            headers = {"x-gonogo-revision": said.get("rev", "svc/1"), "x-gonogo-key-id": "kid-7"}
            for name in ("x-gonogo-engine", "x-gonogo-continue"):
                headers[name] = "llama.cpp"
            if "pick" in said:
                headers["x-gateway-destination-endpoint"] = unquote(said["pick"])
            ok = auth.OkHttpResponse(headers=_headers(headers), response_headers_to_add=_headers(told))
            return auth.CheckResponse(status=Status(code=0), ok_response=ok)
        headers = {
            "x-gonogo-code": "missing_key",
            "x-gonogo-type": "authentication_error",
            "x-gonogo-hop": "policy",
            "www-authenticate": "Bearer",
            **({"x-gonogo-param": said["param"]} if "param" in said else {}),
        }
        denied = auth.DeniedHttpResponse(
            status=HttpStatus(code=int(said.get("refuse", "401"))),
            body='No "key" \\ was sent: 没有密钥',
            headers=_headers(headers),
        )
        return auth.CheckResponse(status=Status(code=7), denied_response=denied)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The envelope's inside; fails when the body is not the envelope, exactly once."""
        content = json.loads(self.body)
        assert list(content) == ["error"], content
        assert set(content["error"]) == {"message", "type", "param", "code", "hop", "request_id"}, content
        assert self.headers["content-type"] == "application/json"
        assert "{" not in content["error"]["message"], "an envelope inside the envelope"
        error: dict[str, Any] = content["error"]
        return error


class Edge:
    """`async with`: two engines as svc/1, two policy servers, Envoy, the ADS server."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        certificates = ensure_certificates(root / "tls", ["127.0.0.1"], time.time())
        assert certificates.ca_file is not None
        self.trust = ssl.create_default_context(cafile=str(certificates.ca_file))
        self.engines = [Engine("first"), Engine("second")]
        self.policies: list[grpc.aio.Server] = []
        self.changes = 0
        self.envoy: subprocess.Popen[bytes] | None = None
        self.max_connections = 2000
        self.given = GatewayInput(
            listeners=(ListenerPlan(address="127.0.0.1", port=self.port),),
            clusters=(self.cluster("svc/1", *(engine.port for engine in self.engines)),),
            policy_sockets=tuple(str(root / f"policy-{index}.sock") for index in range(2)),
            certificate_chain_pem=certificates.chain_pem,
            private_key_pem=certificates.key_pem,
            access_log_path=str(root / "access.log"),
            queue_socket=str(root / "tasks-0.sock"),
            rpc_socket=str(root / "rpc-0.sock"),
            front_socket=str(root / "front.sock"),
        )
        self.ads = self.new_ads()

    def new_ads(self) -> AdsServer:
        return AdsServer(self.root / "xds.sock", saved_path=self.root / "snapshot.bin", on_change=self._changed)

    @staticmethod
    def cluster(name: str, *ports: int) -> ClusterPlan:
        service, revision = name.rsplit("/", 1)
        replicas = (ReplicaName(service=service, revision=int(revision), index=index) for index in range(len(ports)))
        return ClusterPlan(
            name=name,
            endpoints=tuple(
                EndpointPlan(name=replica, address="127.0.0.1", port=port)
                for replica, port in zip(replicas, ports, strict=True)
            ),
        )

    async def __aenter__(self) -> Edge:
        Policy.asked.clear()
        try:
            for path in self.given.policy_sockets:
                self.policies.append(await start_policy(path))
            await self.ads.start()
            self.ads.set_snapshot(translate(self.given))
            bootstrap = Bootstrap(
                node_id="test",
                xds_socket=str(self.root / "xds.sock"),
                admin_socket=str(self.root / "admin.sock"),
                max_connections=self.max_connections,
            )
            (self.root / "bootstrap.json").write_text(bootstrap_json(bootstrap))
            for engine in self.engines:
                await engine.ready()
            self.start_envoy()
            await self.acked()
            await self.healthy(*(engine.port for engine in self.engines))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.envoy is not None:
            self.envoy.kill()
            self.envoy.wait(10)
        for engine in self.engines:
            engine.kill()
        await self.ads.stop()
        for server in self.policies:
            await server.stop(0)

    def start_envoy(self) -> None:
        words = command(str(ENVOY), str(self.root / "bootstrap.json"), 2, str(self.root / "envoy.log"))
        self.envoy = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def publish(self, **changes: Any) -> float:
        """Change the input, publish it, wait for the acknowledgement; the seconds that it took."""
        self.given = replace(self.given, **changes)
        self.ads.set_snapshot(translate(self.given))
        return await self.acked()

    async def acked(self) -> float:
        return await self.until(lambda: (seen := self.ads.status()) is not None and all(each.acked for each in seen))

    async def healthy(self, *ports: int) -> None:
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            text = await self.admin("/clusters")
            if all(f"127.0.0.1:{port}::health_flags::healthy" in text for port in ports):
                return
            await asyncio.sleep(0.03)
        raise AssertionError(text)

    async def until(self, happened: Callable[[], bool], seconds: float = 15) -> float:
        """Wait for it, and say how long that took."""
        started = time.monotonic()
        while not happened():
            assert time.monotonic() - started < seconds, (self.ads.status(), self.log()[-3000:])
            await asyncio.sleep(0.005)
        return time.monotonic() - started

    def status_of(self, type_url: str) -> ResourceStatus:
        (found,) = [each for each in self.ads.status() or () if each.type_url == type_url]
        return found

    def log(self) -> str:
        return (self.root / "envoy.log").read_text()

    async def logged(self, request_id: str) -> dict[str, Any]:
        """The access log's line of this request."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            whole, _, _ = (self.root / "access.log").read_text().rpartition("\n")  # Envoy may be writing the last line
            lines = whole.splitlines()
            found[:] = [line for line in map(json.loads, lines) if line["request_id"] == request_id]
            return bool(found)

        await self.until(look)
        return found[0]

    def client(self) -> Client:
        return Client(self.port, self.trust)

    async def admin(self, path: str) -> str:
        """What Envoy's admin interface says."""
        reader, writer = await asyncio.open_unix_connection(str(self.root / "admin.sock"))
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        return text

    async def ask(self, method: str, path: str, key: str | None = KEY, body: bytes = b"", **headers: str) -> Answer:
        """One request on a connection of its own. Underscores in header names become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.raw(method, path, key, body, named)

    async def raw(self, method: str, path: str, key: str | None, body: bytes, headers: dict[str, str]) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close"]
        lines += [f"authorization: Bearer {key}"] if key else []
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"content-length: {len(body)}"] if method == "POST" else []
        return await self.exchange("\r\n".join([*lines, "", ""]).encode() + body)

    async def exchange(self, sent: bytes, *, tls: bool = True) -> Answer:
        """Send exactly these bytes, over TLS or not, and read the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust if tls else None)
        writer.write(sent)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        payload = b"" if sent.startswith(b"HEAD") else await asyncio.wait_for(read_body(reader, head), 30)
        writer.close()
        first, *lines = head.decode().strip().split("\r\n")
        return Answer(int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines), payload)

    def _changed(self) -> None:
        self.changes += 1


async def start_policy(path: str) -> grpc.aio.Server:
    server = grpc.aio.server(options=[("grpc.http2.max_ping_strikes", 0), ("grpc.max_receive_message_length", -1)])
    auth_grpc.add_AuthorizationServicer_to_server(Policy(), server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    return server


def _headers(values: dict[str, str]) -> list[HeaderValueOption]:
    return [
        HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=2) for name, value in values.items()
    ]
