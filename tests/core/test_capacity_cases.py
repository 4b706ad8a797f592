"""Boundary cases of the capacity plan: just fits, just not, tight, wrong in one term. `--accept` rewrites the expected.

tests/cases/plan/capacity.yaml holds what is asked, capacity.expected.json what is answered. `known` is what an engine
did on such a machine: an answer that contradicts it is never accepted, unless the case says why it is so.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Callable, Mapping, cast

import pytest
import yaml

from gonogo.engines import hardware, sglang_memory, transformers_memory, vllm_memory
from gonogo.engines.hardware import parse_hardware
from gonogo.engines.memory import Term
from gonogo.engines.planners import PLANNERS, Planner
from gonogo.engines.serving import Device
from gonogo.engines.vllm_cache import CacheLayout
from gonogo.facts.card_limits import CARD_LIMITS
from gonogo.facts.catalogue import known_model
from gonogo.plan.capacity import Ask, Capacity, Fit, Model, capacity, model_of

GIB, MIB = 1024**3, 1024**2
FOLDER = Path(__file__).parents[1] / "cases" / "plan"
CASES: Mapping[str, Mapping[str, Any]] = yaml.safe_load((FOLDER / "capacity.yaml").read_text(encoding="utf-8"))
EXPECTED = FOLDER / "capacity.expected.json"
NO = {Fit.DOES_NOT_FIT}
SMALLEST_SHIFT = 0.02
OF_ASK = (
    *("engine", "context_tokens", "quantization", "tensor", "pipeline", "share", "sequences", "batch_tokens"),
    *("kv_bytes", "image_tokens", "images", "graphs"),
)


@cache
def model(name: str) -> Model:
    known = known_model(name)
    assert known is not None, name
    return model_of(name, known.config)


def device(case: Mapping[str, Any]) -> Device:
    card = parse_hardware(case["card"]).device
    if "total_gib" in case:
        card = replace(card, total_bytes=round(case["total_gib"] * GIB))
    return replace(card, free_bytes=round(case["free_gib"] * GIB)) if "free_gib" in case else card


def ask(case: Mapping[str, Any]) -> Ask:
    version = tuple(map(int, case["version"].split("."))) if "version" in case else None
    return Ask(version=version, **{name: case[name] for name in OF_ASK if name in case})


def planned(case: Mapping[str, Any]) -> Capacity:
    return capacity(model(case["model"]), device(case), ask(case))


def outcome(case: Mapping[str, Any]) -> dict[str, Any]:
    seen = planned(case)
    plain: dict[str, Any] = {
        "fit": seen.fit.value,
        "failed": seen.failed.question.value if seen.failed is not None else None,
        "margin_gib": None if seen.margin_bytes is None else round(seen.margin_bytes / GIB, 2),
        "requests": seen.requests,
    }
    if seen.memory is None:
        return plain
    rank, pool = seen.memory.tightest, seen.memory.pool
    terms = {term.name: round(term.size_bytes / MIB) for term in (*rank.terms, *rank.outside)}
    cache = None if pool is None else pool.blocks if pool.blocks is not None else pool.tokens
    return {**plain, "budget_mib": round(rank.budget_bytes / MIB), "terms_mib": terms, "blocks": cache}


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_case_gives_what_is_expected_of_it(name: str, pytestconfig: pytest.Config) -> None:
    seen = outcome(CASES[name])
    if pytestconfig.getoption("--accept"):
        kept = json.loads(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.exists() else {}
        kept = {each: kept[each] for each in sorted({*kept, name}) if each in CASES and each != name} | {name: seen}
        lines = [f" {json.dumps(each)}: {json.dumps(kept[each])}" for each in sorted(kept)]
        EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert seen == json.loads(EXPECTED.read_text(encoding="utf-8"))[name]


def test_there_is_nothing_expected_without_its_case() -> None:
    assert set(json.loads(EXPECTED.read_text(encoding="utf-8"))) == set(CASES)
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if "known" in case))
def test_no_case_contradicts_what_an_engine_did(name: str) -> None:
    known, fit = CASES[name]["known"], planned(CASES[name]).fit
    assert known["from"]
    if known["ran"]:
        assert fit not in NO or known.get("although"), f"it ran: {known['from']}"
    else:
        assert fit in NO, f"it did not run: {known['from']}"


def test_a_no_that_an_engine_contradicts_is_said_and_rare() -> None:
    wrong = [
        name
        for name, case in CASES.items()
        if case.get("known", {}).get("ran") and planned(case).fit is Fit.DOES_NOT_FIT
    ]
    assert wrong == [name for name, case in CASES.items() if "although" in case.get("known", {})]
    assert len(wrong) <= 1


def test_cases_that_just_fit_stand_beside_those_that_just_do_not() -> None:
    pairs = [name.removesuffix(": just fits") for name in CASES if name.endswith(": just fits")]
    assert len(pairs) >= 10
    for pair in pairs:
        assert planned(CASES[f"{pair}: just fits"]).fit is Fit.TIGHT, pair
        assert planned(CASES[f"{pair}: just not"]).fit is Fit.DOES_NOT_FIT, pair


def test_a_small_margin_is_told() -> None:
    for name, case in CASES.items():
        seen = planned(case)
        if seen.fit in (Fit.TIGHT, Fit.FITS):
            assert seen.margin_bytes is not None and seen.margin_bytes >= 0, name
            strained = seen.memory is not None and seen.memory.strained
            assert (seen.fit is Fit.TIGHT) == (strained or seen.margin_bytes < GIB // 2), name


def _more(part: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What makes a function's answer larger by this part: a number, a term, terms, or sizes of a cache."""

    def grown(value: Any) -> Any:
        if isinstance(value, Term):
            return replace(value, size_bytes=round(value.size_bytes * (1 + part)))
        if isinstance(value, tuple):
            return tuple(grown(one) for one in value)
        if isinstance(value, CacheLayout):
            return replace(value, block_bytes=round(value.block_bytes * (1 + part)))
        return value * (1 + part) if isinstance(value, float) else round(value * (1 + part))

    return lambda function: lambda *given, **named: grown(function(*given, **named))


