"""How weights are divided: what each rank holds, for every number of cards and stages."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.engines.shard import Cut, divides, rank_weights, stage_layers
from gonogo.facts.architecture import Architecture, Scheme
from gonogo.facts.catalogue import known_model, known_models
from gonogo.facts.parse_config import parse_config
from gonogo.facts.weights import Group, Part, groups_of

GIB = 1024**3
NAMES = sorted(known_models())
MODELS = {name: parse_config(model.config) for name, model in known_models().items()}


def whole(model: Architecture, scheme: Scheme | None = None) -> int:
    return held(model, 1, 1, 0, scheme)


def held(model: Architecture, tensor: int, pipeline: int, stage: int, scheme: Scheme | None = None) -> int:
    cut = Cut(tensor=tensor, pipeline=pipeline, stage=stage)
    return rank_weights(model, groups_of(model), 2, scheme or model.scheme, cut)


@given(layers=st.integers(1, 1024), pipeline=st.integers(1, 64))
def test_stages_take_every_layer_once_and_in_order(layers: int, pipeline: int) -> None:
    stages = [stage_layers(layers, pipeline, stage) for stage in range(pipeline)]
    assert [index for stage in stages for index in stage] == list(range(layers))
    sizes = [len(stage) for stage in stages]
    assert max(sizes) - min(sizes) <= 1
    if layers >= pipeline and layers % pipeline:
        assert sizes[-1] == min(sizes), "the last stage holds the head: it is spared"


@pytest.mark.parametrize(
    ("layers", "pipeline", "sizes"),
    [(32, 4, [8, 8, 8, 8]), (61, 2, [31, 30]), (61, 4, [15, 15, 16, 15]), (62, 4, [15, 16, 16, 15]), (5, 3, [2, 2, 1])],
)
def test_stages_are_cut_as_vllm_cuts_them(layers: int, pipeline: int, sizes: list[int]) -> None:
    assert [len(stage_layers(layers, pipeline, stage)) for stage in range(pipeline)] == sizes


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), tensor=st.sampled_from([1, 2, 4, 8, 16]), pipeline=st.sampled_from([1, 2, 3, 4, 8]))
def test_ranks_together_hold_at_least_the_whole_model(name: str, tensor: int, pipeline: int) -> None:
    model = MODELS[name]
    together = sum(tensor * held(model, tensor, pipeline, stage) for stage in range(pipeline))
    assert together >= whole(model) - 8 * tensor * pipeline  # each rank is rounded to a byte


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), pipeline=st.sampled_from([1, 2, 4]))
def test_more_cards_per_layer_never_make_a_rank_heavier(name: str, pipeline: int) -> None:
    model = MODELS[name]
    for stage in range(pipeline):
        sizes = [held(model, tensor, pipeline, stage) for tensor in (1, 2, 4, 8, 16)]
        assert sizes == sorted(sizes, reverse=True)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), tensor=st.sampled_from([1, 4]))
def test_a_stage_is_never_heavier_than_the_whole(name: str, tensor: int) -> None:
    model = MODELS[name]
    for pipeline in (2, 4, 8):
        assert all(held(model, tensor, pipeline, stage) <= held(model, tensor, 1, 0) for stage in range(pipeline))


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from([name for name, model in MODELS.items() if model.scheme is None]))
def test_fewer_bits_per_weight_never_make_a_rank_heavier(name: str) -> None:
    model = MODELS[name]
    sizes = [whole(model), *(whole(model, Scheme(method=method)) for method in ("fp8_block", "fp8", "nvfp4"))]
    assert sizes == sorted(sizes, reverse=True)


def test_norms_routers_and_latent_projections_are_on_every_rank() -> None:
    model = MODELS["deepseek-ai/DeepSeek-V3"]
    kept = [group for group in groups_of(model) if group.part in (Part.NORM, Part.ROUTER) or group.ways == 1]
    assert {group.part for group in kept} == {Part.NORM, Part.ROUTER, Part.LATENT}
    bare = replace(model, position_cells=0, latent=None)
    one, eight = (rank_weights(bare, kept, 2, None, Cut(tensor=tensor, pipeline=1, stage=0)) for tensor in (1, 8))
    assert one == eight == 2 * sum(group.elements for group in kept)


@pytest.mark.parametrize(("tensor", "copies"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 2), (32, 4)])
def test_key_and_value_heads_divide_until_one_is_left_and_are_copied_from_there(tensor: int, copies: int) -> None:
    model = MODELS["meta-llama/Meta-Llama-3.1-8B"]
    keys = [group for group in groups_of(model) if group.ways == 8]
    assert len(keys) == 32
    bare = replace(model, position_cells=0)
    each = rank_weights(bare, keys, 2, None, Cut(tensor=tensor, pipeline=1, stage=0))
    assert each * tensor == copies * 2 * sum(group.elements for group in keys)


def test_the_vocabulary_is_padded_to_64() -> None:
    group = Group(part=Part.EMBEDDING, layer=None, elements=65 * 8)
    model = replace(MODELS["Qwen/Qwen3-8B"], vocabulary=65, hidden=8, layers=(), position_cells=0)
    sizes = {}
    for tensor in (1, 2, 4, 8):
        sizes[tensor] = rank_weights(model, [group], 2, None, Cut(tensor=tensor, pipeline=1, stage=0))
    assert sizes == {tensor: 128 * 8 * 2 // tensor for tensor in (1, 2, 4, 8)}


def test_the_first_stage_has_the_embedding_and_the_last_the_head() -> None:
    model = MODELS["meta-llama/Meta-Llama-3.1-8B"]
    vocabulary = 2 * 128256 * 4096
    first, middle, last = (held(model, 1, 4, stage) for stage in (0, 1, 3))
    assert first - middle == vocabulary
    assert last - middle == vocabulary + 2 * 4096  # and the norm at the end


def test_tied_models_have_the_embedding_on_both_ends() -> None:
    model = MODELS["Qwen/Qwen3-4B"]
    assert model.tied
    vocabulary = 2 * 151936 * 2560
    first, middle, last = (held(model, 1, 3, stage) for stage in (0, 1, 2))
    assert first - middle == vocabulary
    assert last - middle == vocabulary + 2 * 2560
    assert held(model, 1, 1, 0) == sum((first, middle, last)) - vocabulary - 2 * 2 * model.position_cells


def test_an_image_encoder_is_on_the_first_stage_only() -> None:
    model = MODELS["google/gemma-3-27b-it"]
    bare = replace(model, vision=None)
    seen = [held(model, 1, 2, stage) - held(bare, 1, 2, stage) for stage in (0, 1)]
    assert model.vision is not None
    assert seen == [2 * model.vision.parameters, 0]


@pytest.mark.parametrize(
    ("name", "tensor", "what"),
    [
        ("Qwen/Qwen3-14B", 5, "8 key-value heads"),
        ("Qwen/Qwen3-14B", 3, "40 heads"),
        ("Qwen/Qwen2.5-7B-Instruct", 8, "28 heads"),
        ("Qwen/Qwen2.5-7B-Instruct", 7, "4 key-value heads"),
        ("Qwen/Qwen2.5-0.5B-Instruct", 4, "14 heads"),
        ("deepseek-ai/DeepSeek-V3", 3, "128 heads"),
        ("microsoft/phi-4", 4, "10 key-value heads"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct (GGUF Q4_1)", 2, "9 heads"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 32, "16 heads"),
        ("openai/gpt-oss-120b", 128, "64 heads"),
    ],
)
def test_a_division_that_an_engine_refuses_is_refused_by_what_does_not_divide(
    name: str, tensor: int, what: str
) -> None:
    assert divides(MODELS[name], tensor) == what


def test_a_vocabulary_that_does_not_divide_is_refused_even_where_heads_do() -> None:
    model = MODELS["Qwen/Qwen3-14B"]
    even = replace(
        model,
        layers=tuple(
            replace(layer, dense_width=17408 // 8 * 5, attention=replace(layer.attention, kv_heads=5))
            for layer in model.layers
            if layer.attention is not None
        ),
    )
    assert divides(even, 5) == "a vocabulary of 151936"
    assert divides(even, 1) is None


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("Qwen/Qwen3-14B", (1, 2, 4, 8)),
        ("meta-llama/Meta-Llama-3.1-70B", (1, 2, 4, 8, 16)),
        ("deepseek-ai/DeepSeek-V3", (1, 2, 4, 8, 16)),
        ("openai/gpt-oss-20b", (1, 2, 4, 8)),
        ("zai-org/GLM-4.1V-9B-Thinking", (1, 2, 4, 8)),
        ("Qwen/Qwen2.5-7B-Instruct", (1, 2, 4)),
    ],
)
def test_divisions_that_people_run_are_possible(name: str, tensors: tuple[int, ...]) -> None:
    assert [divides(MODELS[name], tensor) for tensor in tensors] == [None] * len(tensors)


def test_latent_attention_keeps_its_absorbed_halves_beside_its_weights() -> None:
    model = MODELS["deepseek-ai/DeepSeek-V2-Lite-Chat"]
    known = known_model("deepseek-ai/DeepSeek-V2-Lite-Chat")
    assert known is not None and model.latent is not None
    absorbed = 2 * 27 * 512 * 16 * (128 + 128)
    without = replace(model, latent=None)
    groups = groups_of(model)
    cut = Cut(tensor=1, pipeline=1, stage=0)
    assert rank_weights(model, groups, 2, None, cut) - rank_weights(without, groups, 2, None, cut) == absorbed


def test_a_weight_that_a_checkpoint_stores_counts_as_stored_unless_the_engine_converts_it() -> None:
    model = replace(MODELS["Qwen/Qwen3-8B"], layers=(), position_cells=0)
    cut = Cut(tensor=1, pipeline=1, stage=0)
    group = Group(part=Part.DENSE, layer=None, elements=1000, stored_bytes=1300)
    assert rank_weights(model, [group], 2, None, cut) == 1300
    assert rank_weights(model, [group], 2, Scheme(method="fp8"), cut) == 1000
    assert rank_weights(model, [group], 2, Scheme(method="fp8", skipped=frozenset({"dense"})), cut) == 1300
    stored = replace(model, scheme=Scheme(method="int4"))
    assert rank_weights(stored, [group], 2, stored.scheme, cut) == 1300
