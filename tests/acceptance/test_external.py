"""A service whose replicas are servers of other people, here processes of the test: nothing of the model is here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Iterator

import httpx
import pytest

from gonogo.runtimes.programs import gateway_binary
from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.load import Load, Streams
from tests.free_ports import free_port
from tests.shell.outside_engine import OutsideEngine

MODEL = "phone"


@pytest.fixture(scope="module")
def engines() -> Iterator[list[OutsideEngine]]:
    """Three servers; the last has no /health."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(OutsideEngine(MODEL)),
            stack.enter_context(OutsideEngine(MODEL)),
            stack.enter_context(OutsideEngine(MODEL, "--no-health")),
        ]


@pytest.fixture(scope="module")
def spec_file(empty: Deployment) -> Path:
    return empty.state_dir.parent / "far.yaml"


def write(path: Path, *urls: str, model: str = MODEL) -> str:
    path.write_text(json.dumps({"service": MODEL, "model": model, "replicas": {"external": list(urls)}}))
    return str(path)


@pytest.fixture(scope="module")
def far(empty: Deployment, engines: list[OutsideEngine], spec_file: Path) -> Deployment:
    """Two of the servers, one by its address and one by its name, proven."""
    empty.up(write(spec_file, engines[0].url, engines[1].url.replace("127.0.0.1", "localhost")))
    return empty


def healths(deployment: Deployment) -> dict[str, str]:
    """Of the servers of the revision that serves; those of the one before may still drain."""
    (service,) = deployment.status()["services"]
    mine = f"{service['name']}/{service['serving']}/"
    return {one["url"]: one["health"] for one in service["replicas"] if one["id"].startswith(mine)}


def ports_that_answer(deployment: Deployment, asked: int = 12) -> set[str]:
    with deployment.client() as client:
        answers = [deployment.ask(client) for _ in range(asked)]
    assert {one.status_code for one in answers} == {200}
    return {one.json()["system_fingerprint"] for one in answers}


def test_only_external_replicas_are_proven_with_nothing_of_the_model_here(
    far: Deployment, engines: list[OutsideEngine]
) -> None:
    told = far.last_up
    assert told["findings"]["fail"] == 0
    assert told["processes"]["replica"] == []
    assert [one["pid"] for one in told["replicas"]] == [None, None]
    assert not list((far.state_dir / "models").glob("*"))
    assert ports_that_answer(far) == {f"port-{one.port}" for one in engines[:2]}


def test_the_same_spec_again_changes_nothing(far: Deployment, spec_file: Path) -> None:
    assert far.up(str(spec_file))["changed"] is False


def test_a_server_that_dies_is_passed_over_and_one_that_comes_back_is_found(
    far: Deployment, engines: list[OutsideEngine]
) -> None:
    first, second = engines[:2]
    with Load(far, workers=4) as load:
        load.wait_for_more(20)
        first.kill()
        wait_for(lambda: healths(far)[first.url] == "dead", 20, "the gateway's health check is believed")
        load.wait_for_more(20)
        told = far.run("check", "--json").json["answers"]
        silent = [one for one in told if one["check"] == "external_servers_all" and one["stage"] == "live"]
        assert [(one["reason"], one["blocks"]) for one in silent] == [("ExternalSilent", False)]
        first.start()
        wait_for(lambda: healths(far)[first.url] == "ready", 20, "it is found again")
        load.wait_for_more(20)
    assert load.failed == []
    assert ports_that_answer(far) == {f"port-{one.port}" for one in (first, second)}


def test_the_list_is_changed_under_load_without_a_failed_request(
    far: Deployment, engines: list[OutsideEngine], spec_file: Path
) -> None:
    before = far.status()["services"][0]["serving"]
    with Load(far, workers=2) as whole, Streams(far, workers=2, tokens=60) as streams:
        far.up(write(spec_file, engines[1].url, engines[2].url))
        far.up(write(spec_file, engines[0].url, engines[1].url))
        far.up(write(spec_file, engines[2].url))
        whole.wait_for_more(10)
        streams.wait_for_more(5)
    assert whole.failed == []
    assert streams.failed == []
    assert len(whole.answers) + len(streams.answers) > 100
    assert far.status()["services"][0]["serving"] == before + 3
    assert ports_that_answer(far, 4) == {f"port-{engines[2].port}"}


