"""What engines say of themselves: who counts as full, what policy makes of it, and that old words are not believed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gonogo.control.engine_facts import FullEngines
from gonogo.engines.model import Progress
from gonogo.gateway.policy.engine_facts import FRESH_S, EngineFacts, packed, unpacked, with_facts
from gonogo.gateway.policy.ledger import MemoryLedger
from gonogo.gateway.policy.placing import Clocks, Place, Placing
from gonogo.gateway.policy.replicas import ReplicaSeen
from gonogo.gateway.policy.room import room_of
from gonogo.gateway.policy.rules import VLLM, ServiceRules
from tests.core.test_gate_limits import REQUEST

A, B = "127.0.0.1:9001", "127.0.0.1:9002"
SEEN = tuple(ReplicaSeen(endpoint=endpoint, healthy=True, active=0) for endpoint in (A, B))
NOW = 1_700_000_000.0


def progress(waiting: int = 0, cache_used: float | None = None) -> Progress:
    return Progress(
        tokens_generated=1, prompt_tokens=1, requests_running=1, requests_waiting=waiting, cache_used=cache_used
    )


class Control:
    """Control's side, whose monotonic clock the test moves; Unix time is `NOW` where that is 100."""

    def __init__(self) -> None:
        self.at = 100.0
        self.full = FullEngines(clock=lambda: NOW + self.at - 100, monotonic=lambda: self.at)

    def read(self, *readings: Progress) -> dict[str, EngineFacts]:
        """One reading a second of the engine at `A`."""
        found: dict[str, EngineFacts] = {}
        for one in readings:
            found = self.full.among({A: (self.at, one)})
            self.at += 1.0
        return found


def test_a_queue_that_does_not_empty_is_told_and_one_that_does_is_not() -> None:
    assert Control().read(progress(3)) == {}, "one reading: it may be waiting for the next step"
    assert Control().read(progress(3), progress(0)) == {}
    assert Control().read(progress(0), progress(3)) == {}
    assert Control().read(progress(3), progress(2))[A].waiting == 2


def test_a_reading_that_is_looked_at_twice_is_one_reading() -> None:
    control = Control()
    reading = {A: (control.at, progress(3))}
    assert control.full.among(reading) == control.full.among(reading) == {}


@pytest.mark.parametrize(("used", "told"), [(None, False), (0.5, False), (0.94, False), (0.95, True), (1.0, True)])
def test_a_cache_is_told_when_it_is_full(used: float | None, told: bool) -> None:
    assert (A in Control().read(progress(cache_used=used))) is told


def test_an_engine_that_was_not_read_for_a_while_says_nothing() -> None:
    control = Control()
    read_at = control.at
    control.at += FRESH_S + 0.1
    assert control.full.among({A: (read_at, progress(cache_used=1.0))}) == {}


def test_what_is_told_names_the_moment_of_the_reading() -> None:
    control = Control()
    control.at += 2.0
    told = control.full.among({A: (100.5, progress(cache_used=1.0))})
    assert told[A].at == NOW + 0.5


FULL = EngineFacts(waiting=2, cache_used=0.97, at=NOW)


@pytest.mark.parametrize(
    ("age_s", "believed"), [(0.0, True), (FRESH_S - 0.1, True), (FRESH_S + 0.1, False), (-0.5, True), (-2.0, False)]
)
def test_what_is_older_than_three_seconds_is_not_believed(age_s: float, believed: bool) -> None:
    first, second = with_facts(SEEN, {A: FULL}, NOW + age_s)
    assert (first.waiting, first.cache_used) == ((2, 0.97) if believed else (0, None))
    assert second == SEEN[1], "nothing was told of it"


def test_what_is_kept_reads_as_it_was_written_and_anything_else_as_nothing() -> None:
    assert unpacked(packed({A: FULL, B: replace(FULL, cache_used=None)}).encode()) == {
        A: FULL,
        B: replace(FULL, cache_used=None),
    }
    for value in (None, b"", b"[]", b"no JSON", b'{"a": 1}', b'{"a": [1]}', b'{"a": [null, 0, 0]}', b'"text"'):
        assert unpacked(value) == {}, value


def ordered(*seen: ReplicaSeen, prefix: tuple[int, ...] = ()) -> tuple[str, ...]:
    rules = ServiceRules(engine=VLLM, context_tokens=4096, concurrent_requests=4, replicas=2)
    place = Place(rules=rules, seen=seen, room=room_of(rules, len(seen)))
    clocks = Clocks(monotonic=lambda: 0.0, wall=lambda: NOW)
    placing = Placing("svc/1", MemoryLedger(lambda: NOW), clocks)
    placing._memory.enter(A, prefix)
    return asyncio.run(placing.order(place, replace(REQUEST, prompt_tokens=640, prefix=prefix)))


@pytest.mark.parametrize("full", [{"waiting": 1}, {"cache_used": 0.96}])
def test_a_full_engine_comes_last_whatever_it_has_cached(full: dict[str, Any]) -> None:
    prefix = tuple(range(10))
    assert ordered(*SEEN, prefix=prefix) == (A, B)
    assert ordered(replace(SEEN[0], **full), SEEN[1], prefix=prefix) == (B, A)
