"""A checkpoint in the terms in which every model is described: names, numbers, quantization, template, problems."""

from __future__ import annotations

from typing import Any, Mapping

import pytest

from gonogo.facts.checkpoint import Checkpoint
from gonogo.facts.describe_checkpoint import describe_checkpoint
from gonogo.facts.model import ModelFacts, ModelProblem, Tensor

CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
}
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def tensors(kind: str = "BF16", per_element: int = 2) -> tuple[Tensor, ...]:
    shapes = {"model.embed_tokens.weight": (512, 64)}
    shapes |= {f"model.layers.{layer}.mlp.up_proj.weight": (128, 64) for layer in range(2)}
    return tuple(
        Tensor(name=name, shape=shape, kind=kind, size_bytes=shape[0] * shape[1] * per_element)
        for name, shape in shapes.items()
    )


def described(config: Mapping[str, Any] | None = None, **changes: Any) -> ModelFacts:
    fields: dict[str, Any] = {"config": {**CONFIG, **(config or {})}, "tensors": tensors()}
    seen = Checkpoint(asked="/models/mine/", source="/models/mine", seen_at=0.0, **{**fields, **changes})
    return describe_checkpoint(seen, "/models/mine")


def test_a_folder_is_described_by_its_configuration_and_its_tensors() -> None:
    facts = described(chat_template=TEMPLATE)
    assert facts.problem is None
    assert (facts.name, facts.path, facts.architecture, facts.architecture_known) == (
        "mine",
        "/models/mine",
        "llama",
        True,
    )
    assert (facts.layers, facts.context_tokens, facts.vocabulary) == (2, 4096, 512)
    assert facts.parameters == 512 * 64 + 2 * 128 * 64
    assert facts.file_bytes == 2 * facts.parameters
    assert facts.config is not None and facts.config["hidden_size"] == 64


FP8_BLOCK = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
MODELOPT = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}


@pytest.mark.parametrize(
    ("config", "changes", "expected"),
    [
        ({}, {}, "BF16"),
        ({}, {"tensors": tensors("F16")}, "F16"),
        ({}, {"tensors": tensors("F32", 4)}, "F32"),
        (FP8_BLOCK, {"tensors": tensors("F8_E4M3", 1)}, "fp8_block"),
        (AWQ, {"tensors": tensors("I32", 4)}, "int4"),
        ({}, {"tensors": tensors("I32", 4)}, None),
        ({}, {"tensors": tensors("F8_E4M3", 1), "quantization_config": MODELOPT}, "fp8"),
        ({}, {"tensors": ()}, None),
    ],
    ids=["as trained", "half", "single", "fp8 in blocks", "awq", "packed and no scheme", "in a file beside", "nothing"],
)
def test_the_quantization_is_the_schemes_word_or_the_plain_type_that_most_bytes_have(
    config: Mapping[str, Any], changes: Mapping[str, Any], expected: str | None
) -> None:
    facts = described(config, **changes)
    assert facts.problem is None, facts.problem
    assert facts.quantization == expected


LISTED = [{"name": "tool_use", "template": "TOOLS"}, {"name": "default", "template": "DEFAULT"}]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"chat_template": "JINJA", "tokenizer_config": {"chat_template": "TOKENIZER"}}, "JINJA"),
        ({"tokenizer_config": {"chat_template": "TOKENIZER"}}, "TOKENIZER"),
        ({"tokenizer_config": {"chat_template": LISTED}}, "DEFAULT"),
        ({"tokenizer_config": {"chat_template": LISTED[:1]}}, "TOOLS"),
        ({"tokenizer_config": {"chat_template": [{"name": "default"}, "odd", {"template": 3}]}}, None),
        ({"tokenizer_config": {"chat_template": ""}}, None),
        ({"tokenizer_config": {"chat_template": {"default": "x"}}}, None),
        ({"tokenizer_config": {}}, None),
        ({}, None),
    ],
)
def test_the_chat_template_is_the_files_else_the_tokenizers_and_of_a_list_the_default_one(
    changes: Mapping[str, Any], expected: str | None
) -> None:
    assert described(**changes).chat_template == expected


@pytest.mark.parametrize(
    ("config", "changes", "kind"),
    [
        ({"num_hidden_layers": 9}, {}, "config_contradicts"),
        ({"model_type": "frobnicator"}, {}, "unknown_architecture"),
        ({"hidden_size": "wide"}, {}, "config_unreadable"),
        ({}, {"problem": ModelProblem(kind="shard_missing", detail="x")}, "shard_missing"),
    ],
)
def test_what_stands_against_it_is_its_problem(
    config: Mapping[str, Any], changes: Mapping[str, Any], kind: str
) -> None:
    facts = described(config, **changes)
    assert facts.problem is not None and facts.problem.kind == kind


def test_without_a_configuration_nothing_is_made_up() -> None:
    bare = describe_checkpoint(Checkpoint(asked="a", source="a", seen_at=0.0), "/a")
    assert bare.parameters is None and bare.file_bytes is None
    assert (bare.architecture, bare.architecture_known, bare.layers, bare.config) == (None, None, None, None)
