"""Condition 4, the network, of a running service: the gateway's configuration, replicas, and who says who may."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Any, Iterator

import grpc
import httpx
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.drills.harness import JAPAN, Second, Yard, assert_only, spec, until

SCREENSHOT: dict[str, Any] = {"metadata": {"padding": "x" * 1_300_000}}


def test_large_body_accepted(yard: Yard) -> None:
    def status() -> int:
        return yard.ask_once(tokens=1, **SCREENSHOT).status_code

    assert status() == 200
    with yard.faults.broken(gateway="small_bodies"):
        until(lambda: all(status() == 413 for _ in range(4)), "an agent's screenshot is refused")
        assert_only(yard.live(), "large_body_accepted", "LargeBodyRefused", "service/drill")
    until(lambda: status() == 200, "a screenshot gets through again")


def test_unknown_path_refused(yard: Yard) -> None:
    def metrics() -> httpx.Response:
        with yard.client() as client:
            del client.headers["authorization"]
            return client.get("/metrics")

    assert metrics().status_code == 404
    with yard.faults.broken(gateway="catch_all"):
        until(lambda: metrics().status_code == 200, "the engine's own doors are open, without a key")
        assert "llamacpp:prompt_tokens_total" in metrics().text
        assert_only(yard.live(), "unknown_path_refused", "UnknownPathServed", "service/drill")
    until(lambda: metrics().status_code == 404, "they are closed again")


def test_gateway_accepted(yard: Yard) -> None:
    """A renewed certificate that Envoy refuses: it goes on with the old one, and every client sees that it works."""
    yard.well()
    server = yard.state_dir / "tls" / "server.pem"
    old = server.read_bytes()
    assert _presented(yard) == _serial(server)
    with yard.faults.broken(gateway="wrong_private_key"):
        found = assert_only(
            yard.wait_known("gateway_accepted", "GatewayRefused"), "gateway_accepted", "GatewayRefused", "gateway"
        )
        assert "Secret" in found["values"]["types"]
        server.unlink()
        yard.faults.touch(gateway="wrong_private_key again")
        until(lambda: server.exists() and server.read_bytes() != old, "control renewed the certificate")
        assert yard.ask_once().status_code == 200
        assert _presented(yard) != _serial(server), "Envoy still presents the one that will expire"
        assert set(yard.wrong_known()) == {"gateway_accepted"}, "and nothing else would have told"
    yard.wait_known("gateway_accepted", None)
    until(lambda: _presented(yard) == _serial(server), "Envoy presents the renewed one")


def test_replicas_ready(yard: Yard) -> None:
    """One of two replicas dies at each start. Everything that a client sees goes on working, on one leg."""
    yard.well()
    with yard.faults.broken(engine={"drill/1/1": "dies_at_start"}):
        first, second = sorted(yard.replicas(), key=lambda one: one["id"])
        os.kill(second["pid"], signal.SIGKILL)
        answers = yard.wait_known("replicas_ready", "ReplicaCrashLooping", limit_s=60)
        found = assert_only(answers, "replicas_ready", "ReplicaCrashLooping", "service/drill")
        assert "this build of the engine dies at start" in found["values"]["last_lines"]
        assert yard.ask_once(JAPAN).status_code == 200
        os.kill(first["pid"], signal.SIGKILL)
        assert yard.ask_once().status_code == 503, "the next death takes the whole service"
    yard.wait_known("replicas_ready", None, limit_s=60)
    until(lambda: yard.ask_once().status_code == 200, "the service is back")


@contextlib.contextmanager
def _nobody_starts_it_again(yard: Yard) -> Iterator[None]:
    """Control sleeps for a moment: what dies now stays dead for as long as it takes to look."""
    (control,) = yard.control.status()["processes"]["control"]
    os.kill(control, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(control, signal.SIGCONT)


def test_policy_servers(yard: Yard) -> None:
    """One of two policy servers cannot start: its socket's place is taken by a folder."""
    yard.well()
    place = yard.state_dir / "run" / "policy-1.sock"
    first, second = _policy_pids(yard)
    place.unlink()
    place.mkdir()
    try:
        os.kill(second, signal.SIGKILL)
        answers = yard.wait_known("policy_servers", "PolicyServersMissing")
        assert_only(answers, "policy_servers", "PolicyServersMissing", "gateway")
        assert yard.ask_once().status_code == 200
        with _nobody_starts_it_again(yard):
            os.kill(first, signal.SIGKILL)
            assert yard.status_without_key() == 503
            assert yard.ask_once().status_code == 503, "the next death refuses everybody"
    finally:
        place.rmdir()
    yard.wait_known("policy_servers", None)
    until(lambda: yard.ask_once().status_code == 200, "keys are checked again")


def test_relays(yard: Yard) -> None:
    """One of two relays cannot start: its socket's place is taken by a folder. Streams go through the other."""
    yard.well()
    place = yard.state_dir / "run" / "relay-1.sock"
    pids = yard.control.status()["processes"]["relay"]
    place.unlink()
    place.mkdir()
    try:
        for pid in pids:
            if b"relay-1.sock" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        answers = yard.wait_known("relays", "RelaysMissing")
        assert_only(answers, "relays", "RelaysMissing", "gateway")
        for _ in range(4):
            streamed = yard.ask_once(stream=True)
            assert streamed.status_code == 200 and streamed.text.endswith("data: [DONE]\n\n")
    finally:
        place.rmdir()
    yard.wait_known("relays", None)


