"""A recipe from a hub to the front door: GGUF files fetched, served with their projector, asked, and found wanting.

The weights are random, so that this is also the worst model there can be: it streams, it is fast, it answers nonsense
with status 200. It must not be given traffic.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Iterator

import pytest

from tests.acceptance.deployment import Deployment, Result
from tests.free_ports import free_port
from tests.shell.fake_hub import Door, FakeHub, HubFile, large
from tests.shell.tiny_model import write_tiny_model
from tests.shell.tiny_projector import TEXT, write_tiny_projector

REPOSITORY = "Luckybala/AutoGLM-Phone-9B-Q4_K_M.gguf"
FILES = ("AutoGLM-Phone-9B-Q4_K_M.gguf", "AutoGLM-Phone-9B-mmproj.gguf")
LAYERS = 160
"""Deep enough that a token takes milliseconds: pieces less than 1 ms apart count as held back and sent at once."""
SMALL = {"width": 140, "height": 280}
SPEC = {
    "service": "phone",
    "model": "autoglm-phone-9b",
    "engine": {"name": "llama.cpp"},
    "replicas": 1,
    "expect": {"concurrent_requests": 2, "context_tokens": 1024},
    "probes": [
        {
            "name": "answers-in-its-format",
            "kind": "answer_format",
            "prompt": "打开微信",
            "picture": SMALL,
            "expect_pattern": r"(do|finish)\(",
            "max_tokens": 24,
        },
        {
            "name": "taps-the-red-square",
            "kind": "grounding",
            "prompt": "点击红色方块",
            "pictures": [SMALL],
            "answer_pattern": r"\[(?P<x>\d+),(?P<y>\d+)\]",
            "scale": 1000,
            "most_error_percent": 2,
            "max_tokens": 24,
        },
    ],
}
"""The recipe's own pictures of whole screens take minutes on a processor."""


def hub_file(path: Path) -> HubFile:
    content = path.read_bytes()
    return large(content, len(content))


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    place = Path(tempfile.mkdtemp(prefix="gonogo-hub-"))
    write_tiny_model(place / FILES[0], replace(TEXT, layers=LAYERS))
    write_tiny_projector(place / FILES[1])
    door = Door()
    yield door.opened(FakeHub(models={REPOSITORY: {name: hub_file(place / name) for name in FILES}}))
    door.close()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def tried(hub: FakeHub) -> Iterator[tuple[Deployment, Result]]:
    place = Path(tempfile.mkdtemp(prefix="gonogo-recipe-"))
    environment = {"HF_ENDPOINT": hub.endpoint, "XDG_CACHE_HOME": str(place / "cache")}
    deployment = Deployment(state_dir=place / "state", port=free_port(), environment=environment)
    (place / "phone.yaml").write_text(json.dumps({**SPEC, "gateway": {"port": deployment.port}}))
    try:
        yield deployment, deployment.run("up", str(place / "phone.yaml"), "--json", "--yes", timeout_s=280)
    finally:
        deployment.down()
        shutil.rmtree(place, ignore_errors=True)


def test_both_files_are_fetched_whole_and_named_in_the_revision(tried: tuple[Deployment, Result]) -> None:
    deployment, _ = tried
    (listed,) = deployment.run("models", "list", "--json").json["models"]
    assert (listed["model"], {one["name"] for one in listed["files"]} >= set(FILES)) == (REPOSITORY, True)
    assert deployment.status()["services"][0]["model"].endswith(FILES[0])


def test_a_model_that_answers_nonsense_is_started_asked_and_given_no_traffic(tried: tuple[Deployment, Result]) -> None:
    deployment, ended = tried
    assert ended.code == 4, ended.out + ended.err + deployment.logs()
    assert ended.json["error"]["reason"] == "RevisionRejected"
    answers = ended.json["answers"]
    failed = {one["check"] for one in answers if one["verdict"] == "fail"}
    assert {"answer_format", "grounding"} <= failed, failed
    passed = {one["check"] for one in answers if one["verdict"] == "pass"}
    assert {"projector_usable", "model_readable", "keyless_refused", "stream_in_pieces"} <= passed
    (service,) = deployment.status()["services"]
    assert (service["serving"], service["phase"]) == (None, "rejected")


def test_what_is_here_is_not_fetched_again(tried: tuple[Deployment, Result], hub: FakeHub) -> None:
    deployment, _ = tried
    before = hub.sent("/storage/")
    again = deployment.run("models", "fetch", "autoglm-phone-9b", "--quantization", "q4_k_m", "--json", "--yes")
    assert (again.code, again.json["fetched"]) == (0, False), again.out + again.err
    assert hub.sent("/storage/") == before > 0
