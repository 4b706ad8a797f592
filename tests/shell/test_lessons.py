"""Lessons on disk: kept whole, damaged ones are as none, and the command learns only from a log of the same engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gonogo.cli.main import run
from gonogo.engines.serving import Corrections
from gonogo.runtimes.lessons import FILE, MOST_ENTRIES, keep_lesson, lessons

LESSON = Corrections(non_torch_bytes=5, graphs_factor=0.5)
LOG = """Initializing a V1 LLM engine (v0.19.0) with config: model='meta-llama/Llama-3.1-8B-Instruct'
Model loading took 14.99 GiB memory and 38.07 seconds
non-torch forward increase memory: 0.25GiB; weights memory: 14.99GiB.
Available KV cache memory: 58.11 GiB
CUDA graph pool memory: 0.91 GiB (actual), 0.84 GiB (estimated)
"""
ASK = ["fit", "meta-llama/Meta-Llama-3.1-8B", "--on", "H100", "--engine", "vllm", "--engine-version", "0.19.0"]


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    keep_lesson(tmp_path, "a", LESSON)
    keep_lesson(tmp_path, "b", Corrections(non_torch_bytes=7))
    assert lessons(tmp_path) == {"a": LESSON, "b": Corrections(non_torch_bytes=7)}


def test_a_state_directory_that_is_not_there_has_no_lessons_and_is_made_for_the_first(tmp_path: Path) -> None:
    place = tmp_path / "new"
    assert lessons(place) == {}
    keep_lesson(place, "a", LESSON)
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 3}', b'{"a": {"non_torch_bytes": -1}}', b"\xff" * 9])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert lessons(tmp_path) == {}
    keep_lesson(tmp_path, "b", LESSON)
    assert lessons(tmp_path)["b"] == LESSON


def test_impossible_numbers_are_left_out(tmp_path: Path) -> None:
    entries = {"a": {"graphs_factor": 1e9}, "b": {"graphs_factor": "2"}, "c": {"non_torch_bytes": 3}}
    (tmp_path / FILE).write_text(json.dumps(entries))
    assert lessons(tmp_path) == {"c": Corrections(non_torch_bytes=3)}


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({str(n): {"non_torch_bytes": n} for n in range(MOST_ENTRIES)}))
    keep_lesson(tmp_path, "newest", LESSON)
    kept = lessons(tmp_path)
    assert len(kept) == MOST_ENTRIES
    assert "newest" in kept and "0" not in kept


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = run([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_command_learns_from_a_log_and_uses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(LOG)
    state = ["--state-dir", str(tmp_path / "state")]
    code, first = told(capsys, *ASK, "--quantization", "none", "--share", "0.95", "--printed", str(log), *state)
    assert code == 0
    assert first["printed"]["learned"] == ["non_torch", "graphs"]
    beside = {one["name"]: one for one in first["printed"]["beside"]}
    assert abs(beside["weights"]["error"]) < 0.001 and abs(beside["cache"]["error"]) < 0.001
    code, second = told(capsys, *ASK, "--quantization", "none", "--share", "0.95", *state)
    terms = {term["name"]: term["source"] for term in second["options"][0]["capacity"]["memory"]["terms"]}
    assert code == 0 and "printed on such a card" in terms["non_torch"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("nothing of memory\n", "LogSaysNothing"),
        (LOG.replace("0.19.0", "0.18.0"), "LogOfAnother"),
        ("Load weight end. type=A, avail mem=16.00 GB, mem usage=7.08 GB.\n", "LogOfAnother"),
        (None, "LogUnreadable"),
    ],
)
def test_a_log_that_is_not_of_this_plan_teaches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, reason: str
) -> None:
    log = tmp_path / "vllm.log"
    if content is not None:
        log.write_text(content)
    code, answer = told(capsys, *ASK, "--printed", str(log), "--state-dir", str(tmp_path / "state"))
    assert (code, answer["error"]["reason"]) == (2, reason)
    assert lessons(tmp_path / "state") == {}