def test_counters_shared(yard: Yard) -> None:
    """Valkey cannot start: its socket's place is taken by a folder. Advice only: requests go on."""
    yard.well()
    place = yard.state_dir / "run" / "valkey-0.sock"
    (pid,) = yard.control.status()["processes"]["valkey"]
    place.unlink()
    place.mkdir()
    try:
        os.kill(pid, signal.SIGKILL)
        answers = yard.wait_known("counters_shared", "CountersApart")
        found = assert_only(answers, "counters_shared", "CountersApart", "gateway")
        assert not found["blocks"]
        assert yard.ask_once().status_code == 200
    finally:
        place.rmdir()
    yard.wait_known("counters_shared", None)


def test_grpc_served(yard: Yard) -> None:
    """The gRPC server cannot start: its socket's place is taken by a folder. Advice only: HTTP goes on."""
    yard.well()
    place = yard.state_dir / "run" / "rpc-0.sock"
    (pid,) = yard.control.status()["processes"]["rpc"]
    assert _health_status(yard) == grpc.StatusCode.OK
    place.unlink()
    place.mkdir()
    try:
        os.kill(pid, signal.SIGKILL)
        answers = yard.wait_known("grpc_served", "GrpcNotServed")
        found = assert_only(answers, "grpc_served", "GrpcNotServed", "gateway")
        assert not found["blocks"]
        assert _health_status(yard) == grpc.StatusCode.UNAVAILABLE
        assert yard.ask_once().status_code == 200
    finally:
        place.rmdir()
    yard.wait_known("grpc_served", None)
    until(lambda: _health_status(yard) == grpc.StatusCode.OK, "gRPC is answered again")


def test_queue_runs(yard: Yard) -> None:
    """The queue's HTTP server cannot start: its socket's place is taken by a folder. Advice only: requests go on."""
    yard.well()
    place = yard.state_dir / "run" / "tasks-0.sock"
    (pid,) = yard.control.status()["processes"]["tasks"]
    assert _tasks_status(yard) == 200
    place.unlink()
    place.mkdir()
    try:
        os.kill(pid, signal.SIGKILL)
        answers = yard.wait_known("queue_runs", "QueueStands")
        found = assert_only(answers, "queue_runs", "QueueStands", "gateway")
        assert (found["blocks"], found["values"]["part"]) == (False, "tasks")
        assert _tasks_status(yard) == 503
        assert yard.ask_once().status_code == 200
    finally:
        place.rmdir()
    yard.wait_known("queue_runs", None)
    until(lambda: _tasks_status(yard) == 200, "tasks are taken again")


def _tasks_status(yard: Yard) -> int:
    with yard.client() as client:
        return client.get("/v1/tasks").status_code


def _health_status(yard: Yard) -> grpc.StatusCode:
    """What a load balancer gets that asks whether gRPC is served."""
    credentials = grpc.ssl_channel_credentials((yard.state_dir / "tls" / "ca.crt").read_bytes())
    with grpc.secure_channel(f"localhost:{yard.port}", credentials) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def _policy_pids(yard: Yard) -> tuple[int, int]:
    """The servers 0 and 1; the process table says which is which."""
    found = {}
    for pid in yard.control.status()["processes"]["policy"]:
        marks = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found[next(mark.decode().partition("=")[2] for mark in marks if mark.startswith(b"GONOGO_NAME="))] = pid
    return found["0"], found["1"]


def _presented(yard: Yard) -> int:
    """The serial number of the certificate that a client sees."""
    pem = ssl.get_server_certificate(("127.0.0.1", yard.port), timeout=5)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def _serial(file: Path) -> int:
    """The serial number of the certificate in a file that holds its key too."""
    text = file.read_bytes()
    return x509.load_pem_x509_certificate(text[text.index(b"-----BEGIN CERTIFICATE") :]).serial_number


def test_port_free(yard: Yard) -> None:
    """Somebody else listens there. Without the check Envoy is the one to find out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = spec(service="taken", gateway={"port": port}, replicas={"min": 1, "max": 1})
        found = assert_only(yard.refused(spec(service="taken", gateway={"port": port})), "port_free", "PortTaken")
        assert (found["subject"], found["values"]["pid"]) == (f"port/{port}", os.getpid())
        with yard.faults.broken(without=["port_free"]):
            yard.submit(asked)
            try:
                entry = yard.settled(["taken"])["taken"]
            finally:
                yard.remove("taken")
        assert entry["rejected"]["reason"] == "GatewayRefused"
        assert "cannot bind" in entry["rejected"]["detail"]["words"]
    yard.wait_known("gateway_accepted", None)


def test_failover(yard: Yard, second: Second) -> None:
    """Advice only. One replica: when it dies, everybody waits for the next one."""
    one = spec(replicas={"min": 1, "max": 1}, gateway={"port": yard.port})
    assert_only(yard.preflight(one), "failover", "NoFailover", "service/drill")
    (only,) = yard.replicas("second")
    with second.client(yard) as client:
        assert yard.chat(client, model="second").status_code == 200
        os.kill(only["pid"], signal.SIGKILL)
        assert yard.chat(client, model="second").status_code == 503
        until(lambda: yard.chat(client, model="second").status_code == 200, "the next one serves", limit_s=60)
    yard.well()
    victim = yard.replicas()[0]
    with yard.client() as client:
        assert yard.chat(client).status_code == 200
        os.kill(victim["pid"], signal.SIGKILL)
        assert {yard.chat(client).status_code for _ in range(10)} == {200}, "with two nobody notices"
    yard.wait_known("replicas_ready", None, limit_s=60)
