"""The three checks of a spec's engine: its cards, its environment, and the doors that it leaves open. Every reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterator

import pytest

from gonogo.checks.catalogue import CHECKS
from gonogo.checks.finding import Finding, Stage, Verdict
from gonogo.engines.size import replicas_wanted
from gonogo.facts.model import ModelFacts, ModelProblem
from gonogo.facts.world import World
from gonogo.plan.decide import ask
from gonogo.spec import Expect, Revision
from gonogo.spec.engine import EngineChoice
from gonogo.words import finding_text
from tests.core import card_worlds as cards
from tests.core import worlds
from tests.core.card_worlds import MADE, MODEL, PHONE, card, choice, revision, small_card

PASS, FAIL, UNKNOWN, NOT_ASKED = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE
BY_NAME = {check.name: check for check in CHECKS}
UNREADABLE = {PHONE: ModelFacts(asked=PHONE, problem=ModelProblem(kind="missing", detail="x"))}
ODD = {PHONE: replace(MODEL, config={**dict(MODEL.config or {}), "model_type": "minimax_m3"})}
LONG = Expect(concurrent_requests=4, context_tokens=60_000)
BUSY = card(0, memory_used_bytes=80 * 1024**3, memory_free_bytes=1024**3)
TWO = worlds.Replicas(min=2, max=2)


def one(name: str, asked: Revision, seen: World) -> Finding:
    (finding,) = BY_NAME[name].ask(asked, seen)
    assert finding.reason in {*BY_NAME[name].reasons, "NotApplicable"}
    return finding


CARDS_FIT: dict[str, tuple[Revision, World, str, Verdict]] = {
    "an H100 holds it": (revision(), cards.world(card(0)), "CardsFit", PASS),
    "two small cards hold it together": (
        revision(engine=choice(tensor=2)),
        cards.world(small_card(0), small_card(1)),
        "CardsFit",
        PASS,
    ),
    "a small card holds it in FP8": (
        revision(engine=choice(quantization="fp8")),
        cards.world(small_card(0)),
        "CardsFit",
        PASS,
    ),
    "a small card does not hold 16 bit": (revision(), cards.world(small_card(0)), "CardMemoryTooSmall", FAIL),
    "a stranger holds the card's memory": (revision(), cards.world(BUSY), "CardMemoryTooSmall", FAIL),
    "it holds the card's memory itself": (
        revision(),
        cards.world(BUSY, replicas=(worlds.replica("svc/1/0", devices=("GPU-0",)),)),
        "CardsFit",
        PASS,
    ),
    "its own older revision holds the only card": (
        revision(2),
        cards.world(BUSY, replicas=(worlds.replica("svc/1/0", devices=("GPU-0",)),)),
        "NoCardsBeside",
        FAIL,
    ),
    "its own older revision holds one of two cards": (
        revision(2),
        cards.world(BUSY, card(1), replicas=(worlds.replica("svc/1/0", devices=("GPU-0",)),)),
        "CardsFit",
        PASS,
    ),
    "another service holds the card": (
        revision(),
        cards.world(card(0), replicas=(worlds.replica("other/1/0", devices=("GPU-0",)),)),
        "CardsTooFew",
        FAIL,
    ),
    "two replicas on one card": (revision(replicas=TWO), cards.world(card(0)), "CardsTooFew", FAIL),
    "four cards for each of two replicas": (
        revision(replicas=TWO, engine=choice(tensor=4)),
        cards.world(*(card(index) for index in range(7))),
        "CardsTooFew",
        FAIL,
    ),
    "no card at all": (revision(), cards.world(), "CardsTooFew", FAIL),
    "cards were not seen": (revision(), cards.world(host=worlds.HOST), "CardsUnseen", UNKNOWN),
    "the host was not seen": (revision(), cards.world(host=None), "CardsUnseen", UNKNOWN),
    "a card that nobody knows": (
        revision(),
        cards.world(card(0, name="Odd", compute_capability=None)),
        "CardsUnseen",
        UNKNOWN,
    ),
    "a model that nobody can add up": (revision(), cards.world(card(0), models=ODD), "CardsFitUnknown", UNKNOWN),
    "a model without a configuration": (
        revision(),
        cards.world(card(0), models={PHONE: replace(MODEL, config=None)}),
        "CardsFitUnknown",
        UNKNOWN,
    ),
    "a model that was not read": (revision(), cards.world(card(0), models=UNREADABLE), "NotApplicable", NOT_ASKED),
    "llama.cpp": (worlds.revision(), cards.world(card(0)), "NotApplicable", NOT_ASKED),
    "vLLM on the processor": (
        revision(engine=choice(name="vllm-cpu", share=None)),
        cards.world(),
        "NotApplicable",
        NOT_ASKED,
    ),
}


@pytest.mark.parametrize("case", CARDS_FIT)
def test_cards_fit(case: str) -> None:
    asked, seen, reason, verdict = CARDS_FIT[case]
    finding = one("cards_fit", asked, seen)
    assert (finding.reason, finding.verdict) == (reason, verdict), finding.values


def test_cards_fit_says_what_is_missing_in_numbers() -> None:
    short = one("cards_fit", revision(), cards.world(small_card(0))).values
    assert short["card"] == "RTX 4090 24GB" and short["tokens"] == 25480
    assert float(short["margin_gib"]) < 0  # type: ignore[arg-type]
    assert "weights" in str(short["terms"])
    fine = one("cards_fit", revision(), cards.world(card(0))).values
    assert int(fine["requests"]) >= 4 and float(fine["margin_gib"]) > 0  # type: ignore[arg-type]
    more = one("cards_fit", revision(expect=LONG), cards.world(card(0))).values
    assert int(more["requests"]) < int(fine["requests"])  # type: ignore[arg-type]


NEWER = replace(MADE, name="vllm-0.33.0-def")
ENVIRONMENT: dict[str, tuple[Revision, Any, str, Verdict]] = {
    "it is there": (revision(), {MADE.name: MADE}, "EngineEnvironmentReady", PASS),
    "any version was asked": (
        revision(engine=choice(version=None)),
        {MADE.name: MADE},
        "EngineEnvironmentReady",
        PASS,
    ),
    "it is not there": (revision(), {}, "EngineEnvironmentMissing", FAIL),
    "another one is there": (revision(), {NEWER.name: NEWER}, "EngineEnvironmentMissing", FAIL),
    "none was named": (revision(engine=choice(environment=None)), {MADE.name: MADE}, "EngineEnvironmentMissing", FAIL),
    "it holds another version": (
        revision(),
        {MADE.name: replace(MADE, version="0.30.0")},
        "EngineEnvironmentOther",
        FAIL,
    ),
    "it holds another engine": (
        revision(),
        {MADE.name: replace(MADE, engine="sglang")},
        "EngineEnvironmentOther",
        FAIL,
    ),
    "vLLM's build for the processor is another engine": (
        revision(engine=choice(name="vllm-cpu", share=None)),
        {MADE.name: MADE},
        "EngineEnvironmentOther",
        FAIL,
    ),
    "nobody looked": (revision(), None, "EngineEnvironmentUnseen", UNKNOWN),
    "no engine was named": (worlds.revision(), {}, "NotApplicable", NOT_ASKED),
    "llama.cpp came with gonogo": (
        worlds.revision(engine=EngineChoice(name="llama.cpp")),
        {},
        "NotApplicable",
        NOT_ASKED,
    ),
    "a version of llama.cpp was asked": (
        worlds.revision(engine=EngineChoice(name="llama.cpp", version="0.4.0")),
        {},
        "EngineEnvironmentMissing",
        FAIL,
    ),
}


@pytest.mark.parametrize("case", ENVIRONMENT)
def test_engine_environment(case: str) -> None:
    asked, made, reason, verdict = ENVIRONMENT[case]
    finding = one("engine_environment", asked, cards.world(environments=made))
    assert (finding.reason, finding.verdict) == (reason, verdict), finding.values


DOORS: dict[str, tuple[EngineChoice, str, Verdict, str]] = {
    "vLLM 0.33": (choice(), "EngineDoorsShut", PASS, "None"),
    "vLLM 0.19": (choice(version="0.19.0"), "EngineDoorsShut", PASS, ""),
    "vLLM 0.16": (choice(version="0.16.0"), "EngineDoorsShut", PASS, "choices"),
    "vLLM on the processor": (choice(name="vllm-cpu", share=None, version="0.32.0"), "EngineDoorsShut", PASS, ""),
    "SGLang": (choice(name="sglang", version="0.5.23"), "EngineDoorsShut", PASS, "local_files"),
    "no version": (choice(version=None), "EngineDoorsShut", PASS, ""),
}


@pytest.mark.parametrize("case", DOORS)
def test_engine_doors(case: str) -> None:
    engine, reason, verdict, door = DOORS[case]
    finding = one("engine_doors", revision(engine=engine), cards.world(card(0)))
    assert (finding.reason, finding.verdict) == (reason, verdict), finding.values
    assert door in str(finding.values.get("doors")), finding.values


def test_doors_that_the_gateway_shuts_are_named_in_words_in_both_languages() -> None:
    finding = one("engine_doors", revision(engine=DOORS["SGLang"][0]), cards.world(card(0)))
    english = finding_text(finding.reason, finding.values, "en").seen
    assert "files of this host that a request names are read" in english and "any number of answers" in english
    assert "读取请求中写的本机文件" in finding_text(finding.reason, finding.values, "zh").seen


def test_a_start_that_cannot_be_right_is_refused_with_its_own_reason() -> None:
    finding = one("engine_doors", revision(engine=choice(version="0.8.5")), cards.world(card(0)))
    assert (finding.reason, finding.verdict) == ("EngineStartRefused", FAIL)
    assert finding.values["code"] == finding.values["why"] and finding.values["words"]


def every_world() -> Iterator[tuple[Revision, World]]:
    """Each case of this file, for who looks at the words of findings."""
    yield from ((asked, seen) for asked, seen, _, _ in CARDS_FIT.values())
    yield from ((asked, cards.world(environments=made)) for asked, made, _, _ in ENVIRONMENT.values())
    for engine in (*(case[0] for case in DOORS.values()), choice(version="0.8.5")):
        yield revision(engine=engine), cards.world(card(0))


def test_llama_cpp_is_bounded_by_our_own_program() -> None:
    assert one("engine_doors", worlds.revision(), cards.world()).verdict is NOT_ASKED


def test_what_blocks_a_start_on_a_host_without_cards_is_said_once() -> None:
    answers = ask(CHECKS, Stage.PREFLIGHT, revision(), cards.world())
    assert {answer.check for answer in answers if answer.blocking} == {"cards_fit"}


def test_with_everything_there_nothing_blocks() -> None:
    answers = list(ask(CHECKS, Stage.PREFLIGHT, revision(), cards.world(card(0))))
    assert [answer.finding.reason for answer in answers if answer.blocking] == []
    assert {answer.finding.reason for answer in answers} >= {"CardsFit", "EngineEnvironmentReady", "EngineDoorsShut"}


@pytest.mark.parametrize("engine", [choice(name="vllm-cpu", share=None), EngineChoice(name="llama.cpp")])
def test_a_model_whose_memory_this_engine_cannot_plan_is_unknown_and_no_crash(engine: EngineChoice) -> None:
    """A folder for llama.cpp, or one whose tensors were not read: asked for once, and blocked."""
    asked = revision(engine=engine, replicas=None)
    finding = one("memory_fits", asked, cards.world())
    assert (finding.reason, finding.verdict) == ("MemoryUnknown", UNKNOWN)
    assert replicas_wanted(asked, cards.world()) == 1
