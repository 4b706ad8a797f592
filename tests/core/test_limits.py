"""The limits of a key: never more than the limit in any window, whatever the clock does; and what a client is told."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.gateway.policy.counters import HOLD_MS, End, LocalCounters, Taken, Taking
from gonogo.gateway.policy.limits import (
    CONCURRENT,
    NEVER_MS,
    WINDOWS,
    Clock,
    Standing,
    refusal,
    reply_headers,
    span,
    tick,
)
from tests.core.limit_histories import Ask, Finish, Pass, Step, histories, limits

LENGTH_MS = {name: window.step_ms * window.steps for name, window in WINDOWS.items()}


class Bench:
    """Counters on a clock that the test moves: `real_ms` passes, and the wall clock may be set."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.real_ms = now_ms
        self.wall_ms = now_ms
        self.clock = Clock(wall_ms=now_ms)
        self._asked_at = now_ms
        self.counters = LocalCounters(self._now)
        self.asked: list[tuple[str, int, bool]] = []

    def _now(self) -> int:
        self.clock = tick(self.clock, self.wall_ms, self.real_ms - self._asked_at)
        self._asked_at = self.real_ms
        return self.clock.now_ms

    def take(self, of: Mapping[str, int], tokens: int = 1, request_id: str | None = None) -> Taken:
        name = request_id or f"r{len(self.asked)}"
        taking = Taking(request_id=name, key_id="k", limits=of, tokens=tokens)
        taken = asyncio.run(self.counters.take(taking))
        self.asked.append((name, tokens, taken.admitted))
        return taken

    def finish(self, request_id: str, tokens: int | None = None, over: bool = True, final: bool = True) -> None:
        asyncio.run(self.counters.finish([End(request_id=request_id, tokens=tokens, over=over, final=final)]))

    def asked_at(self, step: Finish) -> tuple[str, int, bool]:
        return self.asked[step.request % len(self.asked)]

    def step(self, of: Mapping[str, int], step: Step) -> Taken | None:
        if isinstance(step, Ask):
            return self.take(of, step.tokens)
        if isinstance(step, Pass):
            self.real_ms += step.ms
            self.wall_ms += step.ms + step.leap_ms
        elif self.asked:
            self.finish(self.asked_at(step)[0], step.tokens, step.over, step.final)
        return None


def most_in_a_window(events: list[tuple[int, int]], length_ms: int) -> int:
    """The largest sum of amounts that lie within less than `length_ms`, wherever that begins."""
    inside: deque[tuple[int, int]] = deque()
    total = most = 0
    for at, amount in events:
        inside.append((at, amount))
        total += amount
        while inside[0][0] <= at - length_ms:
            total -= inside.popleft()[1]
        most = max(most, total)
    return most


@given(limits, histories)
@settings(max_examples=400, deadline=None)
def test_no_window_holds_more_than_its_limit_whatever_the_clock_does(of: Mapping[str, int], steps: list[Step]) -> None:
    """Real time counts, not what the clock says; and what was let in counts as it was estimated."""
    bench = Bench()
    requests: list[tuple[int, int]] = []
    tokens: list[tuple[int, int]] = []
    for step in steps:
        if isinstance(step, Finish):
            continue  # a refund makes room: the next test
        taken = bench.step(of, step)
        if taken is not None and taken.admitted:
            requests.append((bench.real_ms, 1))
            tokens.append((bench.real_ms, step.tokens if isinstance(step, Ask) else 0))
    for name, limit in of.items():
        if name in WINDOWS:
            events = tokens if WINDOWS[name].unit == "tokens" else requests
            assert most_in_a_window(events, LENGTH_MS[name]) <= limit


@given(st.integers(1, 3), st.lists(st.sampled_from((0, 100, 900, 59_100, 59_900)), max_size=30))
@settings(max_examples=500, deadline=None)
def test_no_window_holds_more_where_its_ends_lie_in_the_middle_of_a_step(limit: int, pauses: list[int]) -> None:
    bench, admitted = Bench(), []
    for ms in pauses:
        bench.step({}, Pass(ms=ms))
        if bench.take({"requests_per_minute": limit}).admitted:
            admitted.append((bench.real_ms, 1))
    assert most_in_a_window(admitted, 60_000) <= limit


