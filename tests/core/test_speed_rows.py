"""How measured rows are read for the speed benchmark: cards, layouts, precisions, and what is refused with a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from model_rows import architecture_of
from speed import main
from speed_cards import host
from speed_rows import Models, NotAttempted, identity, sample_of

from gonogo.facts.numbers import ConfigError
from gonogo.facts.weights import groups_of, parameters
from gonogo.plan.roofline import Layout

MODELS = Models({})
SERVING: dict[str, Any] = {
    "kind": "serving_agg",
    "engine": "vllm",
    "model": "openai/gpt-oss-120b",
    "gpu": "h100_sxm",
    "precision": "fp4",
    "isl": 1024,
    "osl": 512,
    "concurrency": 16,
    "tp": 2,
    "ttft_ms": 50.0,
    "tpot_ms": 5.0,
}
NEW_MODEL = {
    "model": "someone/Qwen3-11B",
    "num_layers": 40,
    "hidden": 4096,
    "heads": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "intermediate": 12288,
    "vocab": 151936,
    "tie_embeddings": False,
}


def test_a_serving_row_is_seconds_per_token_of_its_deployment() -> None:
    found = sample_of(SERVING, MODELS)
    assert (found.quantity, found.value, found.ttft_s) == ("itl_s", 0.005, 0.05)
    assert found.deployment.card.name == "H100 SXM 80GB"
    assert found.deployment.scheme == "mxfp4 experts"
    assert (found.load.prompt_tokens, found.load.answer_tokens, found.load.concurrent) == (1024, 512, 16)


@pytest.mark.parametrize(
    ("columns", "layout"),
    [
        ({"tp": 8, "moe_tp": "8", "moe_ep": "1"}, Layout(tensor=8)),
        ({"tp": 4, "moe_tp": "1", "moe_ep": "4"}, Layout(tensor=4)),
        ({"tp": 64, "moe_tp": "8", "moe_ep": "8"}, Layout(tensor=8)),
        ({"tp": 1, "dp_attention": 64, "moe_tp": "8", "moe_ep": "8"}, Layout(data=8)),
        ({"tp": 1, "dp_attention": 8, "moe_tp": "1", "moe_ep": "8"}, Layout(data=8)),
        ({"tp": 1, "moe_tp": "2", "moe_ep": "1"}, Layout(tensor=2)),
        ({"tp": 72, "moe_tp": "72", "moe_ep": "1"}, Layout(data=72)),
    ],
)
def test_the_columns_of_a_row_say_how_many_cards_there_are(columns: dict[str, Any], layout: Layout) -> None:
    assert sample_of({**SERVING, **columns}, MODELS).deployment.layout == layout


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"concurrency": 0}, "concurrency not stated"),
        ({"model": "nobody/knows-this"}, "model not known"),
        ({"gpu": "abacus"}, "card not known"),
        ({"engine": "quill"}, "engine not known"),
        ({"kind": "mlperf_offline"}, "kind mlperf_offline"),
        ({"tpot_ms": None}, "no time per token"),
    ],
)
def test_a_row_that_says_too_little_is_not_attempted_and_the_reason_is_given(
    changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NotAttempted, match=reason):
        sample_of({**SERVING, **changed}, MODELS)


@pytest.mark.parametrize(
    ("name", "card", "count"),
    [
        ("3090 24GB * 4", "RTX 3090 24GB", 4),
        ("RTX 4000 Ada 20GB", "RTX 4000 Ada", 1),
        ("A100 SXM 80GB * 4", "A100 80GB SXM", 4),
        ("8x H100 (post)", "H100 SXM 80GB", 8),
        ("h200_sxm", "H200 SXM 141GB", 1),
        ("H20 96GB", "H20 96GB", 1),
        ("DGX Spark GB10", "GB10", 1),
        ("M1 Max 32‑Core GPU 64GB", "Apple M1 Max", 1),
    ],
)
def test_a_card_is_found_by_the_name_that_a_row_gives_it(name: str, card: str, count: int) -> None:
    found = host(name)
    assert found is not None
    assert (found.card.name, found.count) == (card, count)


def test_precisions_and_tunings_of_one_shape_are_one_model() -> None:
    names = ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3", "nvidia/DeepSeek-V3.1-NVFP4")
    assert len({identity(MODELS.find(name, "fp8")) for name in names}) == 1
    assert identity(MODELS.find("LLaMA-3 8B F16", "gguf")) == identity(MODELS.find("Llama-3.1-8B", "fp8"))
    assert identity(MODELS.find("Qwen3-32B", "")) != identity(MODELS.find("Qwen3-8B", ""))


def test_a_model_that_the_catalogue_lacks_comes_from_a_row_of_models() -> None:
    found = Models({"someone/Qwen3-11B": NEW_MODEL}).find("Qwen3-11B", "bf16")
    assert (found.model_type, len(found.layers)) == ("qwen3", 40)
    assert parameters(groups_of(found)) == pytest.approx(9.0e9, rel=0.01)


def test_a_row_whose_name_says_no_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="no known family"):
        architecture_of({**NEW_MODEL, "model": "someone/Something-11B"})


def test_the_benchmark_counts_what_it_attempts_and_says_why_not_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**SERVING, "concurrency": count} for count in (4, 16, 64)]
    rows += [{**SERVING, "model": "meta-llama/Llama-3.1-8B", "precision": "fp8", "tpot_ms": 7.0}]
    rows += [{**SERVING, "model": "Qwen3-11B", "precision": "bf16", "tpot_ms": 12.0}, {**SERVING, "concurrency": 0}]
    measured, models = tmp_path / "rows.jsonl", tmp_path / "models.json"
    measured.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    models.write_text(json.dumps({"someone/Qwen3-11B": NEW_MODEL}), encoding="utf-8")
    assert main(["--rows", str(measured), "--fit", str(measured), "--models", str(models), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["attempted"] == 5
    assert said["not attempted"] == {"concurrency not stated": 1}
    assert said["models fitted"] == 3
    line = said["all"]["time per token"]
    assert line["n"] == 5
    assert line["in_sample"]["median"] <= line["left_out"]["median"]
    assert line["peer"]["median"] > 0
    assert said["largest difference between fit and pure code"] < 1e-3


def test_without_any_row_that_can_be_attempted_the_benchmark_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = tmp_path / "rows.jsonl"
    measured.write_text(json.dumps({**SERVING, "concurrency": 0}), encoding="utf-8")
    assert main(["--rows", str(measured), "--fit", str(measured)]) == 2
    assert "concurrency not stated" in capsys.readouterr().err


def test_the_width_of_a_dense_layer_is_never_taken_for_that_of_experts() -> None:
    lite = {
        **NEW_MODEL,
        "model": "deepseek-ai/DeepSeek-V2-Lite-Chat",
        "num_layers": 27,
        "hidden": 2048,
        "heads": 16,
        "kv_heads": 16,
        "vocab": 102400,
        "intermediate": None,
        "experts": 64,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
    }
    assert parameters(groups_of(architecture_of(lite))) == pytest.approx(15.7e9, rel=0.01)
    glm = {**lite, "model": "zai-org/GLM-4.5", "kv_lora_rank": None, "intermediate": 12288, "experts_per_tok": 8}
    with pytest.raises(ConfigError, match="width is not said"):
        architecture_of(glm)
