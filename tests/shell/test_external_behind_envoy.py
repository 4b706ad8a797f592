"""External replicas behind the real Envoy: names, certificates, Host headers, health, who gets the next request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Awaitable, Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gonogo.actions.model import ClusterPlan, ExternalPlan
from gonogo.facts.gateway_hosts import CLUSTERS_PATH, GatewayHost, parse_clusters
from gonogo.security.authority import Authority, issue_authority, issue_server
from gonogo.spec.gateway import Balancing
from gonogo.spec.replicas import server_of
from tests.shell.edge_parts import Edge
from tests.shell.outside_engine import OutsideEngine

CHAT = "/v1/chat/completions"


def external(*urls: str, ca_file: str | None = None, **changes: Any) -> ClusterPlan:
    path = changes.pop("health_path", "/health")
    plan = ExternalPlan(servers=tuple(map(server_of, urls)), health_path=path, ca_file=ca_file)
    return replace(ClusterPlan(name="svc/1", endpoints=(), external=plan), **changes)


async def hosts(edge: Edge) -> dict[str, GatewayHost]:
    """By hostname, what Envoy says of the members of svc/1."""
    text = await edge.admin(CLUSTERS_PATH)
    body = text.partition("\r\n\r\n")[2]
    clusters = parse_clusters(body[body.find("{") : body.rfind("}") + 1])
    assert clusters is not None, text
    return {one.hostname: one for one in clusters.get("svc/1", ())}


async def until_health(edge: Edge, wanted: dict[str, bool]) -> None:
    ends = time.monotonic() + 15
    while True:
        seen = {name: one.healthy for name, one in (await hosts(edge)).items()}
        if seen == wanted:
            return
        assert time.monotonic() < ends, f"{seen}, wanted {wanted}"
        await asyncio.sleep(0.05)


def at_the_edge(tmp_path: Path, story: Callable[[Edge], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Edge(tmp_path) as edge:
            await story(edge)

    asyncio.run(run())


async def shared(edge: Edge, count: int) -> Counter[str]:
    """Who answered how many of so many requests."""
    found: Counter[str] = Counter()
    for _ in range(count):
        answer = await edge.ask("POST", CHAT, body=b'{"max_tokens": 1}')
        assert answer.status == 200, answer.body
        found[json.loads(answer.body)["system_fingerprint"]] += 1
    return found


def certificate(folder: Path, name: str, *names: str) -> tuple[str, str, str]:
    """(CA, certificate, key): files of a server that is called `names`, of an authority of its own."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    authority = Authority(certificate=issue_authority(keys[0], time.time()), key=keys[0])
    leaf = issue_server(authority, keys[1], names, time.time())
    files = [folder / f"{name}.{kind}" for kind in ("ca", "crt", "key")]
    files[0].write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files[2].write_bytes(keys[1].private_bytes(*form))
    ca, crt, key = map(str, files)
    return ca, crt, key


