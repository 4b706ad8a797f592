"""`config.json` → `Architecture`: parameters that others published, and configurations that must be refused."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any, Mapping

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gonogo.facts.architecture import Architecture, AttentionKind
from gonogo.facts.catalogue import known_model, known_models
from gonogo.facts.families import FAMILIES
from gonogo.facts.numbers import ConfigError
from gonogo.facts.parse_config import TEXT_SECTIONS, parse_config
from gonogo.facts.weights import groups_of, parameters

CASES = Path(__file__).parents[1] / "cases" / "architectures"
PUBLISHED: Mapping[str, Any] = yaml.safe_load((CASES / "published.yaml").read_text(encoding="utf-8"))
REFUSED: Mapping[str, Any] = yaml.safe_load((CASES / "refused.yaml").read_text(encoding="utf-8"))
KEYS = (CASES / "keys.txt").read_text(encoding="utf-8").split("\n")[:-1]
NEAR = 0.005
ODDITIES = {"deepseek_v4", "deepseek_ref", "kimi_k3", "minimax_m3", "minimax_m3_vl"}
"""Types whose cache no formula covers: their plans are never "fits"."""
UNUSED = {
    "glm": "GLM-4-9B before 0414: as glm4 with two norms; no configuration of it was found",
    "qwen2_vl": "Qwen2-VL: as qwen2_5_vl; no configuration of it was found",
    "qwen2_5_vl_text": "written by transformers 5 in place of qwen2_5_vl",
    "qwen3_vl_text": "written by transformers 5 inside qwen3_vl",
    "gemma3_text": "a gemma-3 without its encoder (the 1B model, and rows of benchmarks)",
    "gemma4_text": "stands inside gemma4",
    "llama4_text": "stands inside llama4",
    "kimi_linear": "stands inside kimi_k3",
}
SLOWEST_S = 2.0


def architecture(name: str) -> Architecture:
    known = known_model(name)
    assert known is not None, name
    return parse_config(known.config)


def changed(base: str, change: Mapping[str, Any]) -> dict[str, Any]:
    known = known_model(base)
    assert known is not None, base
    config = copy.deepcopy(dict(known.config))
    section = next((config[name] for name in TEXT_SECTIONS if name in config), config)
    for field, value in change.items():
        where = config if field in config or field == "vision_config" else section
        where.pop(field, None)
        if value is not None:
            where[field] = value
    return config


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_are_those_that_others_published(name: str) -> None:
    counted = parameters(groups_of(architecture(name)))
    assert counted == pytest.approx(PUBLISHED[name]["parameters"], rel=NEAR), PUBLISHED[name]["from"]


def test_every_model_of_the_facts_folder_is_known_and_parsed() -> None:
    assert len(KEYS) == 135
    for name in KEYS:
        found = architecture(name)
        assert found.layers and found.hidden > 0 and found.vocabulary > 0, name
        assert (found.oddity is not None) == (found.model_type in ODDITIES), name


def test_every_family_is_used_by_a_known_model_or_has_its_reason() -> None:
    used = {
        part.get("model_type")
        for model in known_models().values()
        for part in (model.config, *(model.config[name] for name in TEXT_SECTIONS if name in model.config))
    }
    assert set(FAMILIES) - used <= set(UNUSED)
    assert set(UNUSED) <= set(FAMILIES)


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_configuration_that_lies_is_refused_with_what_was_seen(case: str) -> None:
    told = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        parse_config(changed(told["base"], told["change"]))
    assert told["seen"] in caught.value.detail
    assert caught.value.kind == told.get("kind", "config_contradicts")
    assert len(caught.value.detail) < 200


def test_each_base_of_the_refused_ones_is_right_before_it_is_changed() -> None:
    for told in REFUSED.values():
        assert architecture(told["base"]).layers


def test_what_a_stranger_wrote_is_never_shown_at_length() -> None:
    for value in ("x" * 100_000, 10**5000, ["y" * 5000], {"z": "z" * 5000}, -(10**5000)):
        for field in ("model_type", "hidden_size", "num_hidden_layers", "rope_theta", "layer_types"):
            try:
                parse_config(changed("Qwen/Qwen3-8B", {field: value}))
            except ConfigError as error:
                assert len(error.detail) < 200, field


def test_numbers_of_the_text_part_go_before_those_around_it() -> None:
    found = architecture("google/gemma-3-27b-it")
    assert (found.hidden, len(found.layers)) == (5376, 62)
    assert found.vision is not None


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("google/gemma-3-27b-it", {AttentionKind.FULL: 10, AttentionKind.SLIDING: 52}),
        ("google/gemma-2-27b-it", {AttentionKind.FULL: 23, AttentionKind.SLIDING: 23}),
        ("openai/gpt-oss-120b", {AttentionKind.FULL: 18, AttentionKind.SLIDING: 18}),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", {AttentionKind.FULL: 12, AttentionKind.RECURRENT: 36}),
        ("deepseek-ai/DeepSeek-V3", {AttentionKind.LATENT: 61}),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", {AttentionKind.FULL: 12, AttentionKind.CHUNKED: 36}),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", {AttentionKind.FULL: 6, AttentionKind.RECURRENT: 23}),
        ("Qwen/Qwen3-8B", {AttentionKind.FULL: 36}),
    ],
)
def test_layers_remember_what_their_family_does(name: str, kinds: Mapping[AttentionKind, int]) -> None:
    seen = [attention.kind for attention in architecture(name).attentions]
    assert {kind: seen.count(kind) for kind in set(seen)} == kinds


@pytest.mark.parametrize(
    ("name", "dense", "sparse"),
    [
        ("deepseek-ai/DeepSeek-V3", 3, 58),
        ("moonshotai/Kimi-K2-Instruct", 1, 60),
        ("zai-org/GLM-4.5-Air", 1, 45),
        ("Qwen/Qwen3-30B-A3B", 0, 48),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 24, 24),
        ("mistralai/Mixtral-8x7B-v0.1", 0, 32),
        ("google/gemma-4-26B-A4B", 30, 30),
        ("Qwen/Qwen3-8B", 36, 0),
    ],
)
def test_which_layers_are_dense_and_which_have_experts(name: str, dense: int, sparse: int) -> None:
    layers = architecture(name).layers
    assert sum(layer.dense_width is not None for layer in layers) == dense
    assert sum(layer.experts for layer in layers) == sparse


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("Qwen/Qwen3-32B-FP8", "fp8_block"),
        ("Qwen/Qwen3-32B-FP8-Static-PerTensor", "fp8"),
        ("openai/gpt-oss-20b", "mxfp4"),
        ("nvidia/DeepSeek-V3.1-NVFP4", "nvfp4"),
        ("moonshotai/Kimi-K2.5", "int4_g32"),
        ("Qwen/Qwen3-8B", None),
    ],
)
def test_how_weights_are_stored_is_read_from_the_configuration(name: str, method: str | None) -> None:
    scheme = architecture(name).scheme
    assert (scheme.method if scheme is not None else None) == method


@pytest.mark.parametrize(
    ("quantization", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, "bnb4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bnb4_plain"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"}, None),
        ({}, None),
    ],
)
def test_each_name_of_a_method_has_its_scheme(quantization: Mapping[str, Any], method: str | None) -> None:
    found = parse_config(changed("Qwen/Qwen3-8B", {"quantization_config": quantization})).scheme
    assert (found.method if found is not None else None) == method


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "gptq", "bits": 3},
        {"quant_method": "awq", "bits": "four"},
        {"quant_method": "exl2"},
        {"quant_algo": "W2A16"},
        {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 2, "type": "int"}}}},
    ],
)
def test_weights_stored_in_an_unknown_way_are_never_taken_for_16_bit(quantization: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(changed("Qwen/Qwen3-8B", {"quantization_config": quantization}))
    assert caught.value.kind == "unknown_quantization"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-4, max_value=1 << 42),
    st.floats(),
    st.sampled_from([10**400, 1, 2, 8, 64, 128, 4096, "32", "full_attention", "M*-E", "llama", "re:(.+)+!", "*"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6), st.dictionaries(st.sampled_from(["factor", "type", "weights"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = sorted(
    {
        field
        for model in known_models().values()
        for part in (model.config, *(value for value in model.config.values() if isinstance(value, Mapping)))
        for field in part
    }
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    config=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=25),
    model_type=st.sampled_from(sorted(FAMILIES)),
)
def test_a_mapping_of_anything_is_parsed_or_refused_and_never_breaks(config: dict[str, Any], model_type: str) -> None:
    _parsed_or_refused({**config, "model_type": model_type})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(KEYS),
    changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3),
    inside=st.booleans(),
)
def test_a_known_configuration_with_odd_values_is_parsed_or_refused(
    name: str, changes: dict[str, Any], inside: bool
) -> None:
    known = known_model(name)
    assert known is not None
    config = copy.deepcopy(dict(known.config))
    for field, value in changes.items():
        part = next((one for one in config.values() if isinstance(one, dict) and field in one), None)
        (part if inside and part is not None else config)[field] = value
    _parsed_or_refused(config)


def _parsed_or_refused(config: Mapping[str, Any]) -> None:
    begun = time.process_time()
    try:
        found = parse_config(config)
    except ConfigError as error:
        assert error.detail and len(error.detail) < 200
    else:
        assert parameters(groups_of(found)) >= 0
    assert time.process_time() - begun < SLOWEST_S
