"""What stands against a checkpoint: a configuration that its tensors contradict, its own code, an unknown type."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterable

import pytest

import gonogo
from gonogo.checks.finding import Verdict
from gonogo.checks.model import PROBLEMS, model_readable, reason_of
from gonogo.facts.checkpoint import Checkpoint
from gonogo.facts.judge_checkpoint import contradiction, problems_of
from gonogo.facts.model import ModelFacts, ModelProblem, Tensor
from gonogo.words import finding_text
from tests.core import worlds

NATIVE = frozenset({"llama", "glm4v"})


def stack(prefix: str, layers: Iterable[int]) -> list[Tensor]:
    return [
        Tensor(name=f"{prefix}.{layer}.self_attn.q_proj.weight", shape=(64, 64), kind="BF16", size_bytes=8192)
        for layer in layers
    ]


def embed(rows: int, width: int, name: str = "model.embed_tokens.weight", kind: str = "BF16") -> Tensor:
    return Tensor(name=name, shape=(rows, width), kind=kind, size_bytes=rows * width * 2)


def checkpoint(tensors: Iterable[Tensor] = (), **config: Any) -> Checkpoint:
    told = {"model_type": "llama", **config}
    return Checkpoint(asked="a/b", source="here", seen_at=0.0, config=told, tensors=tuple(tensors))


def said(tensors: Iterable[Tensor], **config: Any) -> str:
    found = contradiction(config, tuple(tensors))
    return "" if found is None else found.detail


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        (stack("model.layers", range(4)), {"num_hidden_layers": 4}),
        (stack("transformer.h", range(4)), {"n_layer": 4}),
        (stack("gpt_neox.layers", range(4)), {"num_hidden_layers": 4}),
        (stack("model.transformer.blocks", range(4)), {"num_hidden_layers": 4}),
        (
            [
                *stack("vision_tower.vision_model.encoder.layers", range(27)),
                *stack("language_model.model.layers", range(4)),
            ],
            {"text_config": {"num_hidden_layers": 4}},
        ),
        (stack("transformer.encoder.layers", range(4)), {"num_layers": 4}),
        (stack("model.layers", range(5)), {"num_hidden_layers": 4, "num_nextn_predict_layers": 1}),
        (stack("model.layers", range(4)), {"num_hidden_layers": 4, "num_nextn_predict_layers": 1}),
        (
            [*stack("visual.blocks", range(9)), *stack("model.language_model.layers", range(4))],
            {"num_hidden_layers": 99, "text_config": {"num_hidden_layers": 4}},
        ),
        ([*stack("mtp.layers", range(1)), *stack("model.layers", range(4))], {"num_hidden_layers": 4}),
        (stack("model.layers", range(4)), {}),
        (stack("vision_tower.encoder.layers", range(4)), {"num_hidden_layers": 2}),
        ([embed(100, 64)], {"num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 90}),
        ([embed(100, 8, kind="U32")], {"hidden_size": 64, "vocab_size": 100}),
        ([embed(100, 32)], {"hidden_size": 64, "word_embed_proj_dim": 32}),
        ([embed(100, 32, "visual.embed_tokens.weight")], {"hidden_size": 64}),
        ([embed(100, 64)], {"hidden_size": True, "vocab_size": "many"}),
    ],
)
def test_a_configuration_that_agrees_with_the_tensors_or_does_not_say_is_not_contradicted(
    tensors: list[Tensor], config: dict[str, Any]
) -> None:
    assert said(tensors, **config) == ""


@pytest.mark.parametrize(
    ("tensors", "config", "told"),
    [
        (
            stack("model.layers", range(32)),
            {"num_hidden_layers": 40},
            "num_hidden_layers is 40, but the tensors hold 32 layers",
        ),
        (
            stack("model.layers", range(32)),
            {"num_hidden_layers": 1},
            "hold 32 layers (model.layers.0 to model.layers.31)",
        ),
        (stack("model.layers", range(32)), {"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        (stack("model.layers", range(6)), {"num_hidden_layers": 4, "num_nextn_predict_layers": 1}, "hold 6 layers"),
        (stack("model.layers", [0, 1, 3]), {"num_hidden_layers": 4}, "no tensor begins with model.layers.2"),
        (
            [*stack("visual.blocks", range(4)), *stack("model.layers", range(2))],
            {"text_config": {"num_hidden_layers": 4}},
            "model.layers",
        ),
        (
            [embed(100, 64)],
            {"hidden_size": 128},
            "hidden_size is 128, but model.embed_tokens.weight has the shape [100, 64]",
        ),
        ([embed(100, 64)], {"hidden_size": 64, "vocab_size": 101}, "vocab_size is 101"),
    ],
)
def test_a_configuration_that_lies_is_refused_with_both_numbers(
    tensors: list[Tensor], config: dict[str, Any], told: str
) -> None:
    assert told in said(tensors, **config)


def kinds(seen: Checkpoint) -> list[str]:
    return [problem.kind for problem in problems_of(seen, NATIVE)]


def test_code_of_the_repository_is_refused_only_where_the_architecture_needs_it() -> None:
    code = {"auto_map": {"AutoModelForCausalLM": "modeling_frob.FrobForCausalLM", "AutoConfig": None}}
    assert kinds(checkpoint(**code)) == []
    (problem,) = problems_of(checkpoint(model_type="frobnicator", **code), NATIVE)
    assert problem == ModelProblem(kind="remote_code", detail="frobnicator; auto_map: modeling_frob.FrobForCausalLM")


def test_a_known_language_model_with_other_parts_around_it_is_known_unless_it_brings_code() -> None:
    composed = {"model_type": "frob_vl", "text_config": {"model_type": "llama"}}
    assert kinds(checkpoint(**composed)) == []
    assert kinds(checkpoint(**composed, auto_map={"AutoModel": "frob.Frob"})) == ["remote_code"]
    assert kinds(checkpoint(model_type="frob_vl", text_config={"model_type": ["llama"]})) == ["unknown_architecture"]


def test_an_unknown_architecture_is_named_and_never_taken_for_one_that_looks_alike() -> None:
    (problem,) = problems_of(checkpoint(model_type="llama2", architectures=["FrobForCausalLM"]), NATIVE)
    assert problem == ModelProblem(kind="unknown_architecture", detail="'llama2' (FrobForCausalLM)")
    (problem,) = problems_of(checkpoint(model_type=None), NATIVE)
    assert problem == ModelProblem(kind="unknown_architecture", detail="config.json names no model_type")


def test_everything_that_stands_against_it_is_told_the_gravest_first() -> None:
    seen = checkpoint(stack("model.layers", range(2)), model_type="frobnicator", num_hidden_layers=3)
    assert kinds(seen) == ["unknown_architecture", "config_contradicts"]
    bare = Checkpoint(asked="a", source="here", seen_at=0.0, problem=ModelProblem(kind="gated", detail=""))
    assert kinds(bare) == ["gated"]


@pytest.mark.parametrize("auto_map", [None, 7, [], "", {"AutoModel": 7}, {"AutoModel": [None]}])
def test_an_auto_map_that_names_no_class_is_none(auto_map: object) -> None:
    assert checkpoint(auto_map=auto_map).auto_map == {}


def test_the_tokenizers_code_is_told_apart_from_the_models() -> None:
    tokenizer = {"auto_map": {"AutoTokenizer": ["tokenization_x.Tokenizer", None]}}
    seen = Checkpoint(asked="a", source="here", seen_at=0.0, config={"model_type": "llama"}, tokenizer_config=tokenizer)
    assert (seen.auto_map, seen.tokenizer_auto_map) == ({}, {"AutoTokenizer": "tokenization_x.Tokenizer"})


RAISED = re.compile(
    r"(?:ModelProblem\(kind=|RepositoryError\(\s*|ShardsError\(\s*|TryAgain\(|_refused\(start, |_broken\(asked, path, )"
    r'"([a-z_]+)"'
)


def test_every_kind_of_problem_that_is_raised_anywhere_has_a_reason_and_none_is_left_over() -> None:
    source = Path(gonogo.__file__).parent
    raised = {kind for path in source.rglob("*.py") for kind in RAISED.findall(path.read_text(encoding="utf-8"))}
    gguf = {"not_gguf", "truncated", "corrupt", "unknown"}
    assert len(set(PROBLEMS.values())) == len(PROBLEMS)
    assert raised - set(PROBLEMS) == set() and set(PROBLEMS) - raised <= gguf


@pytest.mark.parametrize("kind", sorted(PROBLEMS))
def test_a_hub_that_said_nothing_is_no_verdict_on_the_model(kind: str) -> None:
    broken = ModelFacts(asked="tiny", problem=ModelProblem(kind=kind, detail="what was seen"))
    (finding,) = model_readable(worlds.revision(), worlds.world(models={"tiny": broken}))
    nothing_seen = kind in ("unknown", "rate_limited", "hub_unreachable", "hub_broken", "not_cached")
    assert finding.verdict is (Verdict.UNKNOWN if nothing_seen else Verdict.FAIL)
    assert finding.reason == reason_of(ModelProblem(kind=kind, detail="")) == PROBLEMS[kind]
    if kind not in ("missing", "unreadable", "not_gguf", "truncated", "corrupt"):
        for language in ("en", "zh"):
            text = finding_text(finding.reason, finding.values, language)
            assert "what was seen" in text.seen and text.remedy
            assert kind == "id_mistaken" or "tiny" in text.seen
