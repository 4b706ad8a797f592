"""Limits of keys through the real Envoy, policy servers and Valkey: what clients are told, and that nothing is kept."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.shell.gateway_parts import Client, FakeEngine, Front, Reply
from tests.shell.policy_parts import Deployment
from tests.shell.valkey_parts import Valkey

CHAT = "/v1/chat/completions"
LIMIT_S = 20.0
HEALTHY = b"{}"


class Engine(FakeEngine):
    """Answers with its usage, 5 and 7 tokens, when `may_answer` is set. Its own rate limits are not the key's."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def _send(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        if body != HEALTHY:
            await self.may_answer.wait()
        body = b'{"ok":true,"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}'
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write((head + "x-ratelimit-limit-tokens: 1\r\n\r\n").encode() + body)
        await writer.drain()


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment.make(tmp_path)
    with Valkey(run=tmp_path / "run"):
        made.start(0)
        made.start(1)
        yield made
        made.close()


def front(deployment: Deployment, engine: Engine | None = None) -> Front:
    made = Front(deployment)
    made.engine = engine or Engine()
    return made


def chat(max_tokens: int = 4, **fields: Any) -> bytes:
    asked = {"model": "svc", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": max_tokens, **fields}
    return json.dumps(asked).encode()


async def ask(client: Client, key: str, max_tokens: int = 4, **fields: Any) -> Reply:
    return await client.send("POST", CHAT, key, chat(max_tokens, **fields))


def headers(reply: Reply) -> dict[str, str]:
    lines = reply.head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}


def told(reply: Reply) -> dict[str, str]:
    """What the client is told of its limits."""
    return {name: value for name, value in headers(reply).items() if name.startswith("x-ratelimit-")}


async def until(true: Any, what: str) -> float:
    """Wait for it; how long it took."""
    began = time.monotonic()
    while not await true():
        assert time.monotonic() - began < LIMIT_S, f"still not so: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def test_a_client_is_told_how_it_stands_and_refused_with_when_to_come_again(deployment: Deployment) -> None:
    limited = deployment.add_key(requests_per_minute=3, tokens_per_minute=10_000).text
    free = deployment.add_key().text

    async def run() -> None:
        async with front(deployment) as gateway:
            clients = [gateway.client() for _ in range(4)]
            await until(lambda: _let_in(clients[0], free), "the keys are known")
            replies = [await ask(client, limited) for client in clients]
            assert [one.status for one in replies] == [200, 200, 200, 429]
            first = told(replies[0])
            assert first["x-ratelimit-limit-requests"] == "3"
            assert first["x-ratelimit-remaining-requests"] == "2"
            assert first["x-ratelimit-limit-tokens"] == "10000", "the engine's own is taken away"
            assert first["x-ratelimit-reset-requests"] in ("1m0s", "1m1s")
            assert 0 < int(first["x-ratelimit-remaining-tokens"]) < 10_000
            assert told(replies[2])["x-ratelimit-remaining-requests"] == "0"
            refused = replies[3]
            error = json.loads(refused.body)["error"]
            assert (error["code"], error["type"], error["hop"]) == ("rate_limit_exceeded", "requests", "policy")
            assert "requests_per_minute" in error["message"] and error["request_id"]
            assert 1 <= int(headers(refused)["retry-after"]) <= 61
            assert set(told(refused)) == set(first)
            assert told(await ask(clients[0], free)) == {}
            for client in clients:
                client.close()

    asyncio.run(run())


async def _let_in(client: Client, key: str) -> bool:
    return (await ask(client, key)).status == 200


def test_tokens_are_taken_by_estimate_and_set_right_by_the_usage_in_the_log(deployment: Deployment) -> None:
    key = deployment.add_key(tokens_per_minute=1000).text

    async def run() -> None:
        engine = Engine()
        async with front(deployment, engine) as gateway:
            client, other = gateway.client(), gateway.client()
            await until(lambda: _let_in(client, key), "the key is known")

            async def left() -> int:
                return int(told(await ask(client, key, max_tokens=1))["x-ratelimit-remaining-tokens"])

            engine.may_answer.clear()
            seen = engine.requests
            asked = asyncio.create_task(ask(client, key, max_tokens=800))

            async def is_there() -> bool:
                return engine.requests > seen

            await until(is_there, "the large request is at the engine")
            refused = await ask(other, key, max_tokens=800)
            assert refused.status == 429 and json.loads(refused.body)["error"]["type"] == "tokens"
            engine.may_answer.set()
            large = await asked
            assert large.status == 200
            assert int(told(large)["x-ratelimit-remaining-tokens"]) < 200

            async def given_back() -> bool:
                return await left() > 500

            await until(given_back, "12 tokens were used, not 800")
            never = await ask(client, key, max_tokens=1001)
            assert never.status == 429 and "retry-after" not in headers(never)
            assert headers(never)["x-should-retry"] == "false"
            assert "too large" in json.loads(never.body)["error"]["message"]
            client.close()
            other.close()

    asyncio.run(run())


