"""The quantization that is asked for against what the model file says it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gonogo.checks.catalogue import CHECKS
from gonogo.checks.finding import Finding, Stage, Verdict
from gonogo.facts.model import ModelFacts, ModelProblem, Tensor
from gonogo.facts.parse_gguf import Array, Header
from gonogo.facts.parse_model import model_facts
from gonogo.plan.decide import ask
from gonogo.spec import Quantization
from gonogo.words import explain, finding_text
from tests.core import worlds

FILE_TYPES = {0: "ALL_F32", 1: "MOSTLY_F16", 3: "MOSTLY_Q4_1", 7: "MOSTLY_Q8_0", 15: "MOSTLY_Q4_K_M", 1024: "GUESSED"}
(CHECK,) = (check for check in CHECKS if check.name == "quantization_as_asked")


def finding(asked: Quantization, held: str | None) -> Finding:
    seen = worlds.world(models={"tiny": replace(worlds.MODEL, quantization=held)})
    (found,) = CHECK.ask(worlds.revision(quantization=asked), seen)
    return found


def blocking(asked: Quantization, model: ModelFacts) -> set[str]:
    seen = worlds.world(models={"tiny": model})
    answers = ask(CHECKS, Stage.PREFLIGHT, worlds.revision(quantization=asked), seen)
    return {answer.check for answer in answers if answer.blocking}


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ("q8_0", "q8_0"),
        ("q4_k_m", "q4_k_m"),
        ("q4_1", "q4_1"),
        ("q4_1", "Q4_1"),
        ("none", "f32"),
        ("none", "f16"),
        ("none", "bf16"),
    ],
)
def test_a_file_that_holds_what_was_asked_for_passes(asked: str, held: str) -> None:
    found = finding(Quantization(asked), held)
    assert (found.reason, found.verdict) == ("QuantizationAsAsked", Verdict.PASS)
    assert found.values == {"asked": asked, "seen": held}


@pytest.mark.parametrize(
    ("asked", "held"),
    [("q8_0", "q4_1"), ("q4_1", "q4_0"), ("q4_k_m", "q4_k_s"), ("q8_0", "f16"), ("none", "q8_0"), ("none", "none")],
)
def test_a_file_that_holds_something_else_is_refused(asked: str, held: str) -> None:
    found = finding(Quantization(asked), held)
    assert (found.reason, found.verdict) == ("QuantizationDiffers", Verdict.FAIL)
    assert found.values == {"asked": asked, "seen": held}
    assert blocking(Quantization(asked), replace(worlds.MODEL, quantization=held)) == {"quantization_as_asked"}


@pytest.mark.parametrize("asked", [one for one in Quantization if one is not Quantization.AUTO])
def test_a_file_that_does_not_say_is_refused_too(asked: Quantization) -> None:
    found = finding(asked, None)
    assert (found.reason, found.verdict) == ("QuantizationUnknown", Verdict.UNKNOWN)
    assert blocking(asked, replace(worlds.MODEL, quantization=None)) == {"quantization_as_asked"}


@pytest.mark.parametrize("held", ["q4_1", "f16", None])
def test_auto_takes_whatever_the_file_holds_and_does_not_call_it_passed(held: str | None) -> None:
    found = finding(Quantization.AUTO, held)
    assert (found.reason, found.verdict) == ("NotApplicable", Verdict.NOT_APPLICABLE)
    assert found.values == {"why": "QuantizationAuto"}
    assert blocking(Quantization.AUTO, replace(worlds.MODEL, quantization=held)) == set()


def test_a_file_that_cannot_be_read_is_one_finding_and_not_a_riddle_about_its_quantization() -> None:
    broken = ModelFacts(asked="tiny", path="/m", problem=ModelProblem(kind="truncated", detail="short"))
    assert blocking(Quantization.Q8_0, broken) == {"model_readable"}


@pytest.mark.parametrize(
    ("file_type", "asked", "reason"),
    [
        (0, "none", "QuantizationAsAsked"),
        (1, "none", "QuantizationAsAsked"),
        (3, "q4_1", "QuantizationAsAsked"),
        (7, "q8_0", "QuantizationAsAsked"),
        (15, "q4_k_m", "QuantizationAsAsked"),
        (3, "q8_0", "QuantizationDiffers"),
        (1024, "q8_0", "QuantizationUnknown"),
        (99, "q8_0", "QuantizationUnknown"),
        ("7", "q8_0", "QuantizationUnknown"),
        (None, "q8_0", "QuantizationUnknown"),
    ],
)
def test_what_a_header_says_is_understood_as_a_spec_says_it(file_type: object, asked: str, reason: str) -> None:
    assert finding(Quantization(asked), held_by(file_type)).reason == reason


def test_each_refusal_says_both_and_two_ways_out() -> None:
    told = finding_text("QuantizationDiffers", finding(Quantization.Q8_0, "q4_1").values, "en")
    assert "q8_0" in told.seen
    assert "q4_1" in told.seen
    for reason in ("QuantizationDiffers", "QuantizationUnknown"):
        for lang in ("en", "zh"):
            remedy = finding_text(reason, {"asked": "q8_0", "seen": None}, lang).remedy or ""
            assert "quantization: auto" in remedy
            assert "q8_0" in remedy
            assert "llama-quantize" in explain(reason, lang)


def held_by(file_type: object) -> str | None:
    """The fact that is read from a header with this `general.file_type`; None: without it."""
    metadata: dict[str, object] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 4,
        "tokenizer.ggml.tokens": Array(length=3, numbers=None),
    }
    if file_type is not None:
        metadata["general.file_type"] = file_type
    tensor = Tensor(name="token_embd.weight", shape=(4, 3), kind="F32", size_bytes=48)
    header = Header(metadata=metadata, tensors=(tensor,), data_start=0)  # type: ignore[arg-type]
    return model_facts(header, {"llama"}, FILE_TYPES).quantization
