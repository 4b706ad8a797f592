"""Weights in groups: those of a checkpoint's own tensors beside those derived from its configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gonogo.engines.shard import Cut, rank_weights
from gonogo.facts.architecture import Architecture, Scheme
from gonogo.facts.catalogue import known_model
from gonogo.facts.parse_config import parse_config
from gonogo.facts.schemes import SCHEMES
from gonogo.facts.weights import Part, groups_from, groups_of, merge, parameters
from tests.core.named_tensors import checkpoint, tensor

NEAR = 0.005
PLAIN = (
    "meta-llama/Meta-Llama-3.1-8B",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen3-30B-A3B",
    "deepseek-ai/DeepSeek-V3",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "google/gemma-2-9b-it",
    "zai-org/GLM-4.5-Air",
)
ALL = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (2, 4))
"""Cards per layer, stages."""


LAYERS = 8
"""Of each model, so that the tensors of its experts are few enough; both kinds of layers are among them."""


def architecture(name: str) -> Architecture:
    known = known_model(name)
    assert known is not None, name
    found = replace(parse_config(known.config), vision=None)
    return found if found.experts is None else replace(found, layers=found.layers[:LAYERS])


def test_names_and_shapes_of_a_checkpoint_give_the_parameters_of_its_configuration() -> None:
    for name in (*PLAIN, "openai/gpt-oss-20b"):
        model = architecture(name)
        seen = groups_from(checkpoint(model), model)
        assert parameters(seen) == pytest.approx(parameters(groups_of(model)), rel=NEAR), name


@pytest.mark.parametrize("stored", ["BF16", "F8", "GPTQ", "AWQ", "NVFP4"])
def test_packed_weights_are_counted_as_weights_and_scales_are_not(stored: str) -> None:
    model = architecture("Qwen/Qwen3-8B")
    seen = groups_from(checkpoint(model, stored=stored), model)
    assert parameters(seen) == pytest.approx(8_190_735_360, rel=1e-4)


@pytest.mark.parametrize("stored", ["BF16", "F8", "GPTQ", "AWQ", "NVFP4"])
def test_no_byte_of_a_checkpoint_is_lost_or_counted_twice(stored: str) -> None:
    for name in ("Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V2-Lite-Chat"):
        model = architecture(name)
        if model.latent is not None:
            model = replace(model, latent=replace(model.latent, q_rank=1536))
        tensors = checkpoint(model, stored=stored)
        assert sum(group.stored_bytes or 0 for group in groups_from(tensors, model)) == sum(
            one.size_bytes for one in tensors
        )


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("tensor_parallel", "pipeline"), ALL)
def test_a_rank_holds_as_much_of_the_tensors_as_of_the_configuration(
    name: str, tensor_parallel: int, pipeline: int
) -> None:
    model = replace(architecture(name), scheme=None)
    seen, derived = groups_from(checkpoint(model), model), groups_of(model)
    for stage in range(pipeline):
        cut = Cut(tensor=tensor_parallel, pipeline=pipeline, stage=stage)
        assert rank_weights(model, seen, 2, None, cut) == pytest.approx(
            rank_weights(model, derived, 2, None, cut), rel=NEAR
        )


@pytest.mark.parametrize("name", [*PLAIN, "Qwen/Qwen3-4B"])
def test_weights_added_up_over_layers_are_the_same_weights(name: str) -> None:
    model = replace(architecture(name), scheme=None)
    for groups in (groups_of(model), groups_from(checkpoint(model), model)):
        assert parameters(merge(groups)) == parameters(groups)
        for tensor_parallel in (1, 2, 8):
            cut = Cut(tensor=tensor_parallel, pipeline=1, stage=0)
            whole = rank_weights(model, groups, 2, None, cut)
            assert rank_weights(model, merge(groups), 2, None, cut) == pytest.approx(whole, abs=8)


def test_a_head_beside_a_tied_embedding_is_not_loaded() -> None:
    model = architecture("Qwen/Qwen3-4B")
    assert model.tied
    head = tensor("lm_head.weight", model.vocabulary, model.hidden)
    assert groups_from((*checkpoint(model), head), model) == groups_from(checkpoint(model), model)


@pytest.mark.parametrize(
    ("stored", "method"), [("F8", "fp8_block"), ("GPTQ", "int4"), ("AWQ", "int4"), ("NVFP4", "nvfp4")]
)
def test_a_schemes_bytes_per_weight_are_those_of_a_checkpoint_stored_so(stored: str, method: str) -> None:
    model = replace(architecture("Qwen/Qwen3-32B"), scheme=Scheme(method=method))
    cut = Cut(tensor=1, pipeline=1, stage=0)
    exact = rank_weights(model, groups_from(checkpoint(model, stored=stored), model), 2, model.scheme, cut)
    assert rank_weights(model, groups_of(model), 2, model.scheme, cut) == pytest.approx(exact, rel=NEAR)
    assert SCHEMES[method].bits in (4, 8)


def test_draft_layers_are_told_apart_and_not_loaded() -> None:
    model = architecture("deepseek-ai/DeepSeek-V3")
    last = len(model.layers)
    draft = (
        tensor(f"model.layers.{last}.embed_tokens.weight", model.vocabulary, model.hidden),
        tensor(f"model.layers.{last}.eh_proj.weight", model.hidden, 2 * model.hidden),
        tensor(f"model.layers.{last}.mlp.experts.0.up_proj.weight", 2048, model.hidden),
        tensor("mtp.layers.0.mlp.up_proj.weight", 2048, model.hidden),
        tensor("mtp.fc.weight", 2048, model.hidden),
    )
    plain = checkpoint(model)
    groups = groups_from((*plain, *draft), model)
    assert sum(group.stored_bytes or 0 for group in groups if group.part is Part.DRAFT) == sum(
        one.size_bytes for one in draft
    )
    cut = Cut(tensor=8, pipeline=1, stage=0)
    assert rank_weights(model, groups, 2, None, cut) == rank_weights(model, groups_from(plain, model), 2, None, cut)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.embed_tokens.weight", Part.EMBEDDING),
        ("backbone.embeddings.weight", Part.EMBEDDING),
        ("transformer.wte.weight", Part.EMBEDDING),
        ("token_embd.weight", Part.EMBEDDING),
        ("lm_head.weight", Part.HEAD),
        ("output.weight", Part.HEAD),
        ("model.layers.3.self_attn.q_proj.weight", Part.ATTENTION),
        ("model.layers.3.self_attn.qkv_proj.weight", Part.ATTENTION),
        ("backbone.layers.3.mixer.k_proj.weight", Part.ATTENTION),
        ("model.layers.3.self_attn.sinks", Part.ATTENTION),
        ("blk.3.attn_q.weight", Part.ATTENTION),
        ("model.layers.3.self_attn.q_norm.weight", Part.NORM),
        ("model.layers.3.post_self_attn_layernorm.weight", Part.NORM),
        ("blk.3.attn_norm.weight", Part.NORM),
        ("model.layers.3.self_attn.kv_a_proj_with_mqa.weight", Part.LATENT),
        ("model.layers.3.self_attn.indexer.wq_b.weight", Part.LATENT),
        ("model.layers.3.mlp.gate_up_proj.weight", Part.DENSE),
        ("backbone.layers.3.mixer.up_proj.weight", Part.DENSE),
        ("model.layers.3.feed_forward.down_proj.weight", Part.DENSE),
        ("blk.3.ffn_up.weight", Part.DENSE),
        ("model.layers.3.mlp.experts.7.gate_proj.weight", Part.EXPERT),
        ("model.layers.3.block_sparse_moe.experts.7.w1.weight", Part.EXPERT),
        ("backbone.layers.3.mixer.experts.7.up_proj.weight", Part.EXPERT),
        ("model.layers.3.mlp.experts.gate_up_proj_blocks", Part.EXPERT),
        ("blk.3.ffn_up_exps.weight", Part.EXPERT),
        ("model.layers.3.mlp.shared_experts.up_proj.weight", Part.SHARED_EXPERT),
        ("model.layers.3.share_expert.up_proj.weight", Part.SHARED_EXPERT),
        ("model.layers.3.mlp.gate.weight", Part.ROUTER),
        ("model.layers.3.block_sparse_moe.gate.weight", Part.ROUTER),
        ("model.layers.3.mlp.router.weight", Part.ROUTER),
        ("model.layers.3.linear_attn.in_proj_qkvz.weight", Part.RECURRENT),
        ("backbone.layers.3.mixer.A_log", Part.RECURRENT),
        ("visual.blocks.3.attn.qkv.weight", Part.VISION),
        ("model.visual.merger.down_proj.weight", Part.VISION),
        ("vision_tower.transformer.layers.3.attention.q_proj.weight", Part.VISION),
        ("multi_modal_projector.linear_1.weight", Part.VISION),
        ("v.blk.3.attn_q.weight", Part.VISION),
        ("mtp.layers.0.mlp.up_proj.weight", Part.DRAFT),
    ],
)
def test_what_a_tensor_is_for_is_read_from_the_names_that_authors_use(name: str, part: Part) -> None:
    (group,) = groups_from([tensor(name, 8, 8)], architecture("Qwen/Qwen3-8B"))
    assert group.part is part


def test_keys_and_values_divide_into_fewer_ways_than_queries() -> None:
    model = architecture("Qwen/Qwen3-8B")
    ways = {}
    for name in ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"):
        (group,) = groups_from([tensor(f"model.layers.0.self_attn.{name}.weight", 8, 8)], model)
        ways[name] = group.ways
    assert ways == {"q_proj": None, "k_proj": 8, "v_proj": 8, "o_proj": None, "qkv_proj": None}


def test_an_image_encoder_of_tensors_stands_outside_the_layers() -> None:
    known = known_model("zai-org/GLM-4.1V-9B-Thinking")
    assert known is not None
    model = parse_config(known.config)
    assert model.vision is not None
    depth, width, inner, out, merger = 24, 1536, 4096, 4096, 13696
    encoder = [
        tensor("model.visual.patch_embed.proj.weight", width, 3, 2, 14, 14),
        tensor("model.visual.embeddings.position_embedding.weight", 24 * 24, width),
        tensor("model.visual.downsample.weight", out, width, 2, 2),
        tensor("model.visual.merger.proj.weight", out, out),
        *(tensor(f"model.visual.merger.{name}_proj.weight", merger, out) for name in ("gate", "up", "down")),
    ]
    for index in range(depth):
        at = f"model.visual.blocks.{index}"
        encoder += [
            tensor(f"{at}.attn.qkv.weight", 3 * width, width),
            tensor(f"{at}.attn.proj.weight", width, width),
            *(tensor(f"{at}.mlp.{name}_proj.weight", inner, width) for name in ("gate", "up", "down")),
        ]
    language = checkpoint(replace(model, vision=None), prefix="model.language_model")
    groups = groups_from((*language, *encoder), model)
    seen = sum(group.elements for group in groups if group.part is Part.VISION)
    assert seen == pytest.approx(model.vision.parameters, rel=NEAR)
    assert all(group.layer is None for group in groups if group.part is Part.VISION)
    assert parameters(groups) == pytest.approx(10.293e9, rel=NEAR)
