"""Condition 3, the model as a file: broken ones, an unknown architecture, too long a context, no chat template."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drills.harness import Second, Yard, assert_only, faulty, gonogo, port_of, spec, spec_file
from tests.drills.models import ModelFiles
from tests.shell.tiny_projector import write_tiny_projector

FOLDERS = ("ModelPickleOnly", "ModelShardMissing", "ModelShardDamaged", "ModelConfigContradicts")


@pytest.mark.parametrize(
    "reason", ["ModelMissing", "ModelUnreadable", "ModelTruncated", "ModelCorrupt", "ModelNotGguf", *FOLDERS]
)
def test_each_way_in_which_a_model_file_is_broken_has_a_name(yard: Yard, models: ModelFiles, reason: str) -> None:
    path = models.broken[reason]
    answers = yard.refused(spec(service="broken", model=str(path), gateway={"port": yard.port}))
    assert_only(answers, "model_readable", reason, f"model/{path}")


def test_model_readable(models: ModelFiles, tmp_path: Path) -> None:
    """A download that was cut off. On a deployment of its own, as a user would meet it: `gonogo up`."""
    cut = models.broken["ModelTruncated"]
    place = spec_file(tmp_path, model=str(cut))
    result = gonogo(tmp_path / "state", "up", place, "--yes")
    assert result.code == 3
    assert_only(result.json["answers"], "model_readable", "ModelTruncated", f"model/{cut}")
    assert not (tmp_path / "state").exists(), "nothing was started and nothing written"
    with faulty(tmp_path / "state", tmp_path, without=["model_readable"]) as own:
        assert own.left() == []
        own.port = port_of(place)
        result = own.run("up", place, "--yes", "--json")
        assert result.code == 4
        error = result.json["error"]
        assert error["reason"] == "RevisionRejected"
        assert "ReplicaCrashLooping" in error["message"]
        assert "ModelTruncated" not in result.out, "what is wrong with the file is not said any more"


def test_architecture_known(yard: Yard, models: ModelFiles) -> None:
    asked = spec(service="frobnicator", model=str(models.frobnicator), gateway={"port": yard.port})
    found = assert_only(yard.refused(asked), "architecture_known", "ArchitectureUnknown", f"model/{models.frobnicator}")
    assert found["values"]["architecture"] == "frobnicator"
    entry = yard.rejected(asked, without="architecture_known")
    assert entry["rejected"]["reason"] == "ReplicaCannotStart"
    assert entry["rejected"]["detail"]["why"] == "EngineUnknownArchitecture"


def test_projector_usable(yard: Yard, tmp_path: Path) -> None:
    """A whole projector, and of a model of another width: the engine finds out once it has loaded the model."""
    projector = write_tiny_projector(tmp_path / "mmproj.gguf")
    asked = spec(service="squints", projector=str(projector), gateway={"port": yard.port})
    subject = f"projector/{projector}"
    found = assert_only(yard.refused(asked), "projector_usable", "ProjectorOfAnotherModel", subject)
    assert (found["values"]["made"], found["values"]["read"]) == (64, 576)
    entry = yard.rejected(asked, without="projector_usable")
    assert entry["rejected"]["reason"] == "ReplicaCrashLooping"
    assert entry["rejected"]["detail"]["why"] == "EngineProjectorRefused"


def test_context_fits_model(yard: Yard, second: Second) -> None:
    """Accepted, proven, and the engine quietly takes less: the first long request is refused."""
    asked = second.asked.model_copy(update={"service": "long", "model": "smollm2-135m"})
    found = assert_only(yard.refused(asked), "context_fits_model", "ContextTooLong", "model/smollm2-135m")
    assert found["values"]["asked_tokens"] == second.asked.expect.context_tokens
    with second.client(yard) as client:
        answer = yard.chat(client, "The sea was calm. " * 1900, tokens=4, model=second.asked.service)
    assert answer.status_code == 400
    assert second.asked.expect.context_tokens > 11000, "as it was promised"


def test_chat_template_present(yard: Yard, second: Second, models: ModelFiles) -> None:
    """Accepted, proven, and the engine guesses: the model reads other words than those it was trained on."""
    asked = spec(service="bare", model=str(models.without_template), gateway={"port": yard.port})
    subject = f"model/{models.without_template}"
    assert_only(yard.refused(asked), "chat_template_present", "ChatTemplateMissing", subject)
    with second.client(yard) as client:
        guessed = yard.chat(client, "Who are you?", tokens=16, model=second.asked.service)
    right = yard.ask_once("Who are you?", tokens=16)
    assert (guessed.status_code, right.status_code) == (200, 200)
    assert guessed.json()["usage"]["prompt_tokens"] != right.json()["usage"]["prompt_tokens"]
