"""A recipe's probes through the real Envoy: a right engine passes them all, each broken one fails the right check."""

from __future__ import annotations

import threading
import time
from typing import Iterator, Mapping

import pytest

from gonogo.checks.finding import Verdict
from gonogo.control import probe as asking
from gonogo.control.ask import Clock
from gonogo.control.probe import AT_ONCE
from gonogo.facts.model import ModelFacts
from tests.shell import phone_model as model
from tests.shell.phone_model import right, taps_moved, thinks_apart, with_fault
from tests.shell.probe_bench import ALL, AUTOGLM, CHECKS, QUESTION, Bench, count, open_bench
from tests.shell.scripted_engine import Answer, Asked, Script


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("bench")) as made:
        yield made


RIGHT: Mapping[str, Script] = {
    "with its tags": right,
    "with its reasoning in reasoning_content": with_fault(thinks_apart("reasoning_content")),
    "with its reasoning in reasoning": with_fault(thinks_apart("reasoning")),
    "with its tags left out": with_fault(model.thinks_without_tags),
    "cold at first": with_fault(model.starts_cold),
    "a hair beside the middle": with_fault(taps_moved(lambda x, y, _: (x + 15, y - 15))),
}
WRONG: Mapping[str, tuple[model.Fault, dict[str, int]]] = {
    "leaked stop token": (model.leaks, {"StopTokenLeaked": 1}),
    "loop": (model.loops, {"RepetitionSeen": 1}),
    "format ignored": (model.ignores_the_format, {"AnswerFormatIgnored": 1}),
    "call left open": (model.leaves_calls_open, {"AnswerCallBroken": 1}),
    "cut by max_tokens": (model.is_cut, {"AnswerCutOff": 1}),
    "reasoning suspiciously short": (model.hardly_thinks, {"ReasoningShort": 1}),
    "reasoning without end": (model.never_stops_thinking, {"ReasoningEndless": 1}),
    "taps 5 % too low": (taps_moved(lambda x, y, _: (x, y + 50)), {"GroundingOff": 3}),
    "taps in pixels": (
        taps_moved(lambda x, y, seen: (x * seen.width // 1000, y * seen.height // 1000)),
        {"GroundingInPixels": 3},
    ),
    "large image refused": (model.refuses_large_images, {"LargestImageRefused": 1}),
    "too slow": (model.is_slow, {"WarmedTooSlow": 1}),
    "hanging": (model.hangs, {"WarmedTooSlow": 1}),
    "tool call with broken JSON": (model.breaks_json, {"ToolArgumentsBroken": 1}),
    "tool call left in the text": (model.writes_calls_as_text, {"ToolNotCalled": 1}),
    "tool call with another value": (model.asks_for_another_city, {"ToolArgumentWrong": 1}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_engine_passes_every_probe_however_it_gives_its_reasoning(bench: Bench, name: str) -> None:
    findings = bench.findings(RIGHT[name], ALL)
    assert count(findings) == {}, [one for one in findings if one.verdict is not Verdict.PASS]
    asked = {one.reason for one in findings if one.verdict is Verdict.PASS}
    assert asked == {check.reasons[0] for check in CHECKS}, "each check had something to look at"


@pytest.mark.parametrize("name", WRONG)
def test_each_broken_engine_is_caught_by_its_check_and_no_other(bench: Bench, name: str) -> None:
    fault, reasons = WRONG[name]
    assert bench.wrong(with_fault(fault)) == reasons


def test_fluent_nonsense_is_caught_by_the_question_whose_answer_is_certain(bench: Bench) -> None:
    assert bench.wrong(with_fault(model.talks_nonsense), [QUESTION]) == {"AnswersWrong": 1}


def test_fluent_nonsense_passes_none_of_an_agents_probes_that_look_at_what_is_said(bench: Bench) -> None:
    seen = bench.wrong(with_fault(model.talks_nonsense), AUTOGLM)
    assert seen == {"AnswerFormatIgnored": 1, "ReasoningShort": 1, "GroundingWithoutTap": 3}


def test_a_finding_has_the_numbers_that_show_what_is_wrong(bench: Bench) -> None:
    findings = bench.findings(with_fault(taps_moved(lambda x, y, _: (x, y + 50))), AUTOGLM)
    off = [one.values for one in findings if one.reason == "GroundingOff"]
    assert [one["screen"] for one in off] == ["1080x2400", "1080x1920", "1600x1200"]
    assert all(4.8 <= float(one["error_y_percent"] or 0) <= 5.2 for one in off)
    assert all(float(one["error_x_percent"] or 0) <= 0.1 for one in off)
    refused = bench.findings(with_fault(model.refuses_large_images), AUTOGLM)
    (image,) = [one.values for one in refused if one.reason == "LargestImageRefused"]
    assert (image["status"], image["screen"]) == (400, "1440x3200")
    assert "The engine refused the request" in str(image["problem"]), "as the gateway tells it to clients"
    assert 1.25 <= float(image["size_mb"] or 0) <= 1.35, "as large as a real screenshot"


def test_an_engine_that_refuses_every_picture_is_not_taken_for_one_that_answered(bench: Bench) -> None:
    def without_images(asked: Asked) -> Answer:
        return Answer(status=503, text="busy") if asked.pictures else right(asked)

    findings = bench.findings(without_images, ALL)
    unknown = [one for one in findings if one.verdict is Verdict.UNKNOWN]
    assert len(unknown) == 9, "seven probes, one of them with three screens"
    assert all("503" in str(one.values["error"]) for one in unknown)
    assert {one.reason for one in findings if one.verdict is Verdict.FAIL} == set()


def test_a_model_without_images_is_sent_none_and_each_such_probe_says_why_it_was_not_asked(bench: Bench) -> None:
    findings = bench.findings(right, ALL, ModelFacts(asked="m", sees_images=False))
    out = [one for one in findings if one.values.get("why") == "ModelSeesNoImages"]
    assert {one.values["probe"] for one in out} == {probe.name for probe in AUTOGLM}
    assert all(one.verdict is Verdict.NOT_APPLICABLE for one in out)
    assert not any(asked.pictures for asked in bench.engine.asked)
    assert count(findings) == {}


def test_questions_are_asked_beside_each_other_up_to_a_bound_and_the_timed_one_alone(bench: Bench) -> None:
    guard, active, most, beside_the_timed = threading.Lock(), [0], [0], [0]

    def counted(asked: Asked) -> Answer:
        with guard:
            active[0] += 1
            most[0] = max(most[0], active[0])
        time.sleep(0.05)
        with guard:
            if asked.prompt.endswith("Hi"):
                beside_the_timed[0] = max(beside_the_timed[0], active[0])
            active[0] -= 1
        return right(asked)

    assert bench.wrong(counted) == {}
    assert 1 < most[0] <= AT_ONCE
    assert beside_the_timed[0] == 1


def test_what_warms_the_engine_up_helps_no_cache(bench: Bench) -> None:
    bench.findings(right, AUTOGLM)
    warm, timed = [asked for asked in bench.engine.asked if asked.prompt.endswith("Hi")]
    assert warm.pictures != timed.pictures
    assert not timed.prompt.startswith(warm.prompt[:1])


def test_when_the_time_for_all_probes_is_over_the_rest_is_unknown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "Clock", lambda: Clock(0.0))
    findings = bench.findings(right, AUTOGLM)
    mine = [one for one in findings if one.values.get("probe")]
    assert len(mine) == 9
    assert all(one.verdict is Verdict.UNKNOWN and "were over" in str(one.values["error"]) for one in mine)