def test_a_name_is_looked_up_an_address_is_not_and_each_gets_its_own_host_header(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        with OutsideEngine("m") as one, OutsideEngine("m") as two:
            named = f"localhost:{two.port}"
            urls = (one.url, f"http://{named}", "http://no-such-name.invalid:9")
            await edge.publish(clusters=(external(*urls, balancing=Balancing.ROUND_ROBIN),))
            await until_health(edge, {f"127.0.0.1:{one.port}": True, named: True})
            seen = set()
            for _ in range(6):
                answer = await edge.ask("POST", CHAT, body=b'{"max_tokens": 1}')
                seen.add((json.loads(answer.body)["system_fingerprint"], answer.headers["x-host"]))
            assert seen == {(f"port-{one.port}", f"127.0.0.1:{one.port}"), (f"port-{two.port}", named)}
            logged = await edge.logged(answer.headers["x-request-id"])
            assert logged["replica"] in (f"127.0.0.1:{one.port}", named), "by its hostname in Envoy's own list of hosts"

    at_the_edge(tmp_path, story)


def test_the_servers_certificate_must_lead_to_the_ca_and_be_of_the_name_in_its_url(tmp_path: Path) -> None:
    ca, crt, key = certificate(tmp_path, "right", "localhost", "127.0.0.1")
    other_ca, _, _ = certificate(tmp_path, "other", "localhost")
    _, wrong_crt, wrong_key = certificate(tmp_path, "wrong", "elsewhere.example")
    (tmp_path / "both.ca").write_text(Path(ca).read_text() + (tmp_path / "wrong.ca").read_text())

    async def story(edge: Edge) -> None:
        with (
            OutsideEngine("m", "--certificate", crt, "--key", key) as right,
            OutsideEngine("m", "--certificate", wrong_crt, "--key", wrong_key) as wrong,
        ):
            named, numbered = f"localhost:{right.port}", f"127.0.0.1:{right.port}"
            urls = (f"https://{named}", right.url)
            await edge.publish(clusters=(external(*urls, ca_file=ca),))
            await until_health(edge, {named: True, numbered: True})
            assert (await edge.ask("POST", CHAT, body=b'{"max_tokens": 1}')).status == 200
            await edge.publish(clusters=(external(*urls, ca_file=other_ca),))
            await until_health(edge, {named: False, numbered: False})
            assert (await edge.ask("POST", CHAT)).status == 503
            both = str(tmp_path / "both.ca")
            await edge.publish(clusters=(external(f"https://localhost:{wrong.port}", urls[0], ca_file=both),))
            await until_health(edge, {f"localhost:{wrong.port}": False, named: True})

    at_the_edge(tmp_path, story)


def test_a_path_without_which_a_server_would_seem_dead_can_be_said(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        with OutsideEngine("m", "--no-health") as bare:
            await edge.publish(clusters=(external(bare.url),))
            await until_health(edge, {f"127.0.0.1:{bare.port}": False})
            await edge.publish(clusters=(external(bare.url, health_path="/v1/models"),))
            await until_health(edge, {f"127.0.0.1:{bare.port}": True})
            assert (await edge.ask("POST", CHAT, body=b'{"max_tokens": 1}')).status == 200

    at_the_edge(tmp_path, story)


@pytest.mark.parametrize(
    ("balancing", "even"),
    [(Balancing.ROUND_ROBIN, True), (Balancing.RANDOM, False), (Balancing.LEAST_REQUEST, False)],
)
def test_requests_are_shared_out_as_the_spec_says(tmp_path: Path, balancing: Balancing, even: bool) -> None:
    async def story(edge: Edge) -> None:
        with OutsideEngine("m") as one, OutsideEngine("m") as two:
            await edge.publish(clusters=(external(one.url, two.url, balancing=balancing),))
            await until_health(edge, {f"127.0.0.1:{each.port}": True for each in (one, two)})
            found = await shared(edge, 40)
            assert set(found) == {f"port-{one.port}", f"port-{two.port}"}
            if even:  # two workers, each with a rota of its own
                assert abs(found[f"port-{one.port}"] - 20) <= 2, found

    at_the_edge(tmp_path, story)


def test_a_server_that_cannot_be_reached_costs_the_connect_timeout_and_no_request(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        with OutsideEngine("m") as one, contextlib.ExitStack() as stack:
            # a listening socket whose backlog is full takes no more connections: SYNs are dropped, as by a firewall
            full = stack.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    waiting.connect(full.getsockname())
            lost = f"http://127.0.0.1:{full.getsockname()[1]}"
            await edge.publish(clusters=(external(one.url, lost, connect_timeout_s=0.2),))
            await until_health(edge, {f"127.0.0.1:{one.port}": True, server_of(lost).authority: False})
            assert set(await shared(edge, 10)) == {f"port-{one.port}"}

    at_the_edge(tmp_path, story)
