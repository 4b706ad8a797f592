"""The capacity benchmark: printed rows against the plan, what it counts as wrong, and what it leaves out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "cases" / "plan" / "printed_rows.jsonl"
sys.path.insert(0, str(ROOT / "benchmarks"))

import capacity  # noqa: E402
import capacity_rows  # noqa: E402

ROWS = {row["id"]: row for row in map(json.loads, FILE.read_text(encoding="utf-8").splitlines())}
FP8_CACHE = "llmd205-meta-llama---h100-80gb--tp1pp1dp1--8192-dtbf16-kvfp8"
FAILED = "llmd-emp-fail-Qwen3-32B"


def judged(*rows: dict[str, Any]) -> dict[str, Any]:
    results = capacity_rows.evaluate(rows, {})
    return capacity.summarize(results, results)


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("llmd205")])
def test_what_vllm_printed_on_an_h100_is_what_was_planned(name: str) -> None:
    (result,) = capacity_rows.evaluate([ROWS[name]], {})
    assert abs(result.numbers["weights"].error) < 0.005
    assert abs(result.numbers["activation"].error) < 0.01
    assert abs(result.numbers["kv"].error) < 0.02
    assert not result.false_no


def test_a_row_that_failed_counts_against_the_plan_when_it_was_said_to_fit() -> None:
    right = judged(ROWS[FAILED])
    assert (right["failed_rows"], right["false_fits"]) == (1, [])
    wrong = judged({**ROWS[FP8_CACHE], "outcome": "failed", "failure": "no cache"})
    assert wrong["false_fits"] == [FP8_CACHE]
    assert not next(aim for aim in wrong["aims"] if "failed" in aim["aim"])["met"]


def test_a_row_that_ran_counts_against_the_plan_when_it_was_said_not_to_fit() -> None:
    wrong = judged({**ROWS[FP8_CACHE], "max_model_len": 4_000_000})
    assert wrong["false_noes"] == [FP8_CACHE]
    assert not next(aim for aim in wrong["aims"] if "said not to" in aim["aim"])["met"]


def test_what_is_printed_is_held_against_the_plan_and_not_taken_from_it() -> None:
    row = ROWS[FP8_CACHE]
    double = {**row, "measured": {**row["measured"], "num_gpu_blocks": 2 * row["measured"]["num_gpu_blocks"]}}
    (result,) = capacity_rows.evaluate([double], {})
    assert result.numbers["kv"].error == pytest.approx(-0.5, abs=0.01)


def test_what_is_left_out_is_named_with_the_reason() -> None:
    left = {one["id"]: one["why"] for one in judged(*ROWS.values())["left_out"]}
    assert set(left) == {"gh-inferencex-2128"} and "DeepSeek-V4" in left["gh-inferencex-2128"]


def test_a_model_that_is_in_no_table_is_left_out_not_guessed() -> None:
    unknown = {**ROWS[FP8_CACHE], "model": "someone/else", "model_config_key": "someone/else"}
    assert judged(unknown)["left_out"][0]["why"] == "the model's configuration is not known"


def test_as_a_program_it_prints_its_aims_and_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    models = tmp_path / "models.json"
    models.write_text("{}")

    def run(rows: Path) -> subprocess.CompletedProcess[str]:
        words = (sys.executable, "benchmarks/capacity.py", "--rows", str(rows), "--models", str(models))
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    done = run(FILE)
    assert done.returncode == 0, done.stderr
    assert "✓ rows that failed and were said to fit: 0.0000" in done.stdout
    assert "rule of thumb" in done.stdout or "× 1.2" in done.stdout
    refused = run(tmp_path / "none.jsonl")
    assert refused.returncode == 2 and "--rows" in refused.stderr
