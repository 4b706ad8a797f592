"""gRPC as a user meets it: the real command, Envoy and llama.cpp, the example program, and what happens in a kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from gonogo.rpc.v1 import inference_pb2 as pb
from gonogo.rpc.v1 import inference_pb2_grpc
from tests.acceptance.deployment import Deployment, wait_for

EXAMPLE = Path(__file__).parents[2] / "examples/grpc_client.py"
QUESTION = "What is the capital of France? Answer with one word."


@pytest.fixture(scope="module")
def served(empty: Deployment) -> Deployment:
    """One replica, so that its counters tell of every request."""
    empty.up("--replicas", "1")
    return empty


@pytest.fixture
def channel(served: Deployment) -> Iterator[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials((served.state_dir / "tls" / "ca.crt").read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{served.port}", credentials) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return inference_pb2_grpc.InferenceStub(channel)


def key(deployment: Deployment) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {deployment.key}"),)


def service(deployment: Deployment) -> str:
    return str(deployment.last_up["service"])


def said(text: str) -> pb.Conversation:
    return pb.Conversation(messages=[pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text=text)])])


def counter(deployment: Deployment, name: str) -> float:
    """A number of the one replica's own metrics."""
    (replica,) = deployment.status()["services"][0]["replicas"]
    lines = httpx.get(f"http://127.0.0.1:{replica['port']}/metrics", trust_env=False).text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"llamacpp:{name} ")))


def test_the_example_streams_an_answer_that_http_gives_too(served: Deployment) -> None:
    done = example(served, QUESTION)
    assert done.returncode == 0, done.stderr
    with served.client() as client:
        body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 64, "temperature": 0}
        over_http = client.post("/v1/chat/completions", json={"model": service(served), **body}).json()
    assert done.stdout.strip() == over_http["choices"][0]["message"]["content"].strip()
    assert f"{over_http['usage']['completion_tokens']} written]" in done.stderr


@pytest.mark.parametrize("page", ["grpc.md", "grpc.zh-CN.md"])
def test_the_lines_of_the_page_work_as_they_stand(served: Deployment, page: str) -> None:
    text = (EXAMPLE.parents[1] / "docs" / page).read_text(encoding="utf-8")
    program = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    for word, meant in (("STATE/", f"{served.state_dir}/"), ("127.0.0.1:8443", f"127.0.0.1:{served.port}")):
        assert word in program
        program = program.replace(word, meant)
    environment = {**os.environ, "GONOGO_API_KEY": served.key}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert re.search(r".+\n[1-9]\d* tokens\n$", done.stdout)


def test_the_example_says_what_is_wrong_and_how_to_go_on(served: Deployment) -> None:
    refused = example(served, QUESTION, key="gng_wrong")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "UNAUTHENTICATED" in refused.stderr
    late = example(served, "Tell a long story.", "--deadline", "0.2", "--tokens", "1500")
    assert late.returncode == 1
    assert "DEADLINE_EXCEEDED" in late.stderr


