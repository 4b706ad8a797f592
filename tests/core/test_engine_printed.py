"""What engines printed while they started, read from their own lines, and what later plans take from it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.engines.hardware import parse_hardware
from gonogo.engines.printed import LONGEST_LOG, Printed, beside, corrections, lesson_key, parse_printed
from gonogo.engines.serving import Corrections
from gonogo.facts.catalogue import known_models
from gonogo.plan.capacity import Ask, Capacity, capacity, model_of

CASES = Path(__file__).parents[1] / "cases" / "engines" / "printed"
LOGS = sorted(CASES.glob("*.log"))
GIB = 1024**3


def seen(path: Path) -> dict[str, Any]:
    return {name: value for name, value in asdict(parse_printed(path.read_text())).items() if value is not None}


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_each_log_is_read_as_expected(path: Path, pytestconfig: pytest.Config) -> None:
    expected = path.with_suffix(".expected.json")
    found = json.loads(json.dumps(seen(path)))
    if pytestconfig.getoption("--accept"):
        expected.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(expected.read_text())


def test_every_log_but_the_one_without_a_line_says_something() -> None:
    assert [path.stem for path in LOGS if parse_printed(path.read_text()).empty] == ["nothing"]


def test_of_two_starts_in_one_log_the_last_counts() -> None:
    both = parse_printed((CASES / "two-starts.log").read_text())
    assert both == parse_printed((CASES / "vllm-0.11.2-fp8-l4.log").read_text())
    assert both.version == (0, 11, 2)
    assert both.non_torch_bytes is None, "the first start printed it, the last one did not"


@given(st.text(alphabet="0123456789.,x-GiB()#: \nabcdefK", max_size=400))
def test_whatever_a_log_holds_reading_it_never_fails(text: str) -> None:
    parse_printed("Model loading took " + text + "GPU KV cache size: " + text)


def test_a_huge_log_is_read_from_its_end() -> None:
    line = "Available KV cache memory: 1.00 GiB\n"
    assert parse_printed(line + "x" * LONGEST_LOG).cache_bytes is None
    assert parse_printed("x" * LONGEST_LOG + line).cache_bytes == GIB


def planned(lessons: dict[str, Corrections] | None = None, model: str = "meta-llama/Meta-Llama-3.1-8B") -> Capacity:
    asked = Ask(version=(0, 19, 0), share=0.95, context_tokens=8192, lessons=lessons or {})
    return capacity(model_of(model, known_models()[model].config), parse_hardware("H100"), asked)


PRINTED = Printed(engine="vllm", version=(0, 19, 0), non_torch_bytes=GIB, graphs_bytes=2 * GIB, blocks=29751)


def learned() -> dict[str, Corrections]:
    plan = planned()
    assert plan.memory is not None
    key = lesson_key("vllm", (0, 19, 0), "H100 SXM 80GB", 1)
    return {key: corrections(PRINTED, plan.memory, plan.serving.corrections)}


def test_planned_stands_beside_what_was_printed_and_nothing_else() -> None:
    memory = planned().memory
    assert memory is not None
    names = {one.name: one for one in beside(memory, PRINTED)}
    assert set(names) == {"non_torch", "graphs", "blocks"}
    assert abs(names["blocks"].error) < 0.001
    assert names["non_torch"].error == pytest.approx(-0.75)


def test_what_was_printed_corrects_the_next_plan_of_the_same_engine_version_and_card() -> None:
    before, after = planned(), planned(learned())
    assert before.memory is not None and after.memory is not None
    assert after.memory.tightest.term("non_torch") == GIB
    assert after.memory.tightest.term("graphs") == pytest.approx(2 * GIB, rel=1e-4)
    assert after.memory.tightest.cache_bytes < before.memory.tightest.cache_bytes


def test_graphs_are_learned_as_a_factor_because_they_grow_with_the_model() -> None:
    larger = planned(learned(), "Qwen/Qwen2.5-14B-Instruct").memory
    assert larger is not None
    assert larger.tightest.term("graphs") > 2 * GIB


def test_learning_twice_from_one_log_is_learning_once() -> None:
    lessons = learned()
    again = planned(lessons)
    assert again.memory is not None
    assert corrections(PRINTED, again.memory, again.serving.corrections) == next(iter(lessons.values()))


def test_another_card_version_or_number_of_cards_is_not_corrected() -> None:
    lesson = next(iter(learned().values()))
    plain = planned().memory
    for key in (
        lesson_key("vllm", (0, 19, 1), "H100 SXM 80GB", 1),
        lesson_key("vllm", (0, 19, 0), "L40S", 1),
        lesson_key("vllm", (0, 19, 0), "H100 SXM 80GB", 2),
        lesson_key("sglang", (0, 19, 0), "H100 SXM 80GB", 1),
    ):
        assert planned({key: lesson}).memory == plain, key


def test_a_log_without_graphs_teaches_nothing_of_them() -> None:
    plan = planned()
    assert plan.memory is not None
    lesson = corrections(replace(PRINTED, graphs_bytes=None), plan.memory, plan.serving.corrections)
    assert lesson == Corrections(non_torch_bytes=GIB)
    negative = corrections(replace(PRINTED, graphs_bytes=-5), plan.memory, plan.serving.corrections)
    assert negative.graphs_factor is None, "older engines print a negative number when memory was freed meanwhile"
