"""The benchmark of llama.cpp's memory: how it reads rows of printed logs, and that it can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import llamacpp_rows  # noqa: E402

FILE = ROOT / "tests" / "cases" / "engines" / "llamacpp" / "rows.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text().splitlines()]
SERVER = {"engine": "llama.cpp", "id": "local", "model": "Qwen3-8B Q8_0", "source_kind": "local_run"}


def _settings(**fields: Any) -> Any:
    return llamacpp_rows.settings_of({**SERVER, **fields}, {"max_position_embeddings": 8192})


def test_the_recorded_rows_are_planned_to_the_printed_digit() -> None:
    held = [one for one in llamacpp_rows.evaluate(ROWS) if not one.skipped]
    assert len(held) > 30
    assert [one for one in held if not one.exact and abs(one.error_percent or 100) > 0.01] == []
    assert {one.quantity for one in held} == {"model", "kv", "output", "compute"}


def test_a_row_that_cannot_be_planned_is_skipped_with_its_reason() -> None:
    skipped = {one.id: one.skipped for one in llamacpp_rows.evaluate(ROWS) if one.skipped}
    assert "no configuration" in str(skipped["lcpp-bge-ci"]) and "ik_llama" in str(skipped["lcpp-r1-dq4"])


def test_a_number_that_was_not_printed_is_not_exact() -> None:
    row = next(row for row in ROWS if row["id"] == "local-smollm2 -c 512")
    wrong = {**row, "measured": {**row["measured"], "kv_mib": 11.27, "compute_mib": 16.0}}
    results = {one.quantity: one for one in llamacpp_rows.evaluate([wrong])}
    assert not results["kv"].exact and not results["compute"].exact and results["output"].exact
    assert results["compute"].error_percent == pytest.approx(100 * (15.14 - 16) / 16, abs=0.1)


def test_sizes_that_were_solved_from_the_row_do_not_count() -> None:
    results = llamacpp_rows.evaluate([row for row in ROWS if "syn_c" in row["id"]])
    assert {one.quantity for one in results if one.circular} == {"model", "kv", "output"}


def test_a_server_without_np_has_four_sequences_in_one_cache() -> None:
    settings = _settings(args=["-c", "4096"], engine_version="llama-server")
    assert (settings.sequences, settings.unified, settings.outputs) == (4, True, 4)
    split = _settings(args=["-c", "4096", "-np", "4"])
    assert (split.sequences, split.unified, split.cells) == (4, False, 1024)


def test_a_dry_run_has_one_sequence_and_wants_all_logits() -> None:
    settings = _settings(args=["-c", "4096"], engine_version="llama-fit-params -fitp on")
    assert (settings.sequences, settings.outputs) == (1, 512)


def test_long_and_short_options_are_one() -> None:
    settings = _settings(args=["--ctx-size", "0", "--cache-type-k", "q8_0", "-ctv", "q4_0", "-fa", "off", "-ub", "64"])
    assert settings.context_tokens == 8192 and not settings.flash_attention and settings.step_tokens == 64
    assert (settings.key_type, settings.value_type) == ("q8_0", "q4_0")


def test_a_model_of_a_file_is_found_by_its_key() -> None:
    fields = {"num_layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "intermediate": 128, "vocab": 320}
    models = {"someone/Llama-tiny": fields}
    row = {
        **SERVER,
        "model": "a model, F16",
        "model_config_key": "someone/Llama-tiny",
        "args": ["-c", "256", "-np", "1"],
    }
    kv, output = llamacpp_rows.evaluate([{**row, "measured": {"kv_mib": 0.06, "output_mib": 0.0}}], models)
    assert kv.exact and kv.predicted_mib == 0.06 and output.exact


def test_as_a_program_it_prints_what_was_held() -> None:
    done = subprocess.run(
        (sys.executable, "benchmarks/llamacpp_rows.py", "--rows", str(FILE)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "compute" in done.stdout and "max %" in done.stdout
