"""What the checks make of what a probe saw: the near misses, each of which would be a silent failure of a service."""

from __future__ import annotations

from typing import Any

import pytest

from gonogo.checks.catalogue import CHECKS
from gonogo.checks.finding import Verdict
from gonogo.checks.probes import worst_repeat
from tests.core import worlds

SENTENCE = "The sea is a vast and mysterious realm, teeming with life and unending in its own way. "
REPEATS = [
    ("", (0, 0), False),
    ("Hello there.", (1, 1), True),
    ("It is very very very good.", (3, 1), True),
    ("no " * 7, (7, 1), False),
    (SENTENCE, (1, 1), True),
    (SENTENCE * 2, (2, 17), True),
    (SENTENCE * 3, (3, 17), False),
    (f"So, so, so. {SENTENCE * 4}", (4, 17), False),
]

CASES: list[tuple[str, dict[str, Any], bool]] = [
    # twenty pieces that arrive within half a millisecond were sent at once, whatever the clock says
    ("stream_in_pieces", {"pieces": 20, "spread_ms": 0.4}, False),
    ("stream_in_pieces", {"pieces": 20, "spread_ms": 18.9}, False),
    ("stream_in_pieces", {"pieces": 20, "spread_ms": 19.0}, True),
    ("stream_in_pieces", {"pieces": 2, "spread_ms": 400.0}, False),
    # an engine that got what it should never get answers 404 too
    ("unknown_path_refused", {"path": "/x", "status": 404, "hop": "engine"}, False),
    ("unknown_path_refused", {"path": "/x", "status": 404, "hop": None}, False),
    ("unknown_path_refused", {"path": "/x", "status": 404, "hop": "gateway"}, True),
    ("unknown_path_refused", {"path": "/x", "status": 200, "hop": "gateway"}, False),
]


@pytest.mark.parametrize(("name", "seen", "right"), CASES)
def test_a_probe_is_judged_by_what_its_client_would_feel(name: str, seen: dict[str, Any], right: bool) -> None:
    revision = worlds.revision()
    world = worlds.world(probes=worlds.probes(revision, **{name: seen}))
    (check,) = (check for check in CHECKS if check.name == name)
    (finding,) = check.ask(revision, world)
    assert finding.verdict is (Verdict.PASS if right else Verdict.FAIL)


@pytest.mark.parametrize(("text", "worst", "right"), REPEATS)
def test_a_sentence_three_times_in_a_row_is_a_loop_and_three_times_very_is_style(
    text: str, worst: tuple[int, int], right: bool
) -> None:
    assert worst_repeat(text) == worst
    seen = {"longest_repeat": worst[0], "repeated_words": worst[1], "answer": text}
    test_a_probe_is_judged_by_what_its_client_would_feel("no_repetition", seen, right)
