"""vLLM's cache: how it is laid out, and what it then prints, given the memory that a log says is left for it."""

from __future__ import annotations

from typing import Any, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.engines import vllm_memory
from gonogo.engines.serving import Serving
from gonogo.engines.shard import stage_layers
from gonogo.engines.vllm_cache import CacheLayout, cache_layout, token_bytes
from gonogo.facts.architecture import AttentionKind
from gonogo.facts.catalogue import known_models
from gonogo.facts.parse_config import parse_config
from tests.core.test_engine_vllm_memory import GIB, ROWS, architecture, device, serving

HALF_OF_THE_LAST_DIGIT = 0.005
MODELS = {name: parse_config(model.config) for name, model in known_models().items()}
BATCH = 8192


def layout(name: str, asked: Serving, batch_tokens: int = BATCH) -> CacheLayout:
    model = architecture(name)
    found = cache_layout(model, asked, batch_tokens, range(len(model.layers)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "row", [row for row in ROWS if {"blocks", "cache"} <= set(row["printed"])], ids=lambda row: str(row["id"])
)
def test_the_memory_that_was_printed_holds_the_blocks_that_were_printed(row: Mapping[str, Any]) -> None:
    asked, model, printed = serving(row), architecture(row["model"]), row["printed"]
    batch = vllm_memory.batch_tokens(asked, device(row))
    last = stage_layers(len(model.layers), asked.pipeline, asked.pipeline - 1)
    found = cache_layout(model, asked, batch, last)
    assert found is not None
    low, high = (found.blocks(round((printed["cache"] + side * HALF_OF_THE_LAST_DIGIT) * GIB)) for side in (-1.0, 1.0))
    if asked.pipeline == 1:
        assert low <= printed["blocks"] <= high
    else:
        assert 0.98 * low <= printed["blocks"] <= high, "of several stages the first is printed, the tightest decides"
    if "tokens" in printed:
        assert found.printed_tokens(printed["blocks"], asked) == printed["tokens"]
    assert round(found.requests(printed["blocks"]), 2) == pytest.approx(printed["requests"], abs=0.011)


def test_gemma_3_has_seven_groups_of_which_one_attends_to_everything() -> None:
    found = layout("google/gemma-3-27b-it", Serving(version=(0, 19, 0), context_tokens=8192))
    assert [group.kind for group in found.groups].count(AttentionKind.SLIDING) == 6
    assert len(found.groups) == 7
    assert found.printed_tokens(15_997, Serving(version=(0, 19, 0), context_tokens=8192)) == 36_560
    assert round(found.requests(15_997), 2) == 4.46


def test_qwen3_next_stretches_its_blocks_until_a_state_fits_in_a_page() -> None:
    asked = Serving(version=(0, 10, 2), context_tokens=262_144, tensor=2)
    found = layout("Qwen/Qwen3-Next-80B-A3B-Instruct", asked)
    assert (found.block_tokens, found.block_bytes) == (544, 557_056 * 12)
    assert found.blocks(round(44.59 * GIB)) == pytest.approx(7162, abs=1)
    assert found.printed_tokens(7162, asked) == 973_760
    assert round(found.requests(7162), 2) == 14.77


def test_kimi_k2_is_cached_whole_on_every_rank_unless_the_context_is_divided() -> None:
    for tensor in (1, 8):
        found = layout("moonshotai/Kimi-K2-Instruct", Serving(version=(0, 11, 0), context_tokens=1000, tensor=tensor))
        assert found.block_bytes == 61 * 16 * (512 + 64) * 2
    whole = Serving(version=(0, 11, 0), context_tokens=131_072, tensor=8)
    divided = Serving(version=(0, 11, 0), context_tokens=131_072, tensor=8, context_parallel=8)
    assert layout("moonshotai/Kimi-K2-Instruct", whole).printed_tokens(44_692, whole) == 715_072
    assert layout("moonshotai/Kimi-K2-Instruct", divided).printed_tokens(44_696, divided) == 5_721_088
    assert layout("moonshotai/Kimi-K2-Instruct", divided).blocks_per_request == 1024


def test_from_0_21_the_size_that_is_printed_is_what_its_requests_add_up_to() -> None:
    before, after = (Serving(version=version, context_tokens=8192) for version in ((0, 20, 9), (0, 21, 0)))
    found = layout("google/gemma-3-27b-it", after)
    assert found.printed_tokens(15_997, before) == 36_560
    assert found.printed_tokens(15_997, after) == int(15_997 / found.blocks_per_request * 8192)


def test_before_0_10_a_window_was_kept_as_a_whole_context() -> None:
    old, new = (
        layout("google/gemma-3-27b-it", Serving(version=version, context_tokens=32_768))
        for version in ((0, 9, 2), (0, 10, 0))
    )
    assert len(old.groups) == 1 and old.block_bytes == 62 * 16 * 16 * (128 + 128) * 2
    assert len(new.groups) == 7
    assert old.blocks_per_request * old.block_bytes > new.blocks_per_request * new.block_bytes


def test_a_cache_in_fp8_costs_half_of_one_in_16_bit() -> None:
    plain, half = (
        layout("meta-llama/Meta-Llama-3.1-8B", Serving(version=(0, 19, 0), context_tokens=8192, kv_bytes=value))
        for value in (None, 1.0)
    )
    assert (plain.block_bytes, half.block_bytes) == (2_097_152, 1_048_576)


@pytest.mark.parametrize(
    ("name", "tensor", "kib"),
    [
        ("zai-org/GLM-4.1V-9B-Thinking", 1, 40),
        ("zai-org/GLM-4.1V-9B-Thinking", 2, 20),
        ("zai-org/GLM-4.1V-9B-Thinking", 4, 20),
        ("zai-org/GLM-4.5-Air", 1, 184),
        ("zai-org/GLM-4.5", 8, 46),
        ("zai-org/GLM-4.5", 16, 46),
        ("meta-llama/Meta-Llama-3.1-8B", 1, 128),
        ("Qwen/Qwen3-8B", 1, 144),
        ("deepseek-ai/DeepSeek-V3", 1, 68.625),
        ("deepseek-ai/DeepSeek-V3", 8, 68.625),
    ],
)
def test_what_one_more_token_costs_a_rank(name: str, tensor: int, kib: float) -> None:
    assert token_bytes(architecture(name), 2.0, tensor) / 1024 == kib


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(MODELS)),
    tensor=st.sampled_from([1, 2, 4, 8]),
    context=st.integers(1, 1 << 20),
    more=st.integers(1, 1 << 16),
    gib=st.floats(0, 600),
)
def test_a_longer_request_never_takes_less_and_a_larger_cache_never_holds_less(
    name: str, tensor: int, context: int, more: int, gib: float
) -> None:
    model = MODELS[name]
    short, long = (
        cache_layout(
            model, Serving(version=(0, 19, 0), context_tokens=tokens, tensor=tensor), BATCH, range(len(model.layers))
        )
        for tokens in (context, context + more)
    )
    if short is None or long is None:
        return
    assert short.block_bytes == long.block_bytes > 0
    assert 0 < short.blocks_per_request <= long.blocks_per_request
    size = round(gib * GIB)
    assert 0 <= short.blocks(size) <= short.blocks(size + GIB)
    assert short.blocks(size) * short.block_bytes <= size
    assert sum(group.layers for group in short.groups) == len(model.attentions)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(MODELS)), pipeline=st.sampled_from([2, 3, 4, 8]))
def test_each_layer_is_in_one_group_of_its_stage(name: str, pipeline: int) -> None:
    model, grouped = MODELS[name], 0
    for stage in range(pipeline):
        asked = Serving(version=(0, 19, 0), context_tokens=4096, pipeline=pipeline)
        found = cache_layout(model, asked, BATCH, stage_layers(len(model.layers), pipeline, stage))
        grouped += 0 if found is None else sum(group.layers for group in found.groups)
    assert grouped == len(model.attentions)
