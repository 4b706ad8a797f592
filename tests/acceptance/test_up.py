"""What a user gets from `gonogo up`: a proven endpoint, lines that work when pasted, changes nobody notices."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from gonogo.facts.part import PARTS
from gonogo.spec.recipes import find_model
from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.load import Load
from tests.free_ports import free_port

ROOT = Path(__file__).parents[2]


def spec(deployment: Deployment, name: str = "smollm2-135m", **changes: Any) -> str:
    """A spec file for the embedded model, as JSON (which is YAML); returns its path."""
    fields = {
        "service": name,
        "model": "smollm2-135m",
        "replicas": 2,
        "gateway": {"address": "127.0.0.1", "port": deployment.port},
        **changes,
    }
    path = deployment.state_dir.parent / f"{name}.yaml"
    path.write_text(json.dumps(fields))
    return str(path)


def test_up_ends_with_a_proven_endpoint_within_fifteen_seconds(deployed: Deployment) -> None:
    up = deployed.last_up
    jsonschema.validate(up, json.loads((ROOT / "docs" / "reference" / "up.schema.json").read_text()))
    assert up["seconds_to_proven"] <= 15.0
    assert len(up["replicas"]) == 2
    assert up["findings"].get("fail", 0) == 0
    assert up["findings"]["pass"] >= 30
    assert {role: len(pids) for role, pids in up["processes"].items()} == {
        "keeper": 1,
        "control": 1,
        "gateway": 1,
        **PARTS,
        "replica": 2,
    }
    assert Path(up["report"]).is_file()


def test_the_openai_sdk_chats_streams_and_lists_models(deployed: Deployment) -> None:
    up = deployed.last_up
    trust = httpx.Client(verify=ssl.create_default_context(cafile=up["ca_file"]), trust_env=False)
    client = openai.OpenAI(base_url=up["endpoint"], api_key=deployed.key, http_client=trust)
    asked: Any = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    answer = client.chat.completions.create(model="smollm2-135m", messages=asked, max_tokens=16, temperature=0)
    assert "Paris" in (answer.choices[0].message.content or "")
    pieces = client.chat.completions.create(
        model="smollm2-135m", messages=asked, max_tokens=16, temperature=0, stream=True
    )
    texts = [piece.choices[0].delta.content or "" for piece in pieces if piece.choices]
    assert "Paris" in "".join(texts)
    assert len([text for text in texts if text]) >= 3
    assert [model.id for model in client.models.list()] == ["smollm2-135m"]
    with pytest.raises(openai.AuthenticationError) as refused:
        openai.OpenAI(base_url=up["endpoint"], api_key="gng_wrong", http_client=trust).models.list()
    assert refused.value.request_id or refused.value.body


def test_the_printed_lines_work_when_pasted_the_first_time_and_the_second(
    empty: Deployment, deployed: Deployment
) -> None:
    again = deployed.run("up", *deployed.settings(), "--replicas", "2")
    assert again.code == 0, again.out + again.err
    assert "$GONOGO_API_KEY" in again.out
    assert "gonogo keys create" in again.out
    curl = next(line for line in again.out.splitlines() if line.startswith("curl "))
    sdk = again.out[again.out.index("import os, ssl") : again.out.index("\nNext:")]
    environment = {**os.environ, "GONOGO_API_KEY": deployed.key}
    asked = subprocess.run(
        ["bash", "-c", curl], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    assert "Paris" in json.loads(asked.stdout)["choices"][0]["message"]["content"]
    words = [sys.executable, "-c", sdk]
    ran = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert "Paris" in ran.stdout, ran.stderr
    told = deployed.run("clients", "--json").json
    assert [one["name"] for one in told["clients"]] == ["curl", "openai"]
    for one in told["clients"]:
        assert "\n".join(one["lines"]) in again.out, "the same lines as after up"


def test_the_state_is_for_its_owner_alone_and_no_key_is_in_any_file(deployed: Deployment) -> None:
    secret = deployed.key[14:]
    for path in deployed.state_dir.rglob("*"):
        if path.is_symlink() or path.is_socket() or not path.exists():
            continue
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_nothing_of_ours_listens_beyond_loopback_and_the_admin_interface_has_no_port(deployed: Deployment) -> None:
    import psutil

    doors = set()
    for pids in deployed.status()["processes"].values():
        for pid in pids:
            for one in psutil.Process(pid).net_connections(kind="inet"):
                if one.status == psutil.CONN_LISTEN:
                    doors.add((one.laddr.ip, one.laddr.port))
    assert {address for address, _ in doors} == {"127.0.0.1"}
    engines = {one["port"] for one in deployed.status()["services"][0]["replicas"]}
    assert {port for _, port in doors} == engines | {deployed.port}


def test_two_ups_at_once_for_the_same_spec_both_end_well(deployed: Deployment) -> None:
    results: list[Any] = []
    same = ["--replicas", "2", *deployed.settings()]
    threads = [threading.Thread(target=lambda: results.append(deployed.run("up", "--json", *same))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.code for result in results] == [0, 0], [result.out + result.err for result in results]
    assert len(deployed.pids("control")) == 1


def test_a_change_that_cannot_start_leaves_the_old_replicas_serving_and_says_why(deployed: Deployment) -> None:
    before = deployed.pids("replica")
    assert len(before) == 2
    whole = Path(find_model("smollm2-135m") or "")
    broken = deployed.state_dir.parent / "broken.gguf"
    content = bytearray(whole.read_bytes())
    # The header stays what it was, so preflight sees a whole file; the engine does not know this tokenizer.
    at = content.index(b"gpt2", content.index(b"tokenizer.ggml.model"))
    content[at : at + 4] = b"gpt9"
    broken.write_bytes(content)
    with Load(deployed) as load:
        load.wait_for_more(5)
        result = deployed.run("up", spec(deployed, model=str(broken)), "--json", "--yes")
        load.wait_for_more(5)
    assert result.code == 4, result.out + result.err
    assert load.failed == []
    error = json.dumps(result.json)
    assert "ReplicaCrashLooping" in error
    wait_for(lambda: deployed.pids("replica") == before, 20, f"only {before} are left\n{deployed.logs()}")
    shown = deployed.run("status")
    assert "ReplicaCrashLooping" in shown.out, shown.out
    deployed.run("up", "--json", *deployed.settings(), "--replicas", "2")


def test_a_change_rolls_without_a_failed_request_and_the_old_revision_goes(deployed: Deployment) -> None:
    before = deployed.status()["services"][0]["serving"]
    with Load(deployed) as load:
        load.wait_for_more(5)
        path = spec(deployed, expect={"concurrent_requests": 6, "context_tokens": 1024})
        assert deployed.run("up", path, "--json", "--yes").code == 0
        load.wait_for_more(10)

        def alone() -> bool:
            (service,) = deployed.status()["services"]
            ids = [one["id"] for one in service["replicas"]]
            return service["serving"] != before and len(ids) == 2 and all(f"/{before}/" not in one for one in ids)

        wait_for(alone, 40, f"the old revision is gone\n{deployed.logs()}")
        load.wait_for_more(5)
    assert load.failed == []


def test_a_second_service_lives_beside_the_first_and_goes_alone(deployed: Deployment) -> None:
    up = deployed.run("up", spec(deployed, "second", replicas=1), "--json", "--yes").json
    assert up["service"] == "second", up
    with deployed.client() as client:
        mine = client.get("/v1/models").json()
        theirs = client.get("/v1/models", headers={"authorization": f"Bearer {up['api_key']}"}).json()
    assert [one["id"] for one in mine["data"]] == ["smollm2-135m"]
    assert [one["id"] for one in theirs["data"]] == ["second"]
    assert deployed.run("down", "second", "--yes", "--json").code == 0
    names = [service["name"] for service in deployed.status()["services"]]
    assert names == ["smollm2-135m"]
    assert len(deployed.pids("replica")) == 2
    with deployed.client() as client:
        gone = client.get("/v1/models", headers={"authorization": f"Bearer {up['api_key']}"})
        assert client.get("/v1/models").status_code == 200
    assert gone.status_code == 503
    assert "second" in gone.json()["error"]["message"]


def test_down_ends_every_process_and_up_brings_the_service_back(deployed: Deployment) -> None:
    assert deployed.run("down", "--all", "--yes", "--json").code == 0
    time.sleep(2.0)  # keeper and control start each other again: neither may come back
    assert deployed.left() == []
    deployed.up("--replicas", "2")
    with deployed.client() as client:
        assert deployed.ask(client).status_code == 200


WRONG = [
    ("service: x\nmodel: smollm2-135m\nreplicas: 0\n", "3:11"),
    ("service: x\nmodle: smollm2-135m\n", "2:1"),
    ("service: [\n", "NotYaml"),
    ("service: x\nmodel: smollm2-135m\ngateway: {port: 70000}\n", "3:17"),
]


@pytest.mark.parametrize(("text", "place"), WRONG)
def test_a_wrong_spec_is_refused_with_its_place_and_nothing_is_started(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    deployment = Deployment(tmp_path / "state", free_port())
    result = deployment.run("up", str(path))
    assert result.code == 2
    assert place in result.out + result.err or place == "NotYaml"
    assert str(path.name) in result.out + result.err
    assert not deployment.state_dir.exists()


MODELS: dict[str, tuple[bytes | None, int, str]] = {
    "missing": (None, 2, "SpecNotFound"),
    "empty": (b"", 3, "ModelTruncated"),
    "not-gguf": (b"#!/bin/sh\n" * 100, 3, "ModelNotGguf"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_bad_model_file_blocks_before_anything_is_started(tmp_path: Path, kind: str) -> None:
    content, code, reason = MODELS[kind]
    path = tmp_path / f"{kind}.gguf"
    if content is not None:
        path.write_bytes(content)
    deployment = Deployment(tmp_path / "state", free_port())
    result = deployment.run("up", str(path), "--json", "--listen", f"127.0.0.1:{deployment.port}")
    assert result.code == code, result.out + result.err
    assert reason in result.out
    assert deployment.left() == []


def test_a_taken_port_blocks_and_names_the_holder(tmp_path: Path) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        deployment = Deployment(tmp_path / "state", holder.getsockname()[1])
        result = deployment.run("up", "--listen", f"127.0.0.1:{deployment.port}")
        assert result.code == 3
        assert "PortTaken" in result.out
        assert re.search(rf"\b{os.getpid()}\b", result.out)
        assert deployment.left() == []


def test_a_long_state_directory_works_although_socket_paths_are_short(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / ("long-" * 24) / "state", free_port())
    try:
        deployment.up("--replicas", "1")
        with deployment.client() as client:
            assert deployment.ask(client).status_code == 200
    finally:
        deployment.down()
        shutil.rmtree(tmp_path, ignore_errors=True)


def test_ctrl_c_in_the_middle_of_up_says_what_was_changed_and_a_second_up_finishes(tmp_path: Path) -> None:
    import signal

    deployment = Deployment(tmp_path / "state", free_port())
    try:
        words = [sys.executable, "-m", "gonogo.cli.main", "up", "--state-dir", str(deployment.state_dir)]
        running = subprocess.Popen(
            [*words, "--listen", f"127.0.0.1:{deployment.port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_for(lambda: "replica" in _seen_roles(deployment), 40, "a replica was started")
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=20)
        assert running.returncode == 130, out
        assert "was asked for" in out
        assert "gonogo down" in out
        deployment.up()
        time.sleep(0.2)
        assert len(deployment.pids("replica")) == 2
    finally:
        deployment.down()


def _seen_roles(deployment: Deployment) -> str:
    roles = []
    for pid in deployment.left():
        try:
            marks = Path(f"/proc/{pid}/environ").read_bytes().decode()
        except OSError:
            continue
        roles.append(marks.partition("GONOGO_ROLE=")[2].partition("\0")[0])
    return " ".join(roles)