def test_a_server_without_health_is_asked_for_its_models_instead(far: Deployment) -> None:
    assert list(healths(far).values()) == ["ready"]


def test_servers_of_another_model_or_none_at_all_are_refused_before_anything_changes(
    far: Deployment, engines: list[OutsideEngine], spec_file: Path
) -> None:
    serving = far.status()["services"][0]["serving"]
    for urls, reason in [
        (("http://127.0.0.1:9",), "ExternalNoneAnswers"),
        ((engines[0].url, engines[1].url), "ExternalModelUnknown"),
    ]:
        model = MODEL if reason == "ExternalNoneAnswers" else "another"
        refused = far.run("up", write(spec_file, *urls, model=model), "--json", "--yes", *far.settings())
        assert refused.code == 3, refused.out + refused.err
        assert reason in refused.out
    assert far.status()["services"][0]["serving"] == serving


def test_control_killed_serves_on_and_the_next_one_sees_the_same(far: Deployment, engines: list[OutsideEngine]) -> None:
    before = healths(far)
    (control,) = far.pids("control")
    with Load(far) as load:
        os.kill(control, signal.SIGKILL)
        load.wait_for_more(20)
        wait_for(
            lambda: far.run("status", "--json").code == 0 and far.pids("control") != [control], 60, "a new control"
        )
        wait_for(lambda: healths(far) == before, 20, "the same servers, as well as before")
        load.wait_for_more(10)
    assert load.failed == []


def test_servers_that_call_the_model_otherwise_hear_their_own_name(
    far: Deployment, engines: list[OutsideEngine], spec_file: Path
) -> None:
    name = 'Org/Phone "9B"'
    picture = "x" * 1_300_000
    with OutsideEngine(name) as one, OutsideEngine(name) as two:
        far.up(write(spec_file, one.url, two.url, model=name))
        with far.client() as client:
            listed = client.get("/v1/models").json()
            assert [model["id"] for model in listed["data"]] == [MODEL]
            bodies = (
                f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "\\"model\\": \\"no\\""}}]}}',
                f'{{"messages": [{{"role": "user", "content": "{picture}"}}], "mod\u0065l" : "{MODEL}" }}',
            )
            for body in bodies:
                answer = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
                assert (answer.status_code, answer.json()["model"]) == (200, name)
            one.kill()
            assert {far.ask(client).status_code for _ in range(6)} == {200}, "repeated with the same name"
        with Streams(far, workers=2, tokens=20) as streams:
            streams.wait_for_more(4)
        assert streams.failed == []
        far.up(write(spec_file, engines[1].url, engines[2].url))


def test_a_second_envoy_serves_with_what_render_prints(far: Deployment, tmp_path: Path) -> None:
    refused = far.run("render", "envoy", "no-such-service")
    assert refused.code == 4
    assert "phone" in refused.err
    port = free_port()
    rendered = far.run("render", "envoy", MODEL, "--listen", f"127.0.0.1:{port}")
    assert rendered.code == 0, rendered.err
    assert "PRIVATE KEY" not in rendered.out
    file = tmp_path / "envoy.yaml"
    file.write_text(rendered.out, encoding="utf-8")
    words = [gateway_binary(), "--config-path", str(file), "--disable-hot-restart", "--log-level", "error"]
    with open(tmp_path / "log", "w") as log, subprocess.Popen(words, stdout=log, stderr=log) as second:
        try:
            beside = replace(far, port=port)

            def answered() -> bool:
                with contextlib.suppress(httpx.TransportError), beside.client() as client:
                    return beside.ask(client).status_code == 200
                return False

            wait_for(answered, 20, f"an answer through the second Envoy: {(tmp_path / 'log').read_text()}")
            assert ports_that_answer(beside) == ports_that_answer(far)
            with httpx.Client(verify=False, trust_env=False) as stranger:
                assert stranger.get(f"https://127.0.0.1:{port}/v1/models").status_code == 401
        finally:
            second.kill()


def test_taken_down_nothing_is_left_and_the_servers_run_on(far: Deployment, engines: list[OutsideEngine]) -> None:
    gone = far.run("down", MODEL, "--json", "--yes")
    assert gone.code == 0, gone.err
    wait_for(lambda: far.status()["services"] == [], 30, "the service is forgotten")
    assert all(one.process is not None and one.process.poll() is None for one in engines)
