"""A vision projector in llama.cpp's plan and command, and the check that holds it against the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping

import pytest
import yaml

from gonogo.checks.catalogue import CHECKS
from gonogo.checks.finding import Finding, Stage, Verdict
from gonogo.checks.model import PROJECTOR_PROBLEMS
from gonogo.engines.llamacpp import LlamaCpp
from gonogo.engines.llamacpp_vision import MOST_IMAGE_TOKENS, compute_bytes, image_tokens, projector_terms
from gonogo.engines.model import Placement
from gonogo.facts.model import ModelProblem, ProjectorFacts, Tensor
from gonogo.facts.parse_gguf import GgufError, Header
from gonogo.facts.parse_projector import projector_facts
from gonogo.facts.replica import ReplicaName
from gonogo.plan.decide import ask
from gonogo.spec import Expect, Spec
from tests.core import worlds

MIB = 1024**2
PRINTED: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent.parent / "cases/engines/llamacpp/projector.yaml").read_text()
)
PATH = "/models/mmproj.gguf"
SEEN = ProjectorFacts(
    path=PATH,
    kind="glm4v",
    image_size=336,
    patch_size=14,
    embedding_length=1536,
    feed_forward_length=4096,
    merger_length=13696,
    output_length=worlds.MODEL.embedding_length,
    weights_bytes=7 * MIB,
)
METADATA: Mapping[str, Any] = {
    "general.architecture": "clip",
    "general.type": "mmproj",
    "clip.has_vision_encoder": True,
    "clip.projector_type": "glm4v",
    "clip.vision.image_size": 336,
    "clip.vision.patch_size": 14,
    "clip.vision.embedding_length": 1536,
    "clip.vision.projection_dim": 768,
}
TENSORS = (
    Tensor(name="v.blk.0.ffn_up.weight", shape=(1536, 4096), kind="F16", size_bytes=100),
    Tensor(name="mm.up.weight", shape=(4096, 13696), kind="F16", size_bytes=20),
    Tensor(name="mm.down.weight", shape=(13696, 4096), kind="F16", size_bytes=3),
)
(CHECK,) = (check for check in CHECKS if check.name == "projector_usable")


def _header(tensors: tuple[Tensor, ...] = TENSORS, **changes: Any) -> Header:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    metadata = {name: value for name, value in {**METADATA, **named}.items() if value is not None}
    return Header(metadata=metadata, tensors=tensors, data_start=0)


def test_a_projectors_header_says_how_wide_its_tokens_are() -> None:
    found = projector_facts(_header(), PATH, 999)
    assert (found.kind, found.image_size, found.patch_size, found.merge) == ("glm4v", 336, 14, None)
    assert (found.embedding_length, found.feed_forward_length, found.merger_length) == (1536, 4096, 13696)
    assert (found.projection_length, found.output_length) == (768, 4096)
    assert (found.file_bytes, found.weights_bytes, found.problem) == (999, 123, None)


def test_the_width_of_a_kind_that_is_not_known_is_not_guessed() -> None:
    assert projector_facts(_header(clip__projector_type="quux"), PATH, 1).output_length is None


def test_the_kind_may_stand_in_the_key_for_mixed_files() -> None:
    mixed = _header(clip__projector_type=None, clip__vision__projector_type="gemma3")
    assert projector_facts(mixed, PATH, 1).kind == "gemma3"


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"general__architecture": "glm4"}, "not_projector", "'glm4'"),
        ({"general__architecture": None}, "not_projector", "no architecture"),
        ({"clip__has_vision_encoder": None, "clip__has_audio_encoder": True}, "not_projector", "no vision encoder"),
        ({"clip__projector_type": None}, "corrupt", "clip.projector_type"),
        ({"clip__vision__patch_size": None}, "corrupt", "clip.vision.patch_size"),
        ({"clip__vision__patch_size": 0}, "corrupt", "is 0"),
        ({"clip__vision__image_size": 1 << 31}, "corrupt", "2147483648"),
        ({"clip__vision__embedding_length": "wide"}, "corrupt", "'wide'"),
        ({"clip__vision__spatial_merge_size": True}, "corrupt", "True"),
        ({"tensors": ()}, "corrupt", "no tensors"),
    ],
)
def test_what_is_no_projector_says_why(changes: dict[str, Any], kind: str, words: str) -> None:
    with pytest.raises(GgufError) as caught:
        projector_facts(_header(**changes), PATH, 1)
    assert caught.value.problem.kind == kind
    assert words in caught.value.problem.detail


@pytest.mark.parametrize("row", PRINTED, ids=lambda row: "-".join(str(row[key]) for key in ("wide", "inner", "side")))
def test_the_encoders_buffer_is_what_the_engine_printed(row: dict[str, Any]) -> None:
    seen = replace(
        SEEN,
        embedding_length=row["wide"],
        feed_forward_length=row["inner"],
        merger_length=row["merger"],
        output_length=row["output"],
    )
    planned = compute_bytes(seen, (row["side"] // 28) ** 2)
    assert planned is not None
    least, most = (0.999, 1.25) if row.get("bound") else (0.999, 1.001)
    assert least * row["mib"] <= planned / MIB <= most * row["mib"]


def test_a_picture_leaves_a_quarter_of_the_context_and_is_never_larger_than_the_engine_takes() -> None:
    assert [image_tokens(SEEN, context) for context in (256, 1024, 25600)] == [192, 768, MOST_IMAGE_TOKENS]
    assert image_tokens(replace(SEEN, kind="gemma3"), 1024) is None


def test_a_projector_of_a_kind_that_was_not_held_against_the_engine_says_what_is_not_counted() -> None:
    (term,) = projector_terms(replace(SEEN, kind="qwen2.5vl_merger"), 2048, 2)
    assert (term.name, term.size_bytes) == ("projector", 7 * MIB)
    assert "not counted" in term.source and "qwen2.5vl_merger" in term.source
    assert projector_terms(ProjectorFacts(path=PATH), 2048, 2) == ()


def _spec(projector: str | None = PATH, concurrent: int = 4) -> Spec:
    expect = Expect(concurrent_requests=concurrent, context_tokens=1024)
    return Spec(service="seer", model="tiny", projector=projector, expect=expect)


def test_each_request_adds_a_picture_to_the_plan() -> None:
    model = replace(worlds.MODEL, projector=SEEN)
    few, many = (LlamaCpp().memory(_spec(concurrent=number), model, 2) for number in (4, 8))
    assert {"projector", "projector_compute", "pictures"} < {term.name for term in few.terms}
    assert all(term.source for term in few.terms)
    assert few.term("pictures") * 5 == many.term("pictures") * 3
    without = LlamaCpp().memory(_spec(projector=None), worlds.MODEL, 2)
    assert few.total_bytes - without.total_bytes == sum(
        few.term(name) for name in ("projector", "projector_compute", "pictures")
    )


def test_the_command_names_the_projector_and_bounds_a_picture() -> None:
    placement = Placement(
        name=ReplicaName(service="seer", revision=1, index=0), host="here", address="127.0.0.1", port=1, threads=1
    )
    model = replace(worlds.MODEL, path="/models/text.gguf", projector=SEEN)
    launch = LlamaCpp().launch(_spec(), model, placement)
    assert launch.command[-4:] == ("--projector", PATH, "--image-tokens", "768")
    assert "MALLOC_MMAP_THRESHOLD_" in launch.environment
    fixed = LlamaCpp().launch(_spec(), replace(model, projector=replace(SEEN, kind="gemma3")), placement)
    assert fixed.command[-2:] == ("--projector", PATH)
    text = LlamaCpp().launch(_spec(projector=None), replace(model, projector=None), placement)
    assert "--projector" not in text.command and "MALLOC_MMAP_THRESHOLD_" not in text.environment
    for unread in (None, ProjectorFacts(path=PATH, problem=ModelProblem(kind="missing", detail="none"))):
        with pytest.raises(ValueError, match="mmproj"):
            LlamaCpp().launch(_spec(), replace(model, projector=unread), placement)


def _finding(seen: ProjectorFacts | None, **model: Any) -> Finding:
    world = worlds.world(
        models={"tiny": replace(worlds.MODEL, **model)}, projectors={} if seen is None else {PATH: seen}
    )
    (found,) = CHECK.ask(worlds.revision(projector=PATH), world)
    return found


def test_a_projector_as_wide_as_the_model_fits() -> None:
    found = _finding(SEEN)
    assert (found.reason, found.verdict) == ("ProjectorFits", Verdict.PASS)


def test_a_projector_of_another_model_fails_with_both_widths() -> None:
    found = _finding(replace(SEEN, output_length=4096), embedding_length=5120)
    assert (found.reason, found.verdict) == ("ProjectorOfAnotherModel", Verdict.FAIL)
    assert (found.values["made"], found.values["read"]) == (4096, 5120)


def test_the_metadata_alone_may_prove_that_it_fits_and_never_that_it_does_not() -> None:
    spoken = replace(SEEN, output_length=None, projection_length=576)
    assert _finding(spoken, embedding_length=576).verdict is Verdict.PASS
    found = _finding(spoken, embedding_length=1024)
    assert (found.reason, found.verdict) == ("ProjectorFitUnknown", Verdict.UNKNOWN)


@pytest.mark.parametrize("kind", [*PROJECTOR_PROBLEMS, "unheard_of", None])
def test_each_way_in_which_a_projector_is_broken_has_a_name(kind: str | None) -> None:
    problem = None if kind is None else ModelProblem(kind=kind, detail="why")
    found = _finding(None if problem is None else ProjectorFacts(path=PATH, problem=problem))
    known = kind in PROJECTOR_PROBLEMS
    assert found.reason == (PROJECTOR_PROBLEMS[str(kind)] if known else "ProjectorUnknown")
    assert found.verdict is (Verdict.FAIL if known else Verdict.UNKNOWN)
    assert found.subject == f"projector/{PATH}"


def test_without_a_projector_the_question_does_not_arise() -> None:
    (found,) = CHECK.ask(worlds.revision(), worlds.world())
    assert found.verdict is Verdict.NOT_APPLICABLE


def test_a_broken_projector_is_one_finding_and_a_broken_model_is_not_a_riddle_about_it() -> None:
    broken = ProjectorFacts(path=PATH, problem=ModelProblem(kind="truncated", detail="short"))
    revision = worlds.revision(projector=PATH)
    answers = ask(CHECKS, Stage.PREFLIGHT, revision, worlds.world(projectors={PATH: broken}))
    assert {answer.check for answer in answers if answer.blocking} == {"projector_usable"}
    assert _finding(SEEN, problem=ModelProblem(kind="truncated", detail="short")).verdict is Verdict.NOT_APPLICABLE
