"""How fast a worker goes, what an answer means, and what a client may ask: all of it pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.gateway.policy.body import MAX_DEPTH
from gonogo.tasks import pace
from gonogo.tasks.asked import (
    DEEPEST,
    LONGEST_WINDOW_S,
    MOST_TOKENS,
    Wrong,
    estimate,
    read_name,
    read_request,
    read_window,
)
from gonogo.tasks.judge import LONGEST_LATER_S, Answer, Means, later_s, means, words
from gonogo.tasks.lines import Line, mark_of, read_line
from gonogo.tasks.pace import FEWEST, MOST, Pace

CHAT = "/v1/chat/completions"


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_while_all_goes_well_the_window_grows_by_one_each_time_it_was_worked_off() -> None:
    after = Pace(window=4.0)
    for _ in range(4):
        after = pace.answered(after)
    assert 4.8 < after.window < 5.0
    for _ in range(10_000):
        after = pace.answered(after)
    assert after.window == MOST


def test_refusals_of_what_was_under_way_together_halve_it_once_and_hold_everything_up() -> None:
    after = Pace(window=16.0)
    for _ in range(16):
        after = pace.refused(after, 100.0, 2.0)
    assert after.window == 8.0
    assert pace.room(after, 0, 101.9) == 0 and pace.room(after, 3, 102.0) == 5
    for at in range(200, 300, 10):
        after = pace.refused(after, float(at), 1.0)
    assert after.window == FEWEST and pace.room(after, 0, 999.0) == 1


@given(
    st.lists(st.tuples(st.sampled_from("arw"), st.integers(0, 5)), max_size=60),
    st.integers(0, 100),
)
def test_whatever_is_seen_the_window_keeps_its_bounds_and_never_stops_for_ever(steps: Any, running: int) -> None:
    now, at = 0.0, Pace()
    for kind, wait in steps:
        now += wait
        if kind == "a":
            at = pace.answered(at)
        elif kind == "r":
            at = pace.refused(at, now, float(wait))
        assert FEWEST <= at.window <= MOST
        assert 0 <= pace.room(at, running, now) <= MOST
    assert pace.room(at, 0, now + 10.0) >= 1


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (Answer(status=200), Means.DONE),
        (Answer(status=400), Means.FAILED),
        (Answer(status=401), Means.FAILED),
        (Answer(status=404), Means.FAILED),
        (Answer(status=413), Means.FAILED),
        (Answer(status=408), Means.LATER),
        (Answer(status=429), Means.LATER),
        (Answer(status=503), Means.LATER),
        (Answer(status=500), Means.AGAIN),
        (Answer(status=504), Means.AGAIN),
        (Answer(status=0, code="unreachable"), Means.LATER),
        (Answer(status=0, code="no_answer"), Means.AGAIN),
        (Answer(status=0, code="timeout"), Means.AGAIN),
        (Answer(status=0, code="too_large"), Means.AGAIN),
    ],
)
def test_what_may_pass_is_tried_again_and_what_is_wrong_is_not(answer: Answer, meaning: Means) -> None:
    assert means(answer) is meaning
    assert all(words(answer))
    assert ("`result`" in words(answer)[1]) == (meaning is Means.FAILED), "of the others no answer is kept"


def test_the_gateway_says_how_long_to_wait_else_it_is_longer_each_time() -> None:
    assert later_s(Answer(status=429, retry_after_s=7.0), 0) == 7.0
    assert later_s(Answer(status=429, retry_after_s=9e9), 0) == LONGEST_LATER_S
    waits = [later_s(Answer(status=500), tried) for tried in range(12)]
    assert waits == sorted(waits) and waits[0] < 1 and waits[-1] == LONGEST_LATER_S


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "The gateway answered with status 400; `result` has its words."),
        (503, "The gateway had no room or no replica (status 503): it is asked again, and no try is used up."),
        (500, "The gateway answered with status 500, which may pass."),
    ],
)
def test_only_of_an_answer_that_is_kept_it_is_said_that_there_is_one(status: int, message: str) -> None:
    assert words(Answer(status=status)) == (f"http_{status}", message)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": [{"role": "user", "content": "x" * 300}], "max_tokens": 50}, 151),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, 3256),
        ({"prompt": ["x" * 30, "y" * 30], "max_tokens": 1}, 23),
        ({"prompt": [1, 2, 3], "max_completion_tokens": 7}, 10),
        ({"input": "x" * 30}, 11),
        ({}, 256),
        ({"messages": 7, "max_tokens": True}, 256),
        ({"messages": [7, {"content": {"a": 1}}], "max_tokens": -1}, 256),
    ],
)
def test_what_a_request_may_cost_is_guessed(body: Any, tokens: int) -> None:
    assert estimate(body) == tokens


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["messages", "content", "prompt", "input", "text", "image_url", "max_tokens"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_is_too_odd_to_be_read(value: Any) -> None:
    try:
        assert read_request(CHAT, value).tokens >= 1
    except Wrong as wrong:
        assert wrong.param and wrong.code


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86400.0), ("90s", 90.0), ("30m", 1800.0), ("30d", LONGEST_WINDOW_S)]
)
def test_a_window_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert read_window(text, "window", 1.0) == seconds and read_window(None, "window", 7.0) == 7.0


@pytest.mark.parametrize("text", ["", "h", "24", "0s", "-1h", "31d", "1.5h", "²h", "24 h", 24, "9" * 400 + "s"])
def test_another_window_is_refused(text: Any) -> None:
    with pytest.raises(Wrong, match="window"):
        read_window(text, "window", 1.0)


@given(st.binary(max_size=200))
def test_no_line_of_a_batch_is_too_odd_to_be_read(text: bytes) -> None:
    line = read_line(text, CHAT)
    assert isinstance(line, Line) and (line.asked is None) == (line.wrong is not None)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"[" * 200_000, "it is nested too deep"),
        (b'{"custom_id" "a"}', "Expecting ':' delimiter at character 14"),
        (b'{"a": "\x00"}', "Invalid control character at character 8"),
        (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number has too many digits"),
        (b"{}{}", "Extra data at character 3"),
    ],
)
def test_a_line_that_is_no_json_is_told_where_and_why(text: bytes, seen: str) -> None:
    assert read_line(text, CHAT).wrong == ("invalid_json_line", f"This line is not parseable as valid JSON: {seen}.")


@pytest.mark.parametrize(
    ("value", "seen"), [(None, "is missing"), ("", "has 0"), ("x" * 513, "has 513"), (7, "is a number")]
)
def test_a_custom_id_is_told_as_it_was_seen(value: Any, seen: str) -> None:
    wrong = read_line(json.dumps({"custom_id": value}).encode(), CHAT).wrong
    assert wrong is not None and wrong[1] == f"`custom_id` must be a string of 1 to 512 characters, and {seen}."


def test_a_line_that_is_too_long_is_wrong_like_others() -> None:
    assert read_line(None, CHAT).wrong == ("line_too_long", "The line is longer than 32 MiB.")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "\ud800", "messages": []}, "invalid_model"),
        ({"messages": [{"content": nested(63)}]}, "invalid_body"),
        ({"messages": [{"content": nested(400)}]}, "invalid_body"),
    ],
)
def test_what_no_ledger_can_hold_is_told_of_a_line(body: Any, code: str) -> None:
    text = json.dumps({"custom_id": "a", "method": "POST", "url": CHAT, "body": body}).encode()
    wrong = read_line(text, CHAT).wrong
    assert wrong is not None and wrong[0] == code and "\ud800" not in wrong[1]


def test_depth_as_the_gateway_takes_it_is_taken() -> None:
    assert DEEPEST == MAX_DEPTH
    assert read_request(CHAT, {"messages": [{"content": nested(61)}]}).tokens == 256


@pytest.mark.parametrize("most", [2**31, 2**64, 10**400])
def test_no_request_is_guessed_to_cost_more_than_a_ledger_can_hold(most: int) -> None:
    assert read_request(CHAT, {"messages": [], "max_tokens": most}).tokens == MOST_TOKENS


@pytest.mark.parametrize("text", ["\ud800", "", "x" * 257, 7])
def test_a_name_is_a_short_whole_text(text: Any) -> None:
    with pytest.raises(Wrong, match="`idempotency_key`"):
        read_name(text, "idempotency_key")


def test_marks_tell_custom_ids_apart_within_their_batch_alone() -> None:
    assert mark_of("batch_1", "a") == mark_of("batch_1", "a") != mark_of("batch_1", "b")
    assert mark_of("batch_1", "a") != mark_of("batch_2", "a")
    assert len(mark_of("batch_1", "\ud800")) == 16
