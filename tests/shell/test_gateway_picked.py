"""Where a request goes that policy picked replicas for, with the real Envoy: there, to the next, or to the idlest."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from tests.free_ports import free_port
from tests.shell.edge_parts import Edge, Engine
from tests.shell.test_gateway_edge import CHAT, at_the_edge


def picked(endpoints: str) -> str:
    """The path of a request for which policy picks these."""
    return f"{CHAT}?pick={quote(endpoints, safe='')}"


async def engine_of(edge: Edge, pick: str | None = None, **headers: str) -> str:
    """Who answered; a refusal fails."""
    path = CHAT if pick is None else picked(pick)
    answer = await edge.ask("POST", path, body=b"{}", **headers)
    assert answer.status == 200, answer
    return str(json.loads(answer.body)["engine"])


def test_the_picked_replica_gets_it_and_never_sees_that_it_was_picked(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        first, second = (f"127.0.0.1:{engine.port}" for engine in edge.engines)
        for _ in range(10):
            assert await engine_of(edge, first) == "first"
            assert await engine_of(edge, second) == "second"
            assert await engine_of(edge, f"{second},{first}") == "second"
        answer = await edge.ask("POST", picked(first), body=b"{}")
        assert "x-gateway-destination-endpoint" not in {name.lower() for name in json.loads(answer.body)["headers"]}

    at_the_edge(tmp_path, story)


def test_a_picked_one_that_is_dead_is_passed_over_for_the_next_of_the_list(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        first, second = (f"127.0.0.1:{engine.port}" for engine in edge.engines)
        edge.engines[0].kill()
        # At once, before a health check has noticed, and again after.
        for _ in range(20):
            assert await engine_of(edge, f"{first},{second}") == "second"
        await asyncio.sleep(2)
        assert await engine_of(edge, f"{first},{second}") == "second"
        assert await engine_of(edge, first) == "second"

    at_the_edge(tmp_path, story)


def test_one_that_is_reset_in_flight_is_repeated_on_the_next_of_the_list_and_on_no_other(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        edge.engines.append(Engine("third"))
        await edge.engines[2].ready()
        await edge.publish(clusters=(edge.cluster("svc/1", *(engine.port for engine in edge.engines)),))
        await edge.healthy(*(engine.port for engine in edge.engines))
        first, second, third = (f"127.0.0.1:{engine.port}" for engine in edge.engines)
        to_third = [asyncio.create_task(engine_of(edge, f"{first},{third}", x_want="sleep 2")) for _ in range(8)]
        to_second = [asyncio.create_task(engine_of(edge, f"{first},{second}", x_want="sleep 2")) for _ in range(8)]
        await asyncio.sleep(1)
        edge.engines[0].kill()
        assert await asyncio.gather(*to_third) == ["third"] * 8
        assert await asyncio.gather(*to_second) == ["second"] * 8

    at_the_edge(tmp_path, story)


def test_a_host_that_is_none_of_the_revision_is_not_obeyed(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        for wrong in (f"127.0.0.1:{free_port()}", "not an address", "127.0.0.1", ",", "10.0.0.1:80,127.0.0.1:1"):
            assert await engine_of(edge, wrong) in ("first", "second")
        known = f"127.0.0.1:{edge.engines[1].port}"
        assert await engine_of(edge, f"127.0.0.1:{free_port()},{known}") in ("first", "second")

    at_the_edge(tmp_path, story)


def test_where_policy_says_nothing_the_one_with_the_fewest_requests_gets_it(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        first = f"127.0.0.1:{edge.engines[0].port}"
        busy = [asyncio.create_task(engine_of(edge, first, x_want="sleep 3")) for _ in range(4)]
        await asyncio.sleep(0.7)
        seen = Counter([await engine_of(edge) for _ in range(20)])
        # Of two hosts drawn, with repetition, the one with fewer requests wins: one draw in four is the busy one twice.
        assert seen["second"] > seen["first"], seen
        await asyncio.gather(*busy)

    at_the_edge(tmp_path, story)


def test_with_every_replica_dead_it_is_refused_once_and_not_sent_to_a_dead_one_for_ever(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        picks = ",".join(f"127.0.0.1:{engine.port}" for engine in edge.engines)
        for engine in edge.engines:
            engine.kill()
        answer = await asyncio.wait_for(edge.ask("POST", picked(picks), body=b"{}"), 10)
        assert answer.status == 503, answer

    at_the_edge(tmp_path, story)
