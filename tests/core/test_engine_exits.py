"""Why an engine ended, read from its log: recorded logs → the reason; and why it refused a request."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.engines.exits import FINAL, LONGEST_LOG, REASONS, explain_answer, explain_log
from gonogo.facts.replica import FAILED_TO_START
from gonogo.words import finding_text, page, reasons
from gonogo.words.language import Language
from tests.core.gpu_engines import ADAPTERS, adapter

SOURCES = Path(__file__).parents[2] / "src" / "gonogo"
CASES = Path(__file__).parents[1] / "cases" / "engines"


def _expected(engine: str) -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = json.loads((CASES / engine / "exits" / "expected.json").read_text())
    return read


EXITS = [(engine, name, case["reason"]) for engine in ADAPTERS for name, case in _expected(engine).items()]
ANSWERS = {
    "no-chat-template": "EngineNoChatTemplate",
    "no-chat-template-0.9": "EngineNoChatTemplate",
    "picture-too-large": "EnginePictureTooLarge",
    "quiet-too-many-answers": None,
}


@pytest.mark.parametrize(("engine", "name", "reason"), EXITS)
def test_the_log_says_why_the_engine_ended(engine: str, name: str, reason: str | None) -> None:
    log = (CASES / engine / "exits" / f"{name}.log").read_text()
    assert adapter(engine).explain_exit(log) == reason


@pytest.mark.parametrize("engine", sorted(ADAPTERS))
def test_each_recorded_exit_has_an_expectation_and_a_source(engine: str) -> None:
    expected = _expected(engine)
    assert {path.stem for path in (CASES / engine / "exits").glob("*.log")} == set(expected)
    assert all(case["source"] for case in expected.values())
    assert all((case["reason"] is None) == name.startswith("quiet") for name, case in expected.items())


def test_every_reason_was_seen_in_a_real_log_or_answer_but_these() -> None:
    seen = {reason for _, _, reason in EXITS} | set(ANSWERS.values())
    assert REASONS - seen == {"EngineNotInstalled", "EngineInstructionMissing", "EngineCrashed"}


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("/envs/x/bin/python: No module named vllm\n", "EngineNotInstalled"),
        ("ModuleNotFoundError: No module named 'vllm'\n", "EngineNotInstalled"),
        ("ModuleNotFoundError: No module named 'vllm.model_executor'\n", "EnginePackageMissing"),
        ("Illegal instruction (core dumped)\n", "EngineInstructionMissing"),
        ("Fatal Python error: Segmentation fault\n", "EngineCrashed"),
    ],
)
def test_what_the_shell_and_the_interpreter_say_is_known(log: str, reason: str | None) -> None:
    assert explain_log(log) == reason


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_refused_request_says_why(name: str) -> None:
    assert explain_answer((CASES / "vllm" / "answers" / f"{name}.json").read_text()) == ANSWERS[name]


def test_each_recorded_answer_has_an_expectation() -> None:
    assert {path.stem for path in (CASES / "vllm" / "answers").glob("*.json")} == set(ANSWERS)


def test_what_an_earlier_start_died_of_is_not_said_of_a_later_one() -> None:
    first = "INFO vLLM API server version 0.33.0\nOSError: [Errno 98] Address already in use\n"
    assert explain_log(first) == "EnginePortTaken"
    assert explain_log(first + "INFO vLLM API server version 0.33.0\nINFO all is well\n") is None


def test_a_start_of_a_release_that_begins_with_a_logo_is_told_apart_too() -> None:
    starts = (CASES / "vllm" / "exits" / "quiet-seen-start.log").read_text()
    assert "vLLM API server version" not in starts and "█  version 0.32.0" in starts
    earlier = starts + "OSError: [Errno 98] Address already in use\n"
    assert explain_log(earlier) == "EnginePortTaken"
    assert explain_log(earlier + starts) is None


def test_a_package_that_was_missing_and_not_needed_is_not_what_an_engine_dies_of_hours_later() -> None:
    optional = "ERROR 11-26 21:17:58 [core.py:13] ModuleNotFoundError: No module named 'flashinfer'\n"
    assert explain_log(optional + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n") == (
        "EngineOutOfMemory"
    )
    assert explain_log(optional + "(APIServer pid=1) RuntimeError: Engine core initialization failed.\n") == (
        "EnginePackageMissing"
    )


def test_what_no_restart_mends_is_among_the_reasons_and_what_may_pass_is_not_called_so() -> None:
    assert FINAL < REASONS
    passing = {"EngineCardBusy", "EnginePortTaken", "EngineDiskFull", "EngineOutOfMemory", "EngineKilled"}
    assert not FINAL & passing


def test_a_huge_log_is_read_from_its_end() -> None:
    line = "OSError: [Errno 98] Address already in use\n"
    assert explain_log(line + "x" * LONGEST_LOG) is None
    assert explain_log("x" * LONGEST_LOG + "\n" + line) == "EnginePortTaken"


@given(st.text(max_size=400))
def test_whatever_a_log_holds_reading_it_never_fails(text: str) -> None:
    explain_log(text)
    explain_answer(text)


OF_STARTS = frozenset(
    found
    for path in (SOURCES / "engines").glob("*.py")
    for found in re.findall(r"Refused\(\s*\"(Engine\w+)\"", path.read_text())
)
OF_LLAMACPP = frozenset(
    found
    for path in (SOURCES / "engines" / "llamacpp.py", SOURCES / "runners" / "llamacpp.py")
    for found in re.findall(r"\"(Engine[A-Z]\w+)\"", path.read_text())
)


def test_every_reason_of_an_end_or_a_refused_start_has_words_and_no_words_are_left_over() -> None:
    assert len(OF_STARTS) > 15
    assert {*reasons("engine"), *reasons("engine_start")} == REASONS | OF_STARTS | OF_LLAMACPP | {FAILED_TO_START}


@pytest.mark.parametrize("reason", sorted(REASONS | OF_STARTS | OF_LLAMACPP | {FAILED_TO_START}))
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_words_say_what_was_seen_and_what_to_do(reason: str, lang: Language) -> None:
    text, told = finding_text(reason, {}, lang), page(reason, lang)
    assert text.seen and text.remedy
    assert all((told.asks, told.why, told.see, told.mend))
