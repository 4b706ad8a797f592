"""Admission through the real Envoy, policy servers and Valkey, in front of an engine that counts what it is given."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator

import pytest

from tests.shell.gateway_parts import FakeEngine, Front, Reply
from tests.shell.policy_parts import Deployment
from tests.shell.valkey_parts import Valkey

CHAT = "/v1/chat/completions"
SLOTS = 4
"""Of the only replica: a spec expects four requests at the same time."""
LIMIT_S = 30.0


class Engine(FakeEngine):
    """Takes `takes_s` for an answer, and knows how many it had at the same time."""

    takes_s = 0.2
    now = most = answered = 0

    async def _send(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        if body == b"{}":  # a health check
            await super()._send(writer, body)
            return
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.now -= 1
        self.answered += 1
        await super()._send(writer, body)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment.make(tmp_path)
    with Valkey(run=tmp_path / "run"):
        made.start(0)
        made.start(1)
        yield made
        made.close()


def behind_envoy(deployment: Deployment, story: Callable[[Front, Engine], Awaitable[None]]) -> None:
    async def run() -> None:
        front, engine = Front(deployment), Engine()
        front.engine = engine
        async with front:
            await asyncio.sleep(0.5)  # until both policy servers have looked at Envoy's clusters
            await story(front, engine)

    asyncio.run(run())


def body(**fields: Any) -> bytes:
    asked = {"model": "svc", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16, **fields}
    return json.dumps(asked).encode()


async def ask(front: Front, key: str, **fields: Any) -> Reply:
    client = front.client()
    try:
        return await client.send("POST", CHAT, key, body(**fields))
    finally:
        client.close()


async def until(true: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < ends, what
        await asyncio.sleep(0.02)


def test_a_replica_gets_as_many_requests_as_it_has_slots_and_the_rest_wait_and_are_answered(
    deployment: Deployment,
) -> None:
    key = deployment.add_key().text

    async def story(front: Front, engine: Engine) -> None:
        replies = await asyncio.gather(*(ask(front, key) for _ in range(24)))
        assert [reply.status for reply in replies] == [200] * 24
        assert engine.most <= SLOTS
        assert engine.answered == 24, "none twice"

    behind_envoy(deployment, story)


def test_a_client_that_goes_away_while_it_waits_is_never_sent_on(deployment: Deployment) -> None:
    key = deployment.add_key().text

    async def story(front: Front, engine: Engine) -> None:
        engine.takes_s = 2.0
        first = [asyncio.create_task(ask(front, key)) for _ in range(SLOTS)]
        await until(lambda: engine.now == SLOTS, "the slots are taken")
        gone = [asyncio.create_task(ask(front, key)) for _ in range(8)]
        await asyncio.sleep(0.5)
        for task in gone:
            task.cancel()
        last = asyncio.create_task(ask(front, key))
        assert [reply.status for reply in await asyncio.gather(*first, last)] == [200] * (SLOTS + 1)
        assert engine.answered == SLOTS + 1

    behind_envoy(deployment, story)


def test_nothing_is_held_once_all_has_ended_however_it_ended(deployment: Deployment) -> None:
    key = deployment.add_key().text

    async def story(front: Front, engine: Engine) -> None:
        for _ in range(3):
            tasks = [asyncio.create_task(ask(front, key, stream=bool(number % 2))) for number in range(12)]
            await asyncio.sleep(0.3)
            for task in tasks[::3]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        began = time.monotonic()
        replies = await asyncio.gather(*(ask(front, key) for _ in range(SLOTS)))
        assert [reply.status for reply in replies] == [200] * SLOTS
        assert time.monotonic() - began < 10, "nobody waited for room that nobody has"

    behind_envoy(deployment, story)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_policy_server_that_goes_while_requests_wait_loses_and_doubles_none(
    deployment: Deployment, number: signal.Signals
) -> None:
    key = deployment.add_key().text

    async def story(front: Front, engine: Engine) -> None:
        tasks = [asyncio.create_task(ask(front, key)) for _ in range(24)]
        await until(lambda: engine.answered >= SLOTS, "the first ones are answered")
        deployment.servers[0].process.send_signal(number)
        replies = await asyncio.gather(*tasks)
        assert [reply.status for reply in replies] == [200] * 24
        assert engine.answered == 24
        assert engine.most <= SLOTS

    behind_envoy(deployment, story)
