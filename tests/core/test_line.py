"""The line of one revision: how many may wait, how long, and what is said to one that may not."""

from __future__ import annotations

import pytest

from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.ledger import Room
from gonogo.gateway.policy.line import SHORTEST_WAIT_S, Bounds, Claim, Line
from gonogo.gateway.policy.pace import Pace
from gonogo.plan.batching import Priority, Waiting

ROOM = Room(tokens=1000, sequences=2)


def joined(line: Line, *tokens: int) -> Line:
    for number, cost in enumerate(tokens):
        name = f"{len(line)}.{number}"
        line.join(Waiting(request_id=name, prompt_tokens=cost, output_tokens=0), cost, ROOM)
    return line


def claim(tokens: int, ttft_s: float | None = None, prompt_tokens: int = 0, later: bool = False) -> Claim:
    return Claim(tokens=tokens, prompt_tokens=prompt_tokens, ttft_s=ttft_s, later=later)


def test_so_many_may_wait_and_no_more() -> None:
    line = joined(Line(Bounds(most_waiting=2), Pace()), 10)
    assert line.refusal(claim(10), ROOM, 1) is None
    assert joined(line, 10).refusal(claim(10), ROOM, 1) is not None


def test_so_many_tokens_may_wait_for_each_replica_and_no_more() -> None:
    line = joined(Line(Bounds(rooms=2), Pace()), 900, 900)
    assert line.refusal(claim(200), ROOM, 1) is None
    assert line.refusal(claim(201), ROOM, 1) is not None
    assert line.refusal(claim(201), ROOM, 2) is None


def slow(token_s: float) -> Pace:
    """Replicas that take so long for a token."""
    pace = Pace()
    pace.note(1, token_s, 1)
    return pace


def test_who_would_wait_longer_than_allowed_is_refused_at_once_and_told_when_to_come_back() -> None:
    bounds = Bounds(longest_wait_s=10.0, servers=1)
    assert joined(Line(bounds, Pace()), 1000).refusal(claim(500), ROOM, 1) is None, "nobody knows how fast they are"
    line = joined(Line(bounds, slow(0.01)), 600, 400)
    assert line.refusal(claim(500), ROOM, 1) is None, "1,000 tokens, 10 ms each: 10 s"
    joined(line, 100)
    refusal = line.refusal(claim(600), ROOM, 1)
    assert isinstance(refusal, Deny)
    assert (refusal.status, refusal.code, refusal.type) == (429, "overloaded", "rate_limit_error")
    assert dict(refusal.headers) == {"retry-after": "11"}
    assert "3 requests wait (1,100 tokens): the next would wait 11.0 s, and may 10.0 s" in refusal.message
    assert line.refusal(claim(600), ROOM, 2) is None, "two replicas get twice as much done"


def test_two_servers_with_a_line_each_move_half_as_fast() -> None:
    line = joined(Line(Bounds(longest_wait_s=10.0, servers=2), slow(0.01)), 510)
    assert line.refusal(claim(1), ROOM, 1) is not None
    assert line.refusal(claim(1), ROOM, 2) is None


def test_a_promised_first_token_leaves_only_the_time_that_its_prompt_does_not_take() -> None:
    bounds = Bounds(longest_wait_s=10.0, servers=1)
    unknown, line = Line(bounds, Pace()), joined(Line(bounds, slow(0.02)), 60)
    assert unknown.longest_wait_s(claim(100, ttft_s=2.0, prompt_tokens=50)) == 1.0, "half of it, as nobody knows"
    assert line.longest_wait_s(claim(100, ttft_s=2.0, prompt_tokens=50)) == 1.0
    assert line.longest_wait_s(claim(500, ttft_s=2.0, prompt_tokens=500)) == SHORTEST_WAIT_S
    assert line.longest_wait_s(claim(100, ttft_s=60.0, prompt_tokens=50)) == 10.0
    assert line.refusal(claim(60, ttft_s=2.0, prompt_tokens=40), ROOM, 1) is None
    assert line.refusal(claim(60, ttft_s=2.0, prompt_tokens=50), ROOM, 1) is not None


