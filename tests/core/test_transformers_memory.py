"""transformers' memory, planned beside measured: one H100, six models. What it took is in the case file, with how."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping

import pytest

from gonogo.engines.hardware import CONTEXT_BYTES, parse_hardware
from gonogo.engines.serving import Device
from gonogo.engines.transformers_memory import NON_TORCH_BYTES
from gonogo.engines.transformers_prefill import prompt_token_bytes
from gonogo.facts.catalogue import known_model
from gonogo.plan.capacity import Ask, Capacity, Fit, capacity, model_of

FILE = Path(__file__).parents[1] / "cases" / "plan" / "transformers_h100.json"
MEASURED: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
MODELS: Mapping[str, Mapping[str, Any]] = {one["name"]: one for one in MEASURED["models"]}
LOADED = [name for name, one in MODELS.items() if one["loaded"]]
MIB = 1024**2
SPLIT_OFF = 0.003
"""torch gives a tensor the rest of its segment where that is a MiB or less: of a model up to so much (GLM-4-9B)."""


def plan(name: str, tokens: int) -> Capacity:
    known = known_model(name)
    assert known is not None, name
    return capacity(model_of(name, known.config), card(), Ask(engine="transformers", context_tokens=tokens))


def card() -> Device:
    """The H100 when nothing else was on it."""
    return replace(parse_hardware("1xH100").device, free_bytes=MEASURED["measured"]["total_bytes"] - CONTEXT_BYTES)


def term(seen: Capacity, name: str) -> int:
    assert seen.memory is not None
    return seen.memory.tightest.term(name)


def points(kind: str) -> list[Any]:
    found = [(name, point) for name in LOADED for point in MODELS[name][kind]]
    return [pytest.param(name, point, id=f"{name}-{point['tokens']}") for name, point in found]


def strained(name: str, tokens: int) -> bool:
    memory = plan(name, tokens).memory
    assert memory is not None
    return memory.strained


@pytest.mark.parametrize("name", LOADED)
def test_weights_are_those_that_torch_had(name: str) -> None:
    assert term(plan(name, 8192), "weights") == pytest.approx(MODELS[name]["weights_bytes"], rel=0.0001)


def test_what_is_taken_beside_torch_is_counted() -> None:
    counted = CONTEXT_BYTES + NON_TORCH_BYTES
    assert counted == pytest.approx(max(MEASURED["measured"]["beside_torch_mib"]) * MIB, rel=0.01)


@pytest.mark.parametrize(("name", "point"), points("reads"))
def test_the_peak_while_a_prompt_is_read_is_the_one_measured(name: str, point: Mapping[str, int]) -> None:
    seen = plan(name, point["tokens"])
    assert seen.memory is not None and seen.memory.pool is not None
    reading = point["tokens"] * prompt_token_bytes(seen.model.architecture, 2)
    peak = term(seen, "weights") + term(seen, "overhead") + seen.memory.pool.request_bytes + reading
    assert abs(peak - point["peak_bytes"]) < max(4 * MIB, SPLIT_OFF * point["peak_bytes"])


@pytest.mark.parametrize(("name", "point"), points("caches"))
def test_what_ran_out_of_memory_was_not_said_to_fit_and_what_ran_was_not_refused(
    name: str, point: Mapping[str, Any]
) -> None:
    fit = plan(name, point["tokens"]).fit
    assert fit is not Fit.DOES_NOT_FIT if point["decoded"] else fit is not Fit.FITS


def test_the_longest_cache_lies_between_what_ran_and_what_did_not() -> None:
    for name in LOADED:
        ran = [one["tokens"] for one in MODELS[name]["caches"] if one["decoded"]]
        out = [one["tokens"] for one in MODELS[name]["caches"] if not one["decoded"]]
        seen = plan(name, 16)
        assert seen.memory is not None and seen.memory.pool is not None
        assert max(ran, default=0) <= seen.memory.pool.tokens < min(out) * 1.01, name


def test_a_model_that_could_not_be_loaded_was_said_not_to_fit() -> None:
    refused = [name for name, one in MODELS.items() if not one["loaded"]]
    assert refused and all(plan(name, 8192).fit is Fit.DOES_NOT_FIT for name in refused)


def test_a_prompt_that_cannot_be_read_in_one_step_is_told() -> None:
    seen = plan("Qwen/Qwen3-8B", 300_000)
    assert seen.memory is not None and seen.memory.strained and seen.fit is Fit.TIGHT
    longest = seen.memory.prompt_tokens
    assert longest is not None and 260_000 < longest < 270_000
    assert (strained("Qwen/Qwen3-8B", longest), strained("Qwen/Qwen3-8B", longest + 1)) == (False, True)


def test_what_is_to_spare_leaves_room_for_reading_the_prompt() -> None:
    seen, total = plan("Qwen/Qwen3-32B", 40_000), MEASURED["measured"]["total_bytes"]
    assert seen.memory is not None and seen.memory.pool is not None and seen.margin_bytes is not None
    reading = 40_000 * prompt_token_bytes(seen.model.architecture, 2)
    taken = CONTEXT_BYTES + NON_TORCH_BYTES + term(seen, "weights") + term(seen, "overhead")
    assert seen.margin_bytes == total - taken - seen.memory.pool.request_bytes - reading
    assert seen.fit is Fit.TIGHT and not seen.memory.strained


def test_windows_keep_what_they_can_see_and_no_more() -> None:
    short, long = (plan("google/gemma-3-27b-it", tokens).memory for tokens in (4096, 40_960))
    assert short is not None and short.pool is not None and long is not None and long.pool is not None
    full = sum(1 for one in plan("google/gemma-3-27b-it", 1).model.architecture.attentions if one.window is None)
    each = long.pool.request_bytes - short.pool.request_bytes
    assert each == pytest.approx(full * 2 * 16 * 128 * 2 * (40_960 - 4096), rel=0.02)
