"""Condition 3, what a recipe asks of its model: each drill breaks a phone agent's model behind the real gateway.

The model is scripted (tests/shell/phone_model.py): no model small enough for a test sees images or calls functions.
"""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.drills.harness import Yard, assert_only, wrong
from tests.shell import phone_model as model
from tests.shell.phone_model import right, taps_moved, with_fault
from tests.shell.probe_bench import ALL, Bench, open_bench

SVC = "service/svc"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("bench")) as made:
        assert wrong(made.live(right, ALL)) == {}, "a drill tells only where everything was fine before"
        yield made


def test_answer_format(bench: Bench) -> None:
    assert_only(bench.live(with_fault(model.ignores_the_format), ALL), "answer_format", "AnswerFormatIgnored", SVC)


def test_reasoning_length(bench: Bench) -> None:
    assert_only(bench.live(with_fault(model.hardly_thinks), ALL), "reasoning_length", "ReasoningShort", SVC)


def test_grounding(bench: Bench) -> None:
    too_low = with_fault(taps_moved(lambda x, y, _: (x, y + 50)))
    found = assert_only(bench.live(too_low, ALL), "grounding", "GroundingOff", SVC)
    assert 4.8 <= found["values"]["error_y_percent"] <= 5.2


def test_largest_image(bench: Bench) -> None:
    refusing = with_fault(model.refuses_large_images)
    found = assert_only(bench.live(refusing, ALL), "largest_image", "LargestImageRefused", SVC)
    assert found["values"]["status"] == 400


def test_warmed_completion(bench: Bench) -> None:
    found = assert_only(bench.live(with_fault(model.is_slow), ALL), "warmed_completion", "WarmedTooSlow", SVC)
    assert found["values"]["seconds"] > 0.5


def test_tool_call(bench: Bench) -> None:
    assert_only(bench.live(with_fault(model.breaks_json), ALL), "tool_call", "ToolArgumentsBroken", SVC)


def test_no_leaked_stop_token(yard: Yard) -> None:
    """This one with the real engine: its answers end with the token that should have ended them."""
    with yard.faults.broken(engine={"": "leaks_its_stop_token"}):
        assert_only(yard.live(), "no_leaked_stop_token", "StopTokenLeaked", "service/drill")
        answer = yard.ask_once("Hello", tokens=8)
    assert answer.json()["choices"][0]["message"]["content"].endswith("<|im_end|>")
