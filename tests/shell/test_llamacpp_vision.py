"""The real engine with a vision projector: it sees a picture that comes with the request, and nothing else."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator

import httpx
import pytest

from gonogo.engines.llamacpp import LlamaCpp
from gonogo.engines.llamacpp_vision import compute_bytes
from gonogo.engines.model import Launch, Placement
from gonogo.facts.model import ModelFacts
from gonogo.facts.replica import ReplicaName
from gonogo.runtimes.gguf_file import read_model, read_projector
from gonogo.spec import Expect, Replicas, Spec
from tests.shell.tiny_model import write_tiny_model
from tests.shell.tiny_projector import SIGHT, TEXT, Sight, picture, write_tiny_projector

MIB = 1024**2
ENGINE = LlamaCpp(sys.executable)
NAME = ReplicaName(service="seer", revision=1, index=0)
STARTED = "ffprobe-was-started"
WORDS = {"type": "text", "text": "What is this?"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeing:
    """A started engine with a projector."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    spec: Spec
    model: ModelFacts

    def ask(self, *parts: dict[str, Any]) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": [WORDS, *parts]}], "max_tokens": 4, "ignore_eos": True}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60.0, trust_env=False)


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def prompt_tokens(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 0
    tokens: int = answer.json()["usage"]["prompt_tokens"]
    return tokens


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _asked(text: Path, projector: Path, context: int) -> tuple[Spec, ModelFacts]:
    expect = Expect(concurrent_requests=1, context_tokens=context)
    spec = Spec(
        service="seer", model=str(text), projector=str(projector), expect=expect, replicas=Replicas(min=1, max=1)
    )
    return spec, replace(read_model(str(text), str(text)), projector=read_projector(str(projector)))


def _launch(spec: Spec, model: ModelFacts, port: int) -> Launch:
    return ENGINE.launch(spec, model, Placement(name=NAME, host="here", address="127.0.0.1", port=port, threads=2))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeing]:
    folder = tmp_path_factory.mktemp("seeing")
    text = write_tiny_model(folder / "text.gguf", TEXT)
    spec, model = _asked(text, write_tiny_projector(folder / "text-mmproj.gguf"), context=1024)
    port, log = _free_port(), folder / "engine.log"
    launch, program = _launch(spec, model, port), folder / "programs" / "ffprobe"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {folder / STARTED}\n")
    program.chmod(0o700)
    path = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            launch.command, stdout=file, stderr=file, env={**os.environ, **launch.environment, **path}
        )
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 30.0
        while not _healthy(url):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.02)
        yield Seeing(process=process, url=url, log=log, spec=spec, model=model)
    finally:
        process.kill()
        process.wait()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=1.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_picture_in_the_request_is_seen_and_counts_as_tokens(seeing: Seeing) -> None:
    without = prompt_tokens(seeing.ask())
    small, large = (prompt_tokens(seeing.ask(image(picture(side, side)))) for side in (112, 448))
    assert without < small
    assert large - small == (448 // 28) ** 2 - (112 // 28) ** 2  # one token for 28 x 28 pixels


def test_the_model_list_says_that_it_sees(seeing: Seeing) -> None:
    listed = httpx.get(f"{seeing.url}/v1/models", trust_env=False).json()
    assert [model["id"] for model in listed["data"]] == ["seer"]
    assert "multimodal" in listed["models"][0]["capabilities"]


def test_a_large_picture_is_scaled_to_three_quarters_of_the_context(seeing: Seeing) -> None:
    small = prompt_tokens(seeing.ask(image(picture(112, 112))))
    screen = prompt_tokens(seeing.ask(image(picture(1080, 2400))))
    assert 600 < screen - small + 16 <= 768


def test_pictures_that_do_not_fit_the_context_together_are_refused(seeing: Seeing) -> None:
    answer = seeing.ask(*(image(picture(1080, 2400)) for _ in range(2)))
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "exceed_context_size_error"


@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_no_picture_is_fetched_from_an_url(seeing: Seeing, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        answer = seeing.ask(image(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/picture.png"))
        assert answer.status_code in (400, 500)
        with pytest.raises(TimeoutError):
            server.accept()
    assert prompt_tokens(seeing.ask()) > 0


def test_no_picture_is_read_from_this_host(seeing: Seeing) -> None:
    answer = seeing.ask(image("file:///proc/self/environ"))
    assert answer.status_code == 400
    assert "not allowed" in answer.text


def test_what_is_no_picture_starts_no_program_and_ends_no_engine(seeing: Seeing) -> None:
    for url in ("data:image/png;base64,bm8gcGljdHVyZQ==", "data:video/mp4;base64,bm8gdmlkZW8="):
        assert seeing.ask(image(url)).status_code == 400
    assert "ffprobe" in seeing.log.read_text(errors="replace")  # it was tried
    assert not (seeing.log.parent / STARTED).exists()
    assert prompt_tokens(seeing.ask()) > 0


def test_the_encoders_buffer_is_the_planned_one_and_not_counted_as_the_models(seeing: Seeing) -> None:
    printed, plan = seeing.log.read_text(errors="replace"), ENGINE.memory(seeing.spec, seeing.model, 1)
    measured = ENGINE.measured(printed)
    assert measured.compute_bytes is not None and abs(plan.term("compute") - measured.compute_bytes) < 0.01 * MIB
    assert seeing.model.projector is not None
    size = re.search(r"compute_meta: +CPU compute buffer size = +([0-9.]+) MiB", printed)
    side = re.search(r"warmup with image size = (\d+) x", printed)
    assert size is not None and side is not None
    computed = compute_bytes(seeing.model.projector, (int(side[1]) // 28) ** 2)
    assert computed is not None and abs(computed - float(size[1]) * MIB) < 0.01 * MIB


def test_the_plan_covers_what_the_process_ever_took_for_screens_one_at_a_time(seeing: Seeing) -> None:
    for _ in range(3):
        assert prompt_tokens(seeing.ask(image(picture(1080, 2400)))) > 600
    planned = ENGINE.memory(seeing.spec, seeing.model, 1).total_bytes
    status = Path(f"/proc/{seeing.process.pid}/status").read_text()
    most = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert most is not None and 0.3 * planned < int(most[1]) * 1024 <= planned


def _fails(text: Path, projector: Path) -> tuple[int, str]:
    right = text.parent / "right-mmproj.gguf"
    spec, model = _asked(text, write_tiny_projector(right), context=256)
    command = [str(projector) if word == str(right) else word for word in _launch(spec, model, _free_port()).command]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("missing", "EngineProjectorUnreadable"),
        ("text", "EngineProjectorUnreadable"),
        ("cut", "EngineProjectorRefused"),
        ("model", "EngineProjectorRefused"),
        ("another", "EngineProjectorRefused"),
        ("unknown", "EngineProjectorRefused"),
    ],
)
def test_each_projector_that_cannot_be_used_is_one_clear_reason(tmp_path: Path, how: str, reason: str) -> None:
    text, path = write_tiny_model(tmp_path / "text.gguf", TEXT), tmp_path / "mmproj.gguf"
    if how == "text":
        path.write_text("no projector")
    elif how == "cut":
        path.write_bytes(write_tiny_projector(path).read_bytes()[:-4096])
    elif how == "model":
        path = text
    elif how == "another":
        write_tiny_projector(path, Sight(projection=2 * SIGHT.projection))
    elif how == "unknown":
        write_tiny_projector(path, Sight(kind="quux"))
    code, said = _fails(text, path)
    assert (code, ENGINE.explain_exit(said)) == (1, reason), said[-2000:]
    assert "gonogo.runner: Engine" in said


def test_without_a_fence_it_does_not_serve_pictures(tmp_path: Path) -> None:
    text = write_tiny_model(tmp_path / "text.gguf", TEXT)
    spec, model = _asked(text, write_tiny_projector(tmp_path / "mmproj.gguf"), context=256)
    program = (
        "import platform, runpy, sys; platform.machine = lambda: 'riscv64';"
        "sys.argv[0] = 'runner'; runpy.run_module('gonogo.runners.llamacpp', run_name='__main__')"
    )
    command = (sys.executable, "-c", program, *_launch(spec, model, _free_port()).command[3:])
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    assert (done.returncode, ENGINE.explain_exit(done.stderr)) == (1, "EngineFenceMissing")
