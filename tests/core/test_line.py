"""The line of one revision: how many may wait, how long, and what is said to one that may not."""

from __future__ import annotations

from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.ledger import Room
from gonogo.gateway.policy.line import SHORTEST_WAIT_S, Bounds, Claim, Line, Pace
from gonogo.plan.batching import Waiting

ROOM = Room(tokens=1000, sequences=2)


def joined(line: Line, *tokens: int) -> Line:
    for number, cost in enumerate(tokens):
        name = f"{len(line)}.{number}"
        line.join(Waiting(request_id=name, prompt_tokens=cost, output_tokens=0), cost, ROOM)
    return line


def claim(tokens: int, ttft_s: float | None = None, prompt_tokens: int = 0) -> Claim:
    return Claim(tokens=tokens, prompt_tokens=prompt_tokens, ttft_s=ttft_s)


def test_so_many_may_wait_and_no_more() -> None:
    line = joined(Line(Bounds(most_waiting=2)), 10)
    assert line.refusal(claim(10), ROOM, 1) is None
    assert joined(line, 10).refusal(claim(10), ROOM, 1) is not None


def test_so_many_tokens_may_wait_for_each_replica_and_no_more() -> None:
    line = joined(Line(Bounds(rooms=2)), 900, 900)
    assert line.refusal(claim(200), ROOM, 1) is None
    assert line.refusal(claim(201), ROOM, 1) is not None
    assert line.refusal(claim(201), ROOM, 2) is None


def test_who_would_wait_longer_than_allowed_is_refused_at_once_and_told_when_to_come_back() -> None:
    line = joined(Line(Bounds(longest_wait_s=10.0, servers=1)), 600, 400)
    assert line.refusal(claim(500), ROOM, 1) is None, "as long as nobody knows how long requests take"
    line.pace.note(100, 2.0)
    assert line.refusal(claim(500), ROOM, 1) is None, "1,000 tokens, 20 ms each, in two places: 10 s"
    joined(line, 100)
    refusal = line.refusal(claim(600), ROOM, 1)
    assert isinstance(refusal, Deny)
    assert (refusal.status, refusal.code, refusal.type) == (429, "overloaded", "rate_limit_error")
    assert dict(refusal.headers) == {"retry-after": "11"}
    assert "3 requests wait (1,100 tokens): the next would wait 11.0 s, and may 10.0 s" in refusal.message


def test_two_servers_with_a_line_each_move_half_as_fast() -> None:
    line = joined(Line(Bounds(longest_wait_s=10.0, servers=2)), 510)
    line.pace.note(100, 2.0)
    assert line.refusal(claim(1), ROOM, 1) is not None
    assert line.refusal(claim(1), ROOM, 2) is None


def test_a_promised_first_token_leaves_only_the_time_that_its_prompt_does_not_take() -> None:
    line = joined(Line(Bounds(longest_wait_s=10.0, servers=1)), 150)
    assert line.longest_wait_s(claim(100, ttft_s=2.0, prompt_tokens=50)) == 2.0
    line.pace.note(100, 2.0)
    assert line.longest_wait_s(claim(100, ttft_s=2.0, prompt_tokens=50)) == 1.0
    assert line.longest_wait_s(claim(100, ttft_s=2.0, prompt_tokens=500)) == SHORTEST_WAIT_S
    assert line.longest_wait_s(claim(100, ttft_s=60.0, prompt_tokens=50)) == 10.0
    assert line.refusal(claim(60, ttft_s=2.0, prompt_tokens=10), ROOM, 1) is None
    assert line.refusal(claim(60, ttft_s=2.0, prompt_tokens=50), ROOM, 1) is not None


def test_the_first_one_in_the_line_is_never_refused_for_its_time() -> None:
    line = Line(Bounds(longest_wait_s=1.0))
    line.pace.note(1, 100.0)
    assert line.refusal(claim(900), ROOM, 1) is None


def test_the_time_to_come_back_has_bounds() -> None:
    line = joined(Line(Bounds(longest_wait_s=0.001)), 900)
    line.pace.note(1, 0.0001)
    assert dict(line.too_long(claim(1), ROOM, 1).headers) == {"retry-after": "1"}
    for _ in range(100):
        line.pace.note(1, 100.0)
    assert dict(line.too_long(claim(1), ROOM, 1).headers) == {"retry-after": "60"}


def test_who_leaves_counts_no_more() -> None:
    line = joined(Line(Bounds(most_waiting=1)), 10)
    line.leave("0.0")
    line.leave("0.0")
    assert line.refusal(claim(10), ROOM, 1) is None
    assert not line.next(0.0, 1000).requests


def test_the_next_one_waits_on_until_it_went() -> None:
    line = joined(Line(Bounds()), 300, 200)
    assert line.next(0.0, 100).requests == ()
    batch = line.next(0.0, 1000)
    assert [each.request_id for each in batch.requests] == ["0.0"]
    assert len(line) == 2
    line.went(batch)
    line.leave("0.0")
    assert [each.request_id for each in line.next(0.0, 1000).requests] == ["1.1"]


def test_the_pace_follows_what_it_sees() -> None:
    pace = Pace()
    assert pace.wait_s(100, 2) is None
    pace.note(10, 1.0)
    assert pace.wait_s(100, 2) == 5.0
    for _ in range(100):
        pace.note(10, 2.0)
    assert abs((pace.wait_s(100, 2) or 0) - 10.0) < 0.01