@given(limits, histories)
@settings(max_examples=300, deadline=None)
def test_what_was_really_used_stays_in_the_limit_where_no_request_uses_more_than_it_said(
    of: Mapping[str, int], steps: list[Step]
) -> None:
    bench = Bench()
    real: dict[str, list[int]] = {}
    for step in steps:
        if isinstance(step, Finish) and bench.asked:
            name, estimate, admitted = bench.asked_at(step)
            used = min(step.tokens, estimate) if step.tokens is not None else None
            bench.finish(name, used, over=step.over, final=True)
            if admitted and used is not None and len(real[name]) == 2:
                real[name] = [real[name][0], used, 1]
        elif not isinstance(step, Finish):
            taken = bench.step(of, step)
            if taken is not None and taken.admitted and isinstance(step, Ask):
                real[bench.asked[-1][0]] = [bench.real_ms, step.tokens]
    events = [(one[0], one[1]) for one in real.values()]
    for name, limit in of.items():
        if name in WINDOWS and WINDOWS[name].unit == "tokens":
            assert most_in_a_window(events, LENGTH_MS[name]) <= limit


@given(limits, histories)
@settings(max_examples=300, deadline=None)
def test_no_more_are_answered_at_once_than_may_be_and_a_place_is_lost_to_nobody(
    of: Mapping[str, int], steps: list[Step]
) -> None:
    bench = Bench()
    of = {**of, CONCURRENT: of.get(CONCURRENT, 2)}
    running: dict[str, int] = {}
    for step in steps:
        taken = bench.step(of, step)
        running = {name: at for name, at in running.items() if bench.clock.now_ms - at < HOLD_MS}
        if isinstance(step, Finish) and (step.over or step.final) and bench.asked:
            running.pop(bench.asked_at(step)[0], None)
        if taken is not None and taken.admitted:
            running[bench.asked[-1][0]] = bench.clock.now_ms
            assert len(running) <= of[CONCURRENT]
        elif taken is not None and {one.name for one in taken.standings if one.wait_ms is not None} == {CONCURRENT}:
            assert len(running) == of[CONCURRENT], "it was refused for requests that still run"


@given(limits, histories)
@settings(max_examples=200, deadline=None)
def test_who_waits_as_long_as_was_said_is_let_in(of: Mapping[str, int], steps: list[Step]) -> None:
    bench = Bench()
    for step in steps:
        if isinstance(step, Finish):
            continue
        taken = bench.step({name: limit for name, limit in of.items() if name != CONCURRENT}, step)
        if taken is None or taken.admitted or not isinstance(step, Ask):
            continue
        waits = [one.wait_ms for one in taken.standings if one.wait_ms is not None]
        if NEVER_MS in waits:
            assert any(one.limit < step.tokens for one in taken.standings if WINDOWS[one.name].unit == "tokens")
            continue
        bench.step(of, Pass(ms=max(waits)))
        again = bench.take({name: limit for name, limit in of.items() if name != CONCURRENT}, step.tokens)
        assert again.admitted, "nobody else took anything meanwhile"


def test_a_window_is_free_again_after_its_length_and_the_step_that_had_begun() -> None:
    bench = Bench(now_ms=1_800_000_000_900)
    of = {"requests_per_minute": 2}
    assert [bench.take(of).admitted for _ in range(3)] == [True, True, False]
    bench.step(of, Pass(ms=60_000))
    assert not bench.take(of).admitted, "60.0 s are not more than the window"
    bench.step(of, Pass(ms=100))
    assert bench.take(of).admitted


def test_a_clock_set_back_locks_nobody_out_and_one_set_forward_frees_nobody() -> None:
    of = {"requests_per_minute": 2}
    for leap_ms in (-86_400_000, 86_400_000):
        bench = Bench()
        assert [bench.take(of).admitted for _ in range(3)] == [True, True, False]
        bench.step(of, Pass(ms=1000, leap_ms=leap_ms))
        assert not bench.take(of).admitted, f"a leap of {leap_ms} ms frees nobody"
        bench.step(of, Pass(ms=61_000))
        assert bench.take(of).admitted, f"a leap of {leap_ms} ms costs nobody more than that moment"


def test_how_long_ago_the_last_look_was_may_be_unknown_then_the_clock_is_believed() -> None:
    assert tick(Clock(wall_ms=1000), 3_601_000, None).now_ms == 3_601_000
    assert tick(Clock(wall_ms=1000), 3_601_000, 500).now_ms == 1500
    assert tick(Clock(wall_ms=1000), 500, None).now_ms == 1000


