"""Replicas that hang while their health checks pass, or before they answer at all: found, left, and not asked again."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Collection

import pytest
from aiohttp import web

from gonogo.gateway.relay import silence, watch
from gonogo.gateway.relay.machine import Machine
from gonogo.gateway.relay.replicas import Replicas, Wellness
from tests.core.paper_engines import PaperModel
from tests.free_ports import free_port
from tests.shell.in_loop import in_loop
from tests.shell.relay_parts import RelayedFront
from tests.shell.scripted_inner import ScriptedInner
from tests.shell.test_relay_behind_envoy import SCRIPT, TEXT, ask, events, until
from tests.shell.test_relay_streams import bench

PICK = "x-gateway-destination-endpoint"


def text_of(body: bytes) -> str:
    choices = (one for event in events(body) for one in event["choices"])
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@in_loop
async def test_a_replica_whose_computing_hangs_is_left_and_not_asked_again_though_its_health_checks_pass(
    tmp_path: Path,
) -> None:
    """Least-request alone would choose it for the continuation: no other has so few requests."""
    first, second = free_port(), free_port()
    async with (
        ScriptedInner(None, PaperModel(SCRIPT), ["hang after 4", *["hang after 0"] * 5], first) as hung,
        ScriptedInner(None, PaperModel(SCRIPT), ["fine"] * 5, second) as well,
        RelayedFront(tmp_path, {"svc/1": [first, second]}, relays=1) as front,
        front.session() as session,
    ):
        status, headers, body = await ask(front, session, **{PICK: f"127.0.0.1:{first}"})
        assert status == 200 and text_of(body) == TEXT
        record = await front.record_of(headers["x-request-id"])
        assert [one["end"] for one in record["attempts"]] == ["hung", "done"]
        for _ in range(3):
            status, _, body = await ask(front, session, **{PICK: f"127.0.0.1:{first},127.0.0.1:{second}"})
            assert status == 200 and text_of(body) == TEXT
        assert "failed" not in "".join(line for line in (await front.admin("/clusters")).split("\n") if "svc/1" in line)
        assert (len(hung.requests), len(well.requests)) == (1, 4)


class Told(Replicas):
    """Envoy's verdict as a test says it."""

    def __init__(self, wellness: Wellness) -> None:
        super().__init__(None)
        self.wellness = wellness

    async def of(self, replica: str | None) -> Wellness:
        return self.wellness

    async def at(self, endpoint: str) -> str | None:
        return {"127.0.0.1:1": "svc/1/0"}.get(endpoint)

    async def others(self, revision: str, than: Collection[str], rather_not: Collection[str]) -> tuple[str, ...]:
        assert revision == "svc/1" and "svc/1/0" in than
        return ("127.0.0.1:2", "127.0.0.1:3")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "UNHEALTHY_S", 0.3)
    monkeypatch.setattr(silence, "HEALTHY_S", 0.3)
    monkeypatch.setattr(watch, "LOOK_AFTER_S", 0.2)
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.05)


@in_loop
async def test_a_request_to_a_stopped_replica_that_has_not_answered_begins_again_elsewhere(
    tmp_path: Path, quick: None
) -> None:
    """llama-server sends not even a status before the first token."""
    told = Told(Wellness(healthy=False, elsewhere=True))
    async with bench(tmp_path, "fine", seen=told) as one:
        waiting = _never_at_first(one.inner)
        reply = await one.ask({PICK: "127.0.0.1:1,127.0.0.1:2"})
        assert reply.status == 200 and reply.text == TEXT
        assert waiting == ["127.0.0.1:1,127.0.0.1:2", "gone"]
        assert one.inner.headers[0][PICK] == "127.0.0.1:2,127.0.0.1:3"
        attempts = [(each["replica"], each["how"], each["end"]) for each in one.records[0]["attempts"]]
    assert attempts == [("svc/1/0", "first", "hung"), ("svc/1/0", "again", "done")]


@in_loop
async def test_a_long_prompt_is_waited_for_while_the_replica_is_well(tmp_path: Path, quick: None) -> None:
    told = Told(Wellness(healthy=True, elsewhere=True))
    async with bench(tmp_path, "fine", seen=told) as one:
        waiting = _never_at_first(one.inner)
        task = asyncio.create_task(one.ask({PICK: "127.0.0.1:1"}))
        await until(lambda: bool(waiting))
        await asyncio.sleep(1.0)
        assert not task.done()
        told.wellness = Wellness(healthy=False, elsewhere=True)
        assert (await task).text == TEXT


@in_loop
async def test_a_client_that_goes_away_before_an_answer_leaves_no_request_behind(tmp_path: Path) -> None:
    async with bench(tmp_path, "fine") as one:
        waiting = _never_at_first(one.inner)
        task = asyncio.create_task(one.ask())
        await until(lambda: bool(waiting))
        task.cancel()
        await until(lambda: "gone" in waiting and bool(one.records))
    assert one.records[0]["status"] == "cancelled"


def _never_at_first(inner: ScriptedInner) -> list[str | None]:
    """The first request gets no answer, and not even a status; what it was picked for, and whether it is gone."""
    seen: list[str | None] = []

    async def never(request: web.Request) -> web.StreamResponse:
        inner.instead = None
        seen.append(request.headers.get(PICK))
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("gone")
        raise AssertionError("nobody waited so long")

    inner.instead = never
    return seen


@pytest.mark.parametrize(("times_longer", "pauses", "hung"), [(1.0, 100, True), (5.0, 100, False), (1.0, 99, False)])
@in_loop
async def test_silence_is_judged_soon_on_a_machine_that_is_not_slow_and_of_a_replica_that_is_known(
    times_longer: float, pauses: int, hung: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (silence, watch):
        monkeypatch.setattr(module, "ALONE_S", 0.2)
    monkeypatch.setattr(watch, "LOOK_AFTER_S", 0.1)
    watching = watch.Watch(Told(Wellness(healthy=True, elsewhere=True)), Machine(lambda: times_longer))
    for _ in range(pauses):
        watching.gave("svc/1/0", 0.01)
    given_up: list[bool] = []
    wait = watch.Wait(since=time.monotonic(), replica="svc/1/0", begun=True, give_up=lambda: given_up.append(True))
    task = asyncio.create_task(watching.run())
    with watching.over(wait):
        if hung:
            await until(lambda: bool(given_up))
        else:
            await asyncio.sleep(0.8)
    task.cancel()
    assert (wait.hung, bool(given_up)) == (hung, hung)