def example(deployment: Deployment, *words: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    """The program as a user runs it: the package alone on its path, the key in its environment."""
    address = ("--ca", str(deployment.state_dir / "tls" / "ca.crt"), f"127.0.0.1:{deployment.port}")
    environment = {**os.environ, "GONOGO_API_KEY": key or deployment.key}
    command = [sys.executable, str(EXAMPLE), *address, *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)


def test_generate_chat_and_list_models(served: Deployment, stub: Any) -> None:
    models = stub.ListModels(pb.ListModelsRequest(), metadata=key(served), timeout=60).models
    assert [one.id for one in models] == [service(served)]
    sampling = pb.Sampling(max_tokens=12, temperature=0, top_k=1, seed=7)
    request = pb.GenerateRequest(model=service(served), conversation=said("Count to five."), sampling=sampling)
    pieces = list(stub.Generate(request, metadata=key(served), timeout=60))
    assert len([one for one in pieces if one.text]) > 3, "in pieces, as the model makes them"
    assert pieces[-1].usage.completion_tokens == 12
    assert pieces[-1].usage.prompt_tokens > 5
    (reason,) = (one.finish_reason for one in pieces if one.finish_reason)
    assert reason == pb.FINISH_REASON_LENGTH
    whole = pb.ChatRequest(model=service(served), conversation=said("Count to five."), sampling=sampling)
    answer = stub.Chat(whole, metadata=key(served), timeout=60)
    assert answer.message.parts[0].text == "".join(one.text for one in pieces)
    assert answer.usage.prompt_tokens == pieces[-1].usage.prompt_tokens
    prompt = pb.GenerateRequest(model=service(served), prompt="1, 2, 3, 4,", sampling=sampling)
    assert "5" in "".join(one.text for one in stub.Generate(prompt, metadata=key(served), timeout=60))


def test_health_needs_no_key_and_reflection_describes_the_service(served: Deployment, channel: grpc.Channel) -> None:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    known = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, _WithKey(key(served))))
    assert "gonogo.v1.Inference" in known.get_services()
    file = known.FindFileContainingSymbol("gonogo.v1.Inference")
    assert [method.name for method in file.service[0].method] == ["Generate", "Chat", "ListModels"]


class _WithKey(grpc.StreamStreamClientInterceptor):  # type: ignore[misc]
    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details._replace(metadata=self._metadata), requests)


def test_a_cancelled_call_frees_the_slot_at_once(served: Deployment, stub: Any) -> None:
    before = counter(served, "tokens_predicted_total")
    request = pb.GenerateRequest(
        model=service(served),
        prompt="1, 2, 3,",
        sampling=pb.Sampling(max_tokens=1900, temperature=0),
    )
    call = stub.Generate(request, metadata=key(served), timeout=120)
    for _ in range(3):
        next(call)
    assert counter(served, "requests_processing") == 1
    call.cancel()
    wait_for(lambda: counter(served, "requests_processing") == 0, 10, "the slot is free")
    assert counter(served, "tokens_predicted_total") - before < 1900


def test_a_killed_or_hung_server_is_back_and_http_never_notices(served: Deployment, stub: Any) -> None:
    for number in (signal.SIGKILL, signal.SIGSTOP):
        (pid,) = served.pids("rpc")
        os.kill(pid, number)
        with served.client() as client:
            assert served.ask(client).status_code == 200
        wait_for(lambda pid=pid: served.pids("rpc") not in ([], [pid]), 30, f"another one after {number.name}")
        wait_for(lambda: _lists(served, stub), 20, "calls are answered again")


def test_after_envoy_was_killed_calls_are_answered_over_the_same_channel(served: Deployment, stub: Any) -> None:
    (pid,) = served.pids("gateway")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: served.pids("gateway") not in ([], [pid]), 20, "another Envoy")
    wait_for(lambda: _lists(served, stub), 30, "calls are answered again")


def _lists(deployment: Deployment, stub: Any) -> bool:
    try:
        stub.ListModels(pb.ListModelsRequest(), metadata=key(deployment), timeout=10)
    except grpc.RpcError as error:
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
        return False
    return True


def test_nothing_listens_on_tcp_but_the_front_door_and_engines_on_loopback(served: Deployment) -> None:
    """All of control's own traffic, xDS and ext_authz and gRPC and the store's, goes over unix sockets."""
    engines = {one["port"] for one in served.status()["services"][0]["replicas"]}
    found = {
        (one.laddr.ip, one.laddr.port)
        for pid in served.left()
        for one in psutil.Process(pid).net_connections(kind="inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert found == {("127.0.0.1", port) for port in (served.port, *engines)}
    sockets = [path for path in (served.state_dir / "run").iterdir() if path.is_socket()]
    assert {path.stat().st_mode & 0o077 for path in sockets} == {0}, "for this user alone"