def test_the_first_one_in_the_line_is_never_refused_for_its_time() -> None:
    assert Line(Bounds(longest_wait_s=1.0), slow(100.0)).refusal(claim(900), ROOM, 1) is None


def test_the_time_to_come_back_has_bounds() -> None:
    for token_s, told in ((0.0001, "1"), (100.0, "60")):
        line = joined(Line(Bounds(longest_wait_s=0.001), slow(token_s)), 900)
        assert dict(line.too_long(claim(1), 1).headers) == {"retry-after": told}


def test_who_leaves_counts_no_more() -> None:
    line = joined(Line(Bounds(most_waiting=1), Pace()), 10)
    line.leave("0.0")
    line.leave("0.0")
    assert line.refusal(claim(10), ROOM, 1) is None
    assert not line.next(0.0, 1000).requests


def test_the_next_one_waits_on_until_it_went() -> None:
    line = joined(Line(Bounds(), Pace()), 300, 200)
    assert line.next(0.0, 100).requests == ()
    batch = line.next(0.0, 1000)
    assert [each.request_id for each in batch.requests] == ["0.0"]
    assert len(line) == 2
    line.went(batch)
    line.leave("0.0")
    assert [each.request_id for each in line.next(0.0, 1000).requests] == ["1.1"]


def test_the_pace_follows_what_it_sees_and_shares_the_time_among_those_that_were_together() -> None:
    pace = Pace()
    assert pace.takes_s(100) is None
    assert pace.tokens_in(1.0) is None
    pace.note(10, 1.0, 1)
    assert pace.takes_s(100) == 10.0
    assert pace.takes_s(100, replicas=2) == 5.0
    assert pace.tokens_in(2.0) == 20
    for _ in range(100):
        pace.note(10, 8.0, 4)
    assert abs((pace.takes_s(100) or 0) - 20.0) < 0.01
    pace.note(0, -1.0, 0)
    assert (pace.takes_s(100) or 0) > 0


def test_how_long_a_prompt_takes_is_the_middle_of_the_latest_first_tokens() -> None:
    pace = Pace()
    assert (pace.prompt_s(100), pace.prompt_tokens_in(1.0)) == (0.0, 0)
    pace.note(100, 1.0, 1)
    assert pace.prompt_s(100) == 1.0, "no stream was seen: no longer than the whole takes"
    pace.note_first(100, 0.4)
    assert pace.prompt_s(100) == pytest.approx(0.4)
    assert pace.prompt_tokens_in(0.2) == 50
    for first_s in (2.0, 0.41, 2.0, 0.42, 0.1):
        pace.note_first(100, first_s)
    assert pace.prompt_s(100) == pytest.approx(0.415), "some waited for others, and one found part of it cached"
    pace.note_first(1, 0.001)
    pace.note_first(100, 0.0)
    assert pace.prompt_s(100) == pytest.approx(0.415), "a step, and nothing"


def test_how_long_a_prompt_takes_beside_others_is_known_after_eight_of_them() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note_first(100, 0.3)
    for _ in range(7):
        pace.note_first(100, 0.4)
    assert pace.prompt_s(100) == pytest.approx(0.3)
    pace.note_first(100, 0.4)
    assert pace.prompt_s(100) == pytest.approx(0.4)


def test_what_may_take_its_time_is_never_in_the_way_of_who_does_not_want_to_wait() -> None:
    for bounds in (Bounds(most_waiting=2), Bounds(rooms=1), Bounds(longest_wait_s=1)):
        line = Line(bounds, slow(1.0))
        for number in range(2):
            night = Waiting(request_id=f"n{number}", prompt_tokens=500, output_tokens=0, priority=Priority.BATCH)
            line.join(night, 500, ROOM)
        assert line.refusal(claim(500, later=True), ROOM, 1) is not None
        assert line.refusal(claim(500), ROOM, 1) is None, "it goes before them"
        line.join(Waiting(request_id="day", prompt_tokens=800, output_tokens=0), 800, ROOM)
        line.join(Waiting(request_id="noon", prompt_tokens=100, output_tokens=0), 100, ROOM)
        refused = line.refusal(claim(500), ROOM, 1)
        assert refused is not None
        assert "2 requests wait (900 tokens)" in refused.message