def test_tokens_are_set_right_by_what_was_really_used() -> None:
    bench = Bench()
    of = {"tokens_per_minute": 100}
    assert bench.take(of, 80, "a").standings[0].used == 80
    assert not bench.take(of, 30).admitted
    bench.finish("a", tokens=40)
    bench.finish("a", tokens=0)
    assert bench.take(of, 30, "b").standings[0].used == 70, "given back once"
    bench.finish("b", tokens=90)
    refused = bench.take(of, 1)
    assert (refused.admitted, refused.standings[0].used) == (False, 130), "what was too little is used too"
    bench.take({"tokens_per_day": 50}, 50, "c")
    bench.finish("c", tokens=None)
    assert not bench.take({"tokens_per_day": 50}, 1).admitted, "not known: the estimate stays"


def test_the_end_of_an_answer_and_its_tokens_may_be_heard_of_one_by_one() -> None:
    for order in ((True, False), (False, True)):
        bench = Bench()
        of = {"tokens_per_minute": 100, CONCURRENT: 1}
        bench.take(of, 50, "a")
        for over in order:
            bench.finish("a", tokens=None if over else 10, over=over, final=False)
        taken = bench.take(of, 90, "b")
        assert taken.admitted
        assert [one.used for one in taken.standings] == [100, 1]


def test_a_request_that_envoy_asks_for_twice_is_counted_once() -> None:
    bench = Bench()
    of = {"tokens_per_minute": 60, CONCURRENT: 1}
    first, second = bench.take(of, 50, "a"), bench.take(of, 50, "a")
    assert first.admitted and second.admitted
    assert [one.used for one in second.standings] == [50, 1]
    bench.finish("a", tokens=50)
    assert not bench.take(of, 50, "b").admitted


def test_openais_headers_tell_of_requests_and_of_the_tighter_limit_of_tokens() -> None:
    minute = Standing(name="tokens_per_minute", limit=1000, used=100, reset_ms=360_000)
    day = Standing(name="tokens_per_day", limit=5000, used=4900, reset_ms=86_340_000)
    requests = Standing(name="requests_per_minute", limit=60, used=61, reset_ms=20)
    assert reply_headers((requests, minute, day)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "20ms",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "23h59m0s",
    }
    assert reply_headers((Standing(name=CONCURRENT, limit=1, used=1, reset_ms=0),)) == {}
    assert reply_headers(()) == {}


def test_a_refusal_names_the_limit_its_value_what_is_used_and_when_to_come_again() -> None:
    bench = Bench(now_ms=1_800_000_000_000)
    of = {"requests_per_minute": 1, "tokens_per_minute": 1000}
    bench.take(of, 10)
    bench.step(of, Pass(ms=500))
    denied = refusal(bench.take(of, 10).standings, 10)
    assert (denied.status, denied.code, denied.type) == (429, "rate_limit_exceeded", "requests")
    assert "requests_per_minute" in denied.message and "1 requests within 60 seconds" in denied.message
    assert dict(denied.headers)["retry-after"] == "61"
    assert dict(denied.headers)["x-ratelimit-remaining-tokens"] == "990"


def test_a_request_larger_than_the_limit_is_told_so_and_not_to_come_again() -> None:
    denied = refusal(Bench().take({"tokens_per_minute": 100, "requests_per_minute": 5}, 101).standings, 101)
    assert (denied.status, denied.code, denied.type) == (429, "rate_limit_exceeded", "tokens")
    assert "too large" in denied.message and "101 tokens" in denied.message and "max_tokens" in denied.message
    assert "retry-after" not in dict(denied.headers) and dict(denied.headers)["x-should-retry"] == "false"


def test_too_many_at_once_are_told_to_come_again_after_a_second() -> None:
    bench = Bench()
    bench.take({CONCURRENT: 1})
    denied = refusal(bench.take({CONCURRENT: 1}).standings, 1)
    assert (denied.type, dict(denied.headers)) == ("requests", {"retry-after": "1"})
    assert "concurrent" in denied.message


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (1, "1ms"), (999, "999ms"), (1000, "1s"), (1001, "2s"), (60_000, "1m0s"), (86_400_000, "24h0m0s")],
)
def test_times_are_written_as_openai_writes_them(ms: int, text: str) -> None:
    assert span(ms) == text


@given(st.integers(0, 10**9))
def test_a_time_is_never_told_shorter_than_it_is(ms: int) -> None:
    text = span(ms)
    if text.endswith("ms"):
        assert int(text[:-2]) == ms
        return
    total = 0
    for mark, seconds in (("h", 3600), ("m", 60), ("s", 1)):
        number, found, rest = text.partition(mark)
        if found:
            total, text = total + int(number) * seconds, rest
    assert ms <= total * 1000 < ms + 1000
