"""Changing the configuration under the real Envoy: nothing stalls, nothing is dropped, and a refusal is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import AsyncIterator, Awaitable, Callable

from envoy.config.cluster.v3 import cluster_pb2

from gonogo.gateway.ads import load_snapshot
from gonogo.gateway.resources.convert import unpacked
from gonogo.gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, SECRET, Snapshot, typed
from gonogo.gateway.translate import translate
from gonogo.security.certificates import ensure_certificates
from tests.free_ports import free_port
from tests.shell.edge_parts import KEY, Edge, Engine

CHAT = "/v1/chat/completions"


def at_the_edge(tmp_path: Path, story: Callable[[Edge], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Edge(tmp_path) as edge:
            await story(edge)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def load(edge: Edge, clients: int = 4) -> AsyncIterator[Counter[int]]:
    """A steady load of non-streamed requests on keep-alive connections; counts the statuses."""
    counted: Counter[int] = Counter()
    stop = asyncio.Event()

    async def ask() -> None:
        client = edge.client()
        while not stop.is_set():
            counted[(await client.send("POST", CHAT, KEY, b"{}")).status] += 1
        client.close()

    tasks = [asyncio.create_task(ask()) for _ in range(clients)]
    await asyncio.sleep(0.2)
    try:
        yield counted
        await asyncio.sleep(0.2)
    finally:
        stop.set()
        await asyncio.gather(*tasks)


def test_replicas_come_and_go_without_a_failed_request(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        first, second = edge.engines
        slow = asyncio.create_task(edge.ask("POST", CHAT, x_want="sleep 1"))
        async with load(edge) as counted:
            await edge.publish(clusters=(edge.cluster("svc/1", second.port),))
            assert (await slow).status == 200, "what was under way is finished, wherever it was"
            await asyncio.sleep(0.3)
            first.kill()
            third = Engine("third")
            edge.engines.append(third)
            await third.ready()
            await edge.publish(clusters=(edge.cluster("svc/1", second.port, third.port),))
            await edge.healthy(second.port, third.port)
            await edge.publish(clusters=(edge.cluster("svc/1", third.port),))
        assert set(counted) == {200}, counted
        assert counted[200] > 100
        assert json.loads((await edge.ask("POST", CHAT)).body)["engine"] == "third"

    at_the_edge(tmp_path, story)


def test_replicas_killed_in_turn_under_load_fail_no_request(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        async with load(edge, clients=8) as counted:
            for index in (0, 1, 0):
                dead = edge.engines[index]
                dead.kill()
                await asyncio.sleep(0.7)
                edge.engines[index] = Engine("next", dead.port)
                await edge.engines[index].ready()
                await asyncio.sleep(1)  # two health checks: what was ejected for its resets must be back by then
        assert set(counted) == {200}, counted
        assert counted[200] > 100

    at_the_edge(tmp_path, story)


def test_a_new_revision_beside_the_old_one_and_the_old_one_away_fail_no_request(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        first, second = edge.engines
        await edge.publish(clusters=(edge.cluster("svc/1", first.port),))
        async with load(edge) as counted:
            both = (edge.cluster("svc/1", first.port), edge.cluster("svc/2", second.port))
            assert await edge.publish(clusters=both) < 1.0
            await edge.healthy(first.port, second.port)
            new = await edge.ask("POST", f"{CHAT}?rev=svc/2")
            assert (new.status, json.loads(new.body)["engine"]) == (200, "second")
        assert set(counted) == {200}, counted
        assert await edge.publish(clusters=(edge.cluster("svc/2", second.port),)) < 1.0
        assert (await edge.ask("POST", f"{CHAT}?rev=svc/2")).status == 200
        assert (await edge.ask("POST", f"{CHAT}?rev=svc/1")).error["code"] == "no_revision"

    at_the_edge(tmp_path, story)


def test_a_changed_cluster_with_the_same_endpoints_is_acknowledged_at_once(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        before = translate(edge.given)
        clusters = {name: unpacked(packed) for name, packed in before.types[CLUSTER].resources}
        changed = clusters["svc/1"]
        assert isinstance(changed, cluster_pb2.Cluster)
        changed.connect_timeout.seconds = 2
        after = Snapshot(types={**before.types, CLUSTER: typed(clusters)})
        assert after.versions[ENDPOINTS] == before.versions[ENDPOINTS]
        async with load(edge) as counted:
            edge.ads.set_snapshot(after)
            assert await edge.acked() < 1.0
            active = "cluster_manager.warming_clusters: 0"
            ends = time.monotonic() + 1.0
            while active not in await edge.admin("/stats?filter=warming_clusters"):
                assert time.monotonic() < ends, "the cluster warms: its endpoints were not answered again"
        assert set(counted) == {200}, counted

    at_the_edge(tmp_path, story)


def test_a_refused_certificate_is_told_in_envoys_words_and_the_old_one_serves_on(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        good = edge.given
        other = ensure_certificates(tmp_path / "other", ["127.0.0.1"], time.time())
        edge.ads.set_snapshot(translate(replace(good, private_key_pem=other.key_pem)))
        await edge.until(lambda: edge.status_of(SECRET).nack is not None)
        refused = edge.status_of(SECRET)
        assert refused.nack is not None
        assert "KEY_VALUES_MISMATCH" in refused.nack, refused
        assert not refused.acked
        assert "PRIVATE KEY" not in refused.nack
        saved = load_snapshot(tmp_path / "snapshot.bin")
        assert saved is not None
        assert saved.versions == translate(good).versions, "what was refused is not kept for the next start"
        changes = edge.changes
        assert (await edge.ask("GET", "/healthz", None)).status == 200
        await asyncio.sleep(0.5)
        assert edge.changes == changes, "refused once, not for ever"
        await edge.publish(private_key_pem=good.private_key_pem)

    at_the_edge(tmp_path, story)


def test_a_port_that_is_taken_is_a_refusal_with_its_reason(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            wanted = replace(edge.given, listeners=(*edge.given.listeners, replace(edge.given.listeners[0], port=port)))
            edge.ads.set_snapshot(translate(wanted))
            await edge.until(lambda: edge.status_of(LISTENER).nack is not None)
            assert "Address already in use" in (edge.status_of(LISTENER).nack or "")
            assert (await edge.ask("GET", "/healthz", None)).status == 200
        wanted = replace(edge.given.listeners[0], port=free_port())
        await edge.publish(listeners=(*edge.given.listeners, wanted))

    at_the_edge(tmp_path, story)


def test_the_certificate_is_renewed_without_dropping_a_connection(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        renewed = ensure_certificates(tmp_path / "renewed", ["127.0.0.1"], time.time())
        assert renewed.ca_file is not None
        client = edge.client()
        assert (await client.send("GET", "/v1/models", KEY)).status == 200
        streams = client._streams
        async with load(edge) as counted:
            seconds = await edge.publish(certificate_chain_pem=renewed.chain_pem, private_key_pem=renewed.key_pem)
            assert seconds < 1.0
        assert set(counted) == {200}, counted
        assert (await client.send("GET", "/v1/models", KEY)).status == 200
        assert client._streams is streams, "the connection was kept"
        client.close()
        trust = ssl.create_default_context(cafile=str(renewed.ca_file))
        _, writer = await asyncio.open_connection("127.0.0.1", edge.port, ssl=trust)
        writer.close()
        assert "listener_modified: 0" in await edge.admin("/stats?filter=listener_modified")

    at_the_edge(tmp_path, story)


CHANGES = (
    "cluster_modified",
    "cluster_added",
    "cluster_removed",
    "listener_modified",
    "listener_added",
    "config_reload",
)


async def changes(edge: Edge) -> str:
    text = await edge.admin(f"/stats?filter=({'|'.join(CHANGES)})")
    return text[text.index("\r\n\r\n") :]


def test_a_control_process_that_dies_stops_nothing_and_the_next_one_changes_nothing(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        async with load(edge) as counted:
            before = await changes(edge)
            await edge.ads.stop()
            assert edge.ads.status() is None
            await asyncio.sleep(2)
            saved = load_snapshot(tmp_path / "snapshot.bin")
            assert saved is not None
            edge.ads = edge.new_ads()
            edge.ads.set_snapshot(saved)
            await edge.ads.start()
            assert await edge.acked() < 1.5
            assert await changes(edge) == before
        assert set(counted) == {200}, counted

    at_the_edge(tmp_path, story)


def test_an_envoy_that_was_killed_gets_everything_again(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        assert edge.envoy is not None
        edge.envoy.kill()
        edge.envoy.wait(10)
        await edge.until(lambda: edge.ads.status() is None)
        edge.start_envoy()
        assert await edge.acked() < 2.0
        await edge.healthy(*(engine.port for engine in edge.engines))
        assert (await edge.ask("POST", CHAT)).status == 200

    at_the_edge(tmp_path, story)


def test_with_a_full_disk_the_snapshot_is_not_kept_and_says_so_and_nothing_else_stops(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        (tmp_path / "snapshot.bin.new").mkdir()
        await edge.publish(clusters=(edge.cluster("svc/1", edge.engines[0].port),))
        assert edge.ads.save_error is not None
        (tmp_path / "snapshot.bin.new").rmdir()
        await edge.publish(clusters=(edge.cluster("svc/1", edge.engines[1].port),))
        assert edge.ads.save_error is None
        saved = load_snapshot(tmp_path / "snapshot.bin")
        assert saved is not None
        assert saved.versions == translate(edge.given).versions

    at_the_edge(tmp_path, story)
