"""A policy server hears of ends from the logs: each once at least, also after Valkey was away, and after a restart."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Sequence

import pytest

from gonogo.facts.request_record import LogPosition
from gonogo.gateway.access_log import rotate_log
from gonogo.gateway.policy.counters import End
from gonogo.gateway.policy.ends import Ends, end_of_request, end_of_stream
from gonogo.gateway.policy.valkey import Away

LINE: dict[str, Any] = {
    "attempts": 1,
    "request_id": "r",
    "time": "2026-11-26T09:53:59.554Z",
    "duration_ms": 212,
    "status": 200,
    "key_id": "k",
    "upstream_cluster": "svc/1",
    "prompt_tokens": 5,
    "completion_tokens": 7,
}
STREAM: dict[str, Any] = {
    "request_id": "r",
    "attempts": [],
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "status": "done",
}


def line(of: Mapping[str, Any] = LINE, **changes: Any) -> bytes:
    return json.dumps({**of, **changes}, separators=(",", ":")).encode()


def test_a_line_says_that_a_request_has_ended_and_what_it_used() -> None:
    assert end_of_request(line()) == End(request_id="r", tokens=12)
    assert end_of_request(line(status=503, completion_tokens=None)) == End(request_id="r", tokens=0)
    assert end_of_request(line(status=0, prompt_tokens=None)) == End(request_id="r", tokens=None)
    assert end_of_request(line(key_id=None)) is None, "refused by policy: nothing was counted, or it was given back"
    assert end_of_request(line(upstream_cluster="rpc", prompt_tokens=None)) is None, "its request has a line of its own"
    assert end_of_request(b"half a li") is None


def test_of_a_relayed_stream_the_place_is_free_at_once_and_the_tokens_come_from_the_relay() -> None:
    of_envoy = end_of_request(line(upstream_cluster="relay", prompt_tokens=None, completion_tokens=None))
    assert of_envoy == End(request_id="r", tokens=None, over=True, final=False)
    assert end_of_stream(line(STREAM)) == End(request_id="r", tokens=12)
    assert end_of_stream(line(STREAM, prompt_tokens=None)) == End(request_id="r", tokens=None)
    began = {"ttft_ms": 250.0, "cached_tokens": 4, "attempts": [{"replica": "svc/1/0", "tokens": 7, "end": "done"}]}
    assert end_of_stream(line(STREAM, **began)) == End(request_id="r", tokens=12, first_s=0.25, computed=0.2)
    twice = {**began, "attempts": began["attempts"] * 2}  # type: ignore[operator]
    assert end_of_stream(line(STREAM, **twice)) == End(request_id="r", tokens=12, computed=0.2), "of which replica?"
    refused = end_of_request(line(upstream_cluster="relay", status=502, prompt_tokens=None))
    assert refused == End(request_id="r", tokens=0)


@dataclass
class Kept:
    """Positions that are away when the test says so."""

    generation: int = 1
    positions: dict[str, LogPosition] = field(default_factory=dict)

    async def load(self) -> Mapping[str, LogPosition]:
        if not self.generation:
            raise Away("away")
        return dict(self.positions)

    async def keep(self, name: str, position: LogPosition) -> None:
        if not self.generation:
            raise Away("away")
        self.positions[name] = position


@dataclass
class Bench:
    folder: Path
    kept: Kept = field(default_factory=Kept)
    told: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "access.log"

    def write(self, *names: str) -> None:
        with self.log.open("ab") as file:
            file.writelines(line(request_id=name) + b"\n" for name in names)

    def ends(self) -> Ends:
        async def hear(ends: Sequence[End]) -> None:
            self.heard += [end.request_id for end in ends]

        return Ends(self.log, (self.folder / "relay-0.log",), self.kept, (hear,), self.told.append)

    async def read(self, ends: Ends) -> list[str]:
        """What is heard now."""
        self.heard.clear()
        while await ends.poll():
            pass
        return list(self.heard)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_was_before_the_first_start_is_passed_over_and_every_line_from_then_on_heard(bench: Bench) -> None:
    async def run() -> None:
        bench.write("before")
        ends = bench.ends()
        assert await bench.read(ends) == []
        bench.write("a", "b")
        assert await bench.read(ends) == ["a", "b"]
        rotate_log(bench.log, 0)
        bench.write("c")
        assert await bench.read(ends) == ["c"]
        (bench.folder / "relay-0.log").write_bytes(line(STREAM, request_id="d") + b"\n")
        assert await bench.read(ends) == ["d"]

    asyncio.run(run())


def test_a_server_that_begins_anew_hears_what_ended_while_there_was_none(bench: Bench) -> None:
    async def run() -> None:
        first = bench.ends()
        bench.write("a")
        assert await bench.read(first) == ["a"]
        bench.write("b")
        assert await bench.read(bench.ends()) == ["b"]

    asyncio.run(run())


def test_what_ended_while_valkey_was_away_is_heard_again_when_it_is_back(bench: Bench) -> None:
    async def run() -> None:
        ends = bench.ends()
        bench.write("a")
        assert await bench.read(ends) == ["a"]
        bench.kept.generation = 0
        bench.write("b")
        assert await bench.read(ends) == ["b"], "for what is counted here"
        bench.kept.generation = 2
        bench.write("c")
        assert await bench.read(ends) == ["b", "c"], "Valkey has not heard of b"
        assert await bench.read(ends) == []
        bench.kept.positions.clear()
        bench.kept.generation = 3
        bench.write("d")
        assert await bench.read(ends) == ["d"], "a Valkey that begins empty holds nothing that could end"

    asyncio.run(run())


def test_a_valkey_that_went_and_came_between_hearing_and_keeping_is_not_taken_to_have_heard(bench: Bench) -> None:
    async def run() -> None:
        bench.write("before")

        async def hear(ends: Sequence[End]) -> None:
            bench.heard.extend(end.request_id for end in ends)
            if bench.kept.generation == 1:
                bench.kept.generation = 2

        ends = Ends(bench.log, (), bench.kept, (hear,), bench.told.append)
        bench.write("a")
        await ends.poll()
        bench.write("b")
        assert await bench.read(ends) == ["a", "b"]

    asyncio.run(run())


def test_a_log_that_cannot_be_read_is_told_of_once_and_read_again_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        ends = bench.ends()
        bench.write("a")
        broken = True
        right = type(ends).poll

        async def poll(self: Ends) -> bool:
            if broken:
                raise PermissionError(13, "Permission denied")
            return await right(self)

        monkeypatch.setattr(Ends, "poll", poll)
        task = asyncio.create_task(ends.run())
        await asyncio.sleep(0.3)
        assert len(bench.told) == 1 and "Permission denied" in bench.told[0]
        broken = False
        for _ in range(200):
            await asyncio.sleep(0.02)
            if len(bench.told) == 2:
                break
        task.cancel()
        assert bench.heard == ["a"] and "read again" in bench.told[1]

    asyncio.run(run())