TERMS: Mapping[str, tuple[Any, str]] = {
    "vLLM's weights": (vllm_memory, "rank_weights"),
    "vLLM's activation peak": (vllm_memory, "_activation"),
    "the sampler's warm-up": (vllm_memory, "_sampler"),
    "buffers of experts": (vllm_memory, "_expert_buffers"),
    "memory outside torch": (vllm_memory, "_non_torch"),
    "graphs": (vllm_memory, "_graphs"),
    "what is taken before vLLM looks": (vllm_memory, "_context"),
    "what must stay free for MXFP4": (vllm_memory, "_reserve"),
    "a block of vLLM's cache": (vllm_memory, "cache_layout"),
    "SGLang's weights": (sglang_memory, "rank_weights"),
    "a token of SGLang's cache": (sglang_memory, "token_bytes"),
    "weights of transformers": (transformers_memory, "rank_weights"),
    "transformers' cache": (transformers_memory, "cache_bytes"),
}
NUMBERS: Mapping[str, tuple[Any, str]] = {
    "SGLang's runtime": (sglang_memory, "RUNTIME_BYTES"),
    "what is taken before SGLang looks": (sglang_memory, "CONTEXT_BYTES"),
    "the overhead of transformers": (transformers_memory, "OVERHEAD_BYTES"),
    "what is taken before transformers starts": (transformers_memory, "CONTEXT_BYTES"),
    "what transformers takes beside torch": (transformers_memory, "NON_TORCH_BYTES"),
}


def _flipped(before: Mapping[str, Fit]) -> set[str]:
    return {name for name, fit in before.items() if (planned(CASES[name]).fit in NO) != (fit in NO)}


@pytest.fixture(scope="module")
def fits() -> dict[str, Fit]:
    return {name: planned(case).fit for name, case in CASES.items()}


@pytest.mark.parametrize("term", sorted(TERMS))
def test_a_term_that_is_a_little_wrong_turns_a_case(
    term: str, fits: dict[str, Fit], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name = TERMS[term]
    original, turned = getattr(module, name), set()
    for part in (-SMALLEST_SHIFT, SMALLEST_SHIFT):
        monkeypatch.setattr(module, name, _more(part)(original))
        turned |= _flipped(fits)
    assert turned


@pytest.mark.parametrize("term", sorted(NUMBERS))
def test_a_number_that_is_a_little_wrong_turns_a_case(
    term: str, fits: dict[str, Fit], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name = NUMBERS[term]
    original, turned = getattr(module, name), set()
    for part in (-SMALLEST_SHIFT, SMALLEST_SHIFT):
        monkeypatch.setattr(module, name, round(original * (1 + part)))
        turned |= _flipped(fits)
    assert turned


def test_a_share_that_sglang_derives_a_little_wrong_turns_a_case(
    fits: dict[str, Fit], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = PLANNERS["sglang"]
    less = replace(planner, default_share=_more(-SMALLEST_SHIFT)(planner.default_share))
    monkeypatch.setitem(cast("dict[str, Planner]", PLANNERS), "sglang", less)
    assert _flipped(fits)


@pytest.mark.parametrize("card", ["H100 SXM 80GB", "H200 SXM 141GB", "RTX 4090 24GB", "RTX 3090 24GB", "T4 16GB"])
def test_a_card_with_a_little_less_memory_turns_a_case(
    card: str, fits: dict[str, Fit], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = CARD_LIMITS[card]
    less = {**CARD_LIMITS, card: replace(limits, usable_gib=limits.usable_gib * (1 - SMALLEST_SHIFT))}
    monkeypatch.setattr(hardware, "CARD_LIMITS", less)
    assert _flipped(fits)
