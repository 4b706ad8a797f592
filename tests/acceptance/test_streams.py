"""Streams survive the death of a replica: real llama.cpp, Envoy and relays, killed and stopped under load.

The full drill, with its numbers, is `benchmarks/streams.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import time
import urllib.request
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, AsyncIterator

import aiohttp

from tests.acceptance.conftest import LONG
from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.stream_verdict import judge, traces
from tests.acceptance.stream_wishes import CHAT, Wish, wishes
from tests.acceptance.streams import Pace, Replica, blows, load, stream
from tests.acceptance.test_failures import replicas as replicas_of
from tests.free_ports import free_port
from tests.shell.in_loop import LIMIT_S, in_loop
from tests.shell.relay_parts import RelayedFront

COUNT = 300 if LONG else 32
STORY = Wish(
    "greedy",
    CHAT,
    {
        "model": "m",
        "messages": [{"role": "user", "content": "Tell me a long story about a cat."}],
        "temperature": 0,
        "max_tokens": 60,
        "stream": True,
        "stream_options": {"include_usage": True},
    },
)


@dataclass
class Yard:
    front: RelayedFront
    replicas: list[Replica]

    async def busy(self) -> Replica:
        """The replica that works on something."""
        for _ in range(500):
            for replica in self.replicas:
                if await asyncio.to_thread(_running, replica.port):
                    return replica
            await asyncio.sleep(0.02)
        raise AssertionError("no replica works")


@asynccontextmanager
async def yard(root: Path) -> AsyncIterator[Yard]:
    """Two replicas behind Envoy and two relays that write down what was said."""
    async with AsyncExitStack() as stack:
        both = [Replica(free_port(), root / f"replica-{index}.log") for index in range(2)]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for replica in both:
            replica.start()
            stack.callback(replica.end)
        for replica in both:
            await replica.ready(session)
        front = RelayedFront(root, {"m/1": [replica.port for replica in both]}, traced=True)
        yield Yard(await stack.enter_async_context(front), both)


def _running(port: int) -> int:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    found = re.search(r"^llamacpp:requests_processing (\d+)", text, re.MULTILINE)
    return int(found.group(1)) if found else 0


async def after_some(session: aiohttp.ClientSession, front: RelayedFront, wish: Wish, tokens: int) -> Any:
    """The task of a stream that has given so many pieces."""
    seen = asyncio.Event()
    task = asyncio.create_task(
        stream(session, front, wish, told=lambda got: seen.set() if got.pieces >= tokens else None)
    )
    await asyncio.wait_for(seen.wait(), LIMIT_S)
    return task


def test_replicas_are_killed_and_stopped_under_load_and_every_stream_comes_whole(tmp_path: Path) -> None:
    async def drill() -> None:
        async with yard(tmp_path) as one:
            pace = Pace()
            striking = asyncio.create_task(blows(one.replicas, pace, random.Random(5), (60, 240)))
            got = await load(one.front, wishes(7), at_once=4, count=COUNT, told=pace.told)
            striking.cancel()
            struck = await striking
            async with aiohttp.ClientSession() as session:
                for replica in one.replicas:
                    await replica.ready(session)
            records = {record["request_id"]: record for record in one.front.records()}
            verdict = await judge(got, records, traces(tmp_path), one.replicas[0].port)
        assert len(got) == COUNT and struck
        lost = [answer for answer in got if answer.wish.continues and not answer.whole]
        assert not lost, (lost, [records.get(answer.request_id) for answer in lost])
        assert all(answer.whole or answer.clean_error for answer in got)
        assert not verdict.wrong
        assert verdict.exact, "no stream was cut: the drill proved nothing"

    asyncio.run(asyncio.wait_for(drill(), 900 if LONG else 240))


@in_loop
async def test_a_hung_replica_stalls_a_stream_and_does_not_end_it(tmp_path: Path) -> None:
    async with yard(tmp_path) as one, one.front.session() as session:
        task = await after_some(session, one.front, STORY, 10)
        (await one.busy()).send(signal.SIGSTOP)
        got = await task
        assert got.whole and got.usage["completion_tokens"] == 60
        record = await one.front.record_of(got.request_id)
    assert [attempt["end"] for attempt in record["attempts"]] == ["hung", "done"]
    assert record["attempts"][1]["how"] == "ids"


@in_loop
async def test_a_client_that_goes_away_frees_its_slot_at_once(tmp_path: Path) -> None:
    async with yard(tmp_path) as one, one.front.session() as session:
        task = await after_some(session, one.front, STORY, 10)
        busy = await one.busy()
        task.cancel()
        began = time.monotonic()
        while await asyncio.to_thread(_running, busy.port):
            assert time.monotonic() - began < 5, "the engine goes on for nobody"
            await asyncio.sleep(0.02)
        for _ in range(100):
            if one.front.records():
                break
            await asyncio.sleep(0.05)
        (record,) = one.front.records()
    assert record["status"] == "cancelled" and record["completion_tokens"] < 60


@in_loop
async def test_with_both_replicas_dead_the_stream_ends_with_an_error_that_can_be_read(tmp_path: Path) -> None:
    async with yard(tmp_path) as one, one.front.session() as session:
        task = await after_some(session, one.front, STORY, 10)
        for replica in one.replicas:
            replica.end()
        got = await task
        later = await stream(session, one.front, STORY)
    assert got.clean_error and got.error == "replica_lost" and got.text
    assert later.clean_error and later.status == 503


@in_loop
async def test_relays_killed_in_turn_under_load_end_streams_with_an_error_that_can_be_read(tmp_path: Path) -> None:
    async with yard(tmp_path) as one:
        asked = (Wish(STORY.kind, CHAT, {**STORY.body, "max_tokens": 24}) for _ in range(20))
        loading = asyncio.create_task(load(one.front, asked, at_once=4, count=20))
        for index in (0, 1):
            await asyncio.sleep(1.0)
            one.front.processes[index].kill()
            one.front.processes[index].wait(10)
            await asyncio.sleep(0.5)
            one.front.processes[index] = one.front.start_relay(index)
        got = await loading
    assert all(answer.whole or answer.clean_error for answer in got), [answer for answer in got if not answer.whole]
    assert {answer.error for answer in got} <= {None, "relay_lost", "relay_unavailable"}


def test_through_the_front_door_a_stream_survives_its_replica_and_the_replica_comes_back(deployed: Deployment) -> None:
    asked = {
        **STORY.body,
        "model": deployed.last_up["services"][0] if "services" in deployed.last_up else "smollm2-135m",
    }
    wait_for(lambda: len(replicas_of(deployed)) == 2, 20, "two replicas are ready")
    before = replicas_of(deployed)
    pieces, text, killed = 0, "", ""
    with deployed.client() as client, client.stream("POST", CHAT, json=asked) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            text += line + "\n"
            pieces += line.startswith("data: {")
            if pieces == 8 and not killed:
                killed = next(name for name, one in before.items() if _running(one["port"]))
                os.kill(before[killed]["pid"], signal.SIGKILL)
    assert killed and text.rstrip().endswith("data: [DONE]") and "error" not in text
    usage = [json.loads(line[6:])["usage"] for line in text.splitlines() if '"usage"' in line]
    assert [one["completion_tokens"] for one in usage] == [60]
    lines = [
        line for log in (deployed.state_dir / "gateway").glob("relay-*.log") for line in log.read_text().splitlines()
    ]
    (record,) = [one for one in map(json.loads, lines) if one["continued"]]
    assert record["attempts"][0]["replica"] == killed and record["attempts"][0]["end"] == "died"
    assert record["attempts"][1]["how"] == "ids" and record["status"] == "done"
    wait_for(
        lambda: replicas_of(deployed).get(killed, before[killed])["pid"] != before[killed]["pid"], 30, "it is replaced"
    )
