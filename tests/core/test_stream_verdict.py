"""The drill's own verdict: which ids may belong to an answer, and where the time of a stall went."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from stream_stalls import STEPS, Stall, stalls, steps

from tests.acceptance.stream_verdict import is_text_of
from tests.acceptance.stream_wishes import CHAT, Wish
from tests.acceptance.streams import KILLED, STOPPED, Blow, Got


@pytest.mark.parametrize(
    ("said", "text", "ends", "right"),
    [
        ("one two", "one two", ["length"], True),
        ("one and", "one ", ["stop"], True),
        ("one<|im_end|>", "one", ["stop"], True),
        ("one and", "one ", ["length"], False),
        ("one two", "one ", ["stop"], False),
        ("one", "one ", ["stop"], False),
        ("two", "one", ["stop"], False),
    ],
)
def test_ids_may_go_beyond_the_text_only_by_what_ended_it(said: str, text: str, ends: list[str], right: bool) -> None:
    got = Got(Wish("stop strings", CHAT, {"stop": ["and"]}), text=text, ends=ends)
    assert is_text_of(said, got) is right


def test_a_stall_begins_with_the_blow_that_explains_it_and_is_divided_by_what_was_done() -> None:
    struck = [Blow(KILLED, 0, 100.0), Blow(STOPPED, 1, 110.0)]
    traced = {
        "a": {"losses": [{"replica": "m/1/0", "end": "died", "noticed": 100.1, "asked": 100.3, "first": 101.0}]},
        "b": {"losses": [{"replica": "m/1/1", "end": "hung", "noticed": 113.0, "asked": 113.1, "first": 114.0}]},
        "c": {"losses": [{"replica": "m/1/0", "end": "hung", "noticed": 130.0, "asked": 130.1, "first": 131.0}]},
        "d": {"losses": [{"replica": "m/1/0", "end": "died", "noticed": 100.1, "asked": 100.3, "first": None}]},
    }
    records = {name: {"attempts": [{"ms": 1000.0}, {"ms": 1.0, "prompt_ms": 400.0}]} for name in traced}
    found, unexplained = stalls(traced, records, struck)
    assert unexplained == 1, "nobody had touched the replica that c was taken from"
    rounded = [Stall(one.kind, *(round(getattr(one, step)) for step in STEPS)) for one in found]
    assert rounded == [
        Stall(KILLED, 1000, 100, 200, 400, 300),
        Stall(STOPPED, 2000, 1000, 100, 400, 500),  # it was asked of a replica that hung already
    ]
    assert [(one.kind, one.p99_ms) for one in steps(found) if one.step == "whole"] == [(KILLED, 1000), (STOPPED, 2000)]
