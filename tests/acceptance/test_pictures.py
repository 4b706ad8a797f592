"""A picture through the real gateway: the embedded model, with a tiny projector of random weights as wide as it is."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any, Iterator

import httpx
import pytest

from gonogo.api.client import ControlClient
from gonogo.runtimes.paths import StatePaths
from tests.acceptance.deployment import Deployment
from tests.free_ports import free_port
from tests.shell.tiny_projector import Sight, picture, write_tiny_projector

WIDTH = 576
"""Elements of one token of SmolLM2-135M."""


@pytest.fixture(scope="module")
def seeing() -> Iterator[Deployment]:
    """Two replicas; the projector's path in the spec is relative to it."""
    place = Path(tempfile.mkdtemp(prefix="gonogo-pictures-"))
    deployment = Deployment(state_dir=place / "state", port=free_port())
    write_tiny_projector(place / "mmproj.gguf", Sight(projection=WIDTH))
    fields = {
        "service": "seer",
        "model": "smollm2-135m",
        "projector": "mmproj.gguf",
        "replicas": 2,
        "expect": {"concurrent_requests": 2, "context_tokens": 1024},
    }
    (place / "seer.yaml").write_text(json.dumps(fields))
    try:
        deployment.up(str(place / "seer.yaml"))
        yield deployment
    finally:
        deployment.down()
        shutil.rmtree(place, ignore_errors=True)


def _asked(deployment: Deployment, *urls: str) -> httpx.Response:
    pictures: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": "What is this?"}, *pictures]
    with deployment.client() as client:
        return client.post(
            "/v1/chat/completions",
            json={"model": deployment.service, "messages": [{"role": "user", "content": content}], "max_tokens": 4},
        )


def test_a_picture_is_seen_through_the_front_door(seeing: Deployment) -> None:
    without, seen = _asked(seeing), _asked(seeing, picture(448, 448))
    assert (without.status_code, seen.status_code) == (200, 200), f"{without.text}\n{seen.text}"
    assert seen.json()["usage"]["prompt_tokens"] > without.json()["usage"]["prompt_tokens"] + 250


def test_no_client_makes_it_fetch_a_url(seeing: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        refused = _asked(seeing, f"http://127.0.0.1:{server.getsockname()[1]}/picture.png")
        assert refused.status_code >= 400
        with pytest.raises(TimeoutError):
            server.accept()
    assert _asked(seeing).status_code == 200


def test_the_projector_is_checked_and_in_the_plan(seeing: Deployment) -> None:
    told = ControlClient(StatePaths.of(seeing.state_dir).control_socket).report("seer")
    (checked,) = [answer for answer in told["answers"] if answer["check"] == "projector_usable"]
    assert (checked["reason"], checked["verdict"]) == ("ProjectorFits", "pass")
    assert {"projector", "projector_compute", "pictures"} < {term["name"] for term in told["memory_plan"]["terms"]}
    assert told["model"]["projector"]["kind"] == "glm4v"