def test_a_place_is_free_again_when_the_answer_has_ended_and_when_the_client_went_away(deployment: Deployment) -> None:
    key = deployment.add_key(concurrent=1).text

    async def run() -> None:
        async with front(deployment) as gateway:
            client, other = gateway.client(), gateway.client()
            await until(lambda: _let_in(other, key), "the key is known")
            await until(lambda: _let_in(other, key), "the first request's place is free again")
            await until(lambda: _stream_begins(client, key), "a stream begins")
            refused = await ask(other, key)
            assert refused.status == 429, refused
            assert json.loads(refused.body)["error"]["code"] == "rate_limit_exceeded"
            assert headers(refused)["retry-after"] == "1"
            await until(lambda: _let_in(other, key), "the stream of two seconds has ended")
            client.close()
            await until(lambda: _stream_begins(client, key), "another stream begins")
            assert (await ask(other, key)).status == 429
            client.close()
            took_s = await until(lambda: _let_in(other, key), "the client went away")
            assert took_s < 1.8, "long before the stream would have ended"
            other.close()

    asyncio.run(run())


async def _stream_begins(client: Client, key: str) -> bool:
    """Send a request for a stream and read its head only."""
    if client._streams is None:
        client._streams = await asyncio.open_connection(
            "127.0.0.1", client._port, ssl=client._trust, server_hostname="localhost"
        )
    reader, writer = client._streams
    body = chat(stream=True)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " in answer.split(b"\r\n", 1)[0]:
        return True
    client.close()
    return False


def test_what_ended_while_every_policy_server_was_dead_is_free_when_they_are_back(deployment: Deployment) -> None:
    key = deployment.add_key(concurrent=1).text

    async def run() -> None:
        async with front(deployment) as gateway:
            client, other = gateway.client(), gateway.client()
            await until(lambda: _let_in(other, key), "the key is known")
            await until(lambda: _stream_begins(client, key), "a stream begins")
            for server in deployment.servers:
                server.kill()
            client.close()
            lines = gateway.access_log.read_bytes().count(b"\n")
            await until(lambda: _more_lines(gateway, lines), "the log tells of the end, and nobody reads it")
            for index in (0, 1):
                await asyncio.to_thread(deployment.start, index)
            await until(lambda: _let_in(other, key), "they hear of the end")
            other.close()

    asyncio.run(run())


async def _more_lines(gateway: Front, than: int) -> bool:
    return gateway.access_log.read_bytes().count(b"\n") > than


def test_requests_go_on_while_valkey_is_stopped_dead_and_back(tmp_path: Path) -> None:
    deployment = Deployment.make(tmp_path)
    key = deployment.add_key(requests_per_minute=1000, concurrent=100).text

    async def run(valkey: Valkey) -> None:
        async with front(deployment) as gateway:
            client = gateway.client()
            await until(lambda: _let_in(client, key), "the key is known")

            async def left() -> int:
                return int(told(await ask(client, key))["x-ratelimit-remaining-requests"])

            before = min([await left() for _ in range(40)])
            valkey.stop()
            waits = []
            for _ in range(20):
                began = time.monotonic()
                assert (await ask(client, key)).status == 200
                waits.append(time.monotonic() - began)
            assert sorted(waits)[-5] < 0.5, f"only who was the first to ask waits for it: {waits}"
            valkey.end()
            assert await left() > before, "each counts by itself, from nothing"
            await asyncio.to_thread(valkey.start)

            async def goes_on() -> bool:
                return await left() < before

            await until(goes_on, "it is counted there again, on top of what was")
            client.close()

    with Valkey(run=tmp_path / "run") as valkey:
        deployment.start(0)
        deployment.start(1)
        try:
            asyncio.run(run(valkey))
        finally:
            deployment.close()
    logs = "".join(server.log() for server in deployment.servers)
    assert logs.count("counts by itself") < 10 and "count together" in logs, "told each time, not for each request"
