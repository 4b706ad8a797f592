"""What the gateway benchmark says of its measurements: the best counts, a miss is said, nothing is made up."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from contenders.load import Measured
from contenders.result import DIRECT, OURS, Round, Row, added_ms, aims, as_json


def measured(p50_ms: float, requests_per_s: float, failed: int = 0) -> Measured:
    return Measured(p50_ms=p50_ms, p99_ms=p50_ms * 5, requests_per_s=requests_per_s, requests=100, failed=failed)


def rounds(*numbers: tuple[float, float], failed: int = 0) -> tuple[Round, ...]:
    return tuple(
        Round(one=measured(p50_ms, 1), many=measured(20, rate, failed), load_average=1.0) for p50_ms, rate in numbers
    )


def row(name: str, *numbers: tuple[float, float], failed: int = 0) -> Row:
    return Row(name=name, version=None, note="", rounds=rounds(*numbers, failed=failed))


def test_of_each_number_the_best_round_counts() -> None:
    ours = row(OURS, (1.2, 900), (0.9, 700), (3.0, 1100))
    rows = (row(DIRECT, (0.2, 9000), (0.1, 8000)), ours)
    assert added_ms(ours, rows) == 0.9 - 0.1
    assert [aim.measured for aim in aims(rows)] == [0.9 - 0.1, 1100, 0]
    assert all(aim.met for aim in aims(rows))


def test_a_missed_aim_is_said() -> None:
    rows = (row(DIRECT, (0.1, 9000)), row(OURS, (2.2, 599), failed=2))
    assert [aim.met for aim in aims(rows)] == [False, False, False]
    assert str(aims(rows)[1]) == "✗ ours serves at least 600 requests/s: measured 599.00"


def test_what_was_not_measured_is_no_number_and_no_verdict() -> None:
    rows = (row(DIRECT, (0.1, 9000)), Row(name=OURS, version="1", note="", error="ended with exit code 1"))
    assert [(aim.measured, aim.met) for aim in aims(rows)] == [(None, None)] * 3
    content = as_json(rows, {})["rows"][1]
    assert content["error"] == "ended with exit code 1"
    assert [content[name] for name in ("p50_ms", "p99_ms", "added_p50_ms", "requests_per_s")] == [None] * 4
