"""A real Envoy with real relays in front of engines that a test brings, without policy: the test says the headers.

    async with RelayedFront(directory, {"svc/1": ports}) as front:
        async with front.session() as session:
            session.post(front.url + "/v1/chat/completions", json=..., headers=front.headers("llama.cpp"))

The listener is the gateway's own, less the filter that asks policy and the removal of foreign headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Mapping, Sequence

import aiohttp
from envoy.config.listener.v3 import listener_pb2

from gonogo.actions.model import ClusterPlan, EndpointPlan, ListenerPlan
from gonogo.facts.replica import ReplicaName
from gonogo.gateway.ads import AdsServer
from gonogo.gateway.bootstrap import Bootstrap, bootstrap_json, command
from gonogo.gateway.policy.question import HEAD, SMALL, WHOLE
from gonogo.gateway.resources.convert import to_json, to_message, unpacked
from gonogo.gateway.snapshot import LISTENER, Snapshot, typed
from gonogo.gateway.translate import GatewayInput, translate
from gonogo.security.certificates import ensure_certificates
from tests.free_ports import free_port
from tests.shell.gateway_parts import ENVOY

RELAYS = 2


class RelayedFront:
    """Envoy, its ADS server and the relays. `replicas`: revision → ports on loopback. `async with`.

    `traced`: each relay writes what was said into `trace-N.log`.
    """

    def __init__(
        self, root: Path, replicas: Mapping[str, Sequence[int]], *, relays: int = RELAYS, traced: bool = False
    ) -> None:
        self.root = root
        self.replicas = replicas
        self.relays = relays
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._traced = traced
        self._envoy: subprocess.Popen[bytes] | None = None
        for name in ("run", "tls", "gateway"):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        self._ads = AdsServer(root / "run" / "xds.sock")
        self._certificates = ensure_certificates(root / "tls", ["127.0.0.1"], time.time())
        assert self._certificates.ca_file is not None
        self.trust = ssl.create_default_context(cafile=str(self._certificates.ca_file))

    async def __aenter__(self) -> RelayedFront:
        await self._ads.start()
        self._ads.set_snapshot(self._snapshot())
        given = Bootstrap(node_id="test", xds_socket=self._socket("xds"), admin_socket=self._socket("admin"))
        (self.root / "bootstrap.json").write_text(bootstrap_json(given))
        words = command(str(ENVOY), str(self.root / "bootstrap.json"), 1, str(self.root / "envoy.log"))
        self._envoy = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.processes = [self.start_relay(index) for index in range(self.relays)]
        try:
            await self._until_ready()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._envoy, *self.processes):
            if process is not None:
                process.kill()
                process.wait(10)
        await self._ads.stop()

    def start_relay(self, index: int) -> subprocess.Popen[bytes]:
        """A relay's process; its log is `relay-N.err`."""
        words = [
            *(sys.executable, "-m", "gonogo.gateway.relay.main"),
            *("--socket", self._socket(f"relay-{index}"), "--inner", self._socket("inner")),
            *("--admin", self._socket("admin"), "--log", str(self.root / "gateway" / f"relay-{index}.log")),
            *("--index", str(index)),
            *(("--trace", str(self.root / f"trace-{index}.log")) if self._traced else ()),
        ]
        with (self.root / f"relay-{index}.err").open("ab") as log:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ)

    def session(self) -> aiohttp.ClientSession:
        """A client that trusts this front."""
        connector = aiohttp.TCPConnector(ssl=self.trust, limit=0)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120))

    def headers(self, engine: str, *, continues: str = "yes", relayed: bool = True) -> dict[str, str]:
        """What policy would have set."""
        marked = {"x-gonogo-relay": "1"} if relayed else {}
        return {
            "x-gonogo-revision": next(iter(self.replicas)),
            "x-gonogo-engine": engine,
            "x-gonogo-continue": continues,
            "x-gonogo-key-id": "key",
            **marked,
        }

    def records(self) -> list[dict[str, Any]]:
        """The lines of all relays, the oldest first of each."""
        logs = sorted((self.root / "gateway").glob("relay-*.log"))
        return [json.loads(line) for log in logs for line in log.read_text().splitlines()]

    async def record_of(self, request_id: str) -> dict[str, Any]:
        """The record of this request, which is written just after its answer has ended."""
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            for record in self.records():
                if record["request_id"] == request_id:
                    return record
            await asyncio.sleep(0.02)
        raise AssertionError(f"no record of {request_id}; errors: {self.errors()}")

    def inner_log(self) -> list[dict[str, Any]]:
        """The lines of the inner listener's access log; up to a second behind."""
        return [json.loads(line) for line in (self.root / "gateway" / "inner.log").read_text().splitlines()]

    def errors(self) -> str:
        """What relays and Envoy said of themselves."""
        logs = [*self.root.glob("relay-*.err"), self.root / "envoy.log"]
        return "\n".join(log.read_text()[-2000:] for log in logs if log.exists())

    def send_envoy(self, number: signal.Signals) -> None:
        """A signal to the running Envoy."""
        assert self._envoy is not None
        self._envoy.send_signal(number)

    async def admin(self, path: str) -> str:
        """What Envoy's admin interface says."""
        reader, writer = await asyncio.open_unix_connection(self._socket("admin"))
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        return text

    def set_replicas(self, replicas: Mapping[str, Sequence[int]]) -> None:
        """Other replicas from now on."""
        self.replicas = replicas
        self._ads.set_snapshot(self._snapshot())

    async def _until_ready(self) -> None:
        ends = time.monotonic() + 30
        wanted = sum(len(ports) for ports in self.replicas.values()) + self.relays
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                seen = await self.admin("/clusters")
                healthy = [line for line in seen.splitlines() if line.endswith("::health_flags::healthy")]
                named = [line for line in healthy if line.startswith(("relay::", *self.replicas))]
                if len(named) >= wanted:
                    with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                        return
            await asyncio.sleep(0.05)
        raise AssertionError(f"the gateway did not become ready: {self.errors()}")

    def _snapshot(self) -> Snapshot:
        made = translate(self._input())
        resources = {name: unpacked(packed) for name, packed in made.types[LISTENER].resources}
        front = next(name for name in resources if name.startswith("gateway/"))
        resources[front] = to_message(_without_policy(to_json(resources[front])), listener_pb2.Listener())
        return Snapshot(types={**made.types, LISTENER: typed(resources)})

    def _input(self) -> GatewayInput:
        return GatewayInput(
            listeners=(ListenerPlan(address="127.0.0.1", port=self.port),),
            clusters=tuple(_cluster(name, ports) for name, ports in self.replicas.items()),
            policy_sockets=(self._socket("policy-0"),),
            certificate_chain_pem=self._certificates.chain_pem,
            private_key_pem=self._certificates.key_pem,
            access_log_path=str(self.root / "gateway" / "access.log"),
            rpc_socket=self._socket("rpc-0"),
            front_socket=self._socket("front"),
            queue_socket=self._socket("queue-0"),
            relay_sockets=tuple(self._socket(f"relay-{index}") for index in range(self.relays)),
            inner_socket=self._socket("inner"),
            inner_log_path=str(self.root / "gateway" / "inner.log"),
        )

    def _socket(self, name: str) -> str:
        return str(self.root / "run" / f"{name}.sock")


def _cluster(name: str, ports: Sequence[int]) -> ClusterPlan:
    service, revision = name.rsplit("/", 1)
    endpoints = (
        EndpointPlan(
            name=ReplicaName(service=service, revision=int(revision), index=index), address="127.0.0.1", port=port
        )
        for index, port in enumerate(ports)
    )
    return ClusterPlan(name=name, endpoints=tuple(endpoints))


def _without_policy(listener: dict[str, Any]) -> dict[str, Any]:
    for chain in listener["filter_chains"]:
        manager = chain["filters"][0]["typed_config"]
        manager.pop("early_header_mutation_extensions", None)
        manager["http_filters"] = [one for one in manager["http_filters"] if one["name"] not in (SMALL, HEAD, WHOLE)]
    return listener
