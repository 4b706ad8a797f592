"""The policy server as a process: a real gRPC client, a real store, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import grpc
import grpc.aio
import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest

from gonogo.gateway.policy.decide import View
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.gate import Admitted
from gonogo.gateway.policy.question import HEAD, STAGE, WHOLE
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.server import MAX_MESSAGE_BYTES, READ_AT_ONCE, PolicyService, build_server
from gonogo.gateway.policy.view import open_ruled
from tests.shell.policy_parts import CHECK, Deployment, PolicyProcess, ask, ask_on, question, until


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment.make(tmp_path)
    yield made
    made.close()


def test_a_good_key_is_sent_to_the_serving_revision_and_a_bad_one_is_refused(deployment: Deployment) -> None:
    key = deployment.add_key()
    server = deployment.start()
    good, missing, wrong = ask(server.socket, question(key.text), question(None), question("gng_x"))
    assert good.headers == {
        "x-gonogo-revision": "svc/1",
        "x-gonogo-key-id": key.key_id,
        "x-gonogo-engine": "llama.cpp",
        "x-gonogo-continue": "no",
    }
    assert (missing.status, missing.code) == (401, "missing_api_key")
    assert (wrong.status, wrong.code) == (401, "malformed_api_key")
    assert wrong.headers["www-authenticate"] == "Bearer"


def test_a_key_pinned_to_a_revision_goes_there_while_another_serves(deployment: Deployment) -> None:
    key = deployment.add_key(revision=2, expires_at=time.time() + 60)
    server = deployment.start()
    assert ask(server.socket, question(key.text))[0].code == "not_serving", "nothing is known of it yet"
    deployment.add_service("svc", 1)
    with deployment.store.change(epoch=deployment.epoch, actor="control", principal="test") as change:
        change.set_serving("svc", 1)
    until(lambda: ask(server.socket, question(key.text))[0].headers.get("x-gonogo-revision") == "svc/2", 2)


def test_a_new_key_and_a_revoked_one_count_within_a_second_while_nothing_else_runs(deployment: Deployment) -> None:
    server = deployment.start()
    key = deployment.add_key()
    assert until(lambda: ask(server.socket, question(key.text))[0].status is None) < 1
    deployment.revoke(key)
    assert until(lambda: ask(server.socket, question(key.text))[0].code == "revoked_api_key") < 1


def test_a_revoked_key_is_refused_within_a_second_under_load(deployment: Deployment) -> None:
    busy, key = deployment.add_key(), deployment.add_key()
    server = deployment.start()

    async def run() -> float:
        async with grpc.aio.insecure_channel(f"unix:{server.socket}") as channel:

            async def load() -> None:
                while True:
                    await ask_on(channel, question(busy.text))

            tasks = [asyncio.create_task(load()) for _ in range(16)]
            for _ in range(50):
                assert (await ask_on(channel, question(key.text))).status is None
            await asyncio.to_thread(deployment.revoke, key)
            began = time.monotonic()
            while (await ask_on(channel, question(key.text))).code != "revoked_api_key":
                assert time.monotonic() - began < 5
            took = time.monotonic() - began
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in done)
            return took

    assert asyncio.run(run()) < 1


def test_a_service_that_is_taken_down_is_refused(deployment: Deployment) -> None:
    key = deployment.add_key()
    server = deployment.start()
    with deployment.store.change(epoch=None, actor="cli", principal="test") as change:
        change.remove_service("svc")
    until(lambda: ask(server.socket, question(key.text))[0].code == "not_serving", 1)


def test_two_servers_answer_alike(deployment: Deployment) -> None:
    key = deployment.add_key()
    servers = [deployment.start(0), deployment.start(1)]
    for server in servers:
        good, bad = ask(server.socket, question(key.text), question(None))
        assert (good.status, bad.status) == (None, 401)


def test_the_socket_is_its_users_alone(deployment: Deployment) -> None:
    server = deployment.start()
    assert server.socket.stat().st_mode & 0o077 == 0
    assert [path.name for path in server.socket.parent.iterdir()] == ["policy-0.sock"]


def test_a_killed_server_leaves_a_socket_that_the_next_one_takes_over(deployment: Deployment) -> None:
    key = deployment.add_key()
    first = deployment.start()
    first.kill()
    assert first.socket.exists(), "kill -9 leaves it behind"
    left = first.socket.with_name(f"{first.socket.name}.{first.process.pid}")
    left.touch()
    second = deployment.start()
    assert ask(second.socket, question(key.text))[0].status is None
    assert not left.exists(), "what a predecessor left half-done is swept away"


def test_the_socket_is_there_and_answers_at_every_moment_of_a_take_over(deployment: Deployment) -> None:
    key = deployment.add_key()
    old = deployment.start()

    async def run(taking_over: asyncio.Task[PolicyProcess]) -> int:
        asked = 0
        while not taking_over.done():
            async with grpc.aio.insecure_channel(f"unix:{old.socket}") as channel:
                assert (await ask_on(channel, question(key.text))).status is None
            asked += 1
        return asked

    async def both() -> int:
        return await run(asyncio.create_task(asyncio.to_thread(deployment.start, 0)))

    assert asyncio.run(both()) > 3
    assert old.terminate() < 2
    assert deployment.socket(0).exists(), "the old one must not remove its successor's socket"
    assert ask(deployment.socket(0), question(key.text))[0].status is None


def test_sigterm_lets_a_stream_finish_takes_no_new_connection_and_ends_within_two_seconds(
    deployment: Deployment,
) -> None:
    key = deployment.add_key()
    server = deployment.start()

    async def run() -> float:
        async with grpc.aio.insecure_channel(f"unix:{server.socket}") as channel:
            call = channel.stream_unary(CHECK)(timeout=10, metadata=((STAGE, WHOLE),))
            await call.wait_for_connection()
            # Streams of one connection arrive in order: when this one is answered, the server has the one before it.
            assert (await ask_on(channel, question(key.text))).status is None
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(until, lambda: not server.socket.exists(), 1.0)
            with pytest.raises(OSError), socket.socket(socket.AF_UNIX) as fresh:
                fresh.connect(str(server.socket))
            await call.write(question(key.text).SerializeToString())
            await call.done_writing()
            assert b"svc/1" in await call
            assert await call.code() is grpc.StatusCode.OK
            assert await asyncio.to_thread(server.process.wait, 10) == 0
            return time.monotonic() - began

    assert asyncio.run(run()) < 2


def test_sigterm_ends_it_within_two_seconds_even_when_a_stream_never_ends(deployment: Deployment) -> None:
    server = deployment.start()

    async def run() -> float:
        async with grpc.aio.insecure_channel(f"unix:{server.socket}") as channel:
            call = channel.stream_unary(CHECK)(timeout=10, metadata=((STAGE, WHOLE),))
            await call.wait_for_connection()
            assert (await ask_on(channel, question(None))).status == 401
            return await asyncio.to_thread(server.terminate)

    assert asyncio.run(run()) < 2


def test_nobody_is_let_in_when_the_database_is_gone_and_everybody_when_it_is_back(deployment: Deployment) -> None:
    key = deployment.add_key()
    server = deployment.start()
    database = deployment.root / "gonogo.db"
    away = deployment.root / "away.db"
    database.rename(away)
    assert ask(server.socket, question(key.text))[0].status is None, "a moment without it harms nobody"
    took = until(lambda: ask(server.socket, question(key.text))[0].code == "policy_stale", 8)
    assert 4 < took < 6
    (answer,) = ask(server.socket, question(None))
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "policy_stale", "1")
    away.rename(database)
    until(lambda: ask(server.socket, question(key.text))[0].status is None, 2)
    assert server.log().count("the store cannot be read") == 1
    assert server.log().count("can be read again") == 1


def test_a_server_that_never_saw_the_database_lets_nobody_in(deployment: Deployment) -> None:
    key = deployment.add_key()
    (deployment.root / "gonogo.db").rename(deployment.root / "away.db")
    (answer,) = ask(deployment.start().socket, question(key.text))
    assert (answer.status, answer.code) == (503, "policy_stale")


@pytest.mark.parametrize("message", [question(None), CheckRequest(), b""], ids=["a good one", "nothing", "no bytes"])
def test_a_question_that_does_not_say_which_it_is_lets_nobody_in(
    deployment: Deployment, message: CheckRequest | bytes
) -> None:
    server = deployment.start()
    for stage in ("", "gonogo.other"):
        (answer,) = ask(server.socket, message, stage=stage)
        assert (answer.status, answer.code) == (500, "policy_protocol")
    assert server.log().count("settings are not ours") == 1


@pytest.mark.parametrize("message", [CheckRequest(), b""], ids=["nothing", "no bytes"])
def test_a_question_about_nothing_is_refused(deployment: Deployment, message: CheckRequest | bytes) -> None:
    server = deployment.start()
    for stage in (HEAD, WHOLE):
        assert ask(server.socket, message, stage=stage)[0].status == 401


def test_by_the_headers_alone_those_are_refused_who_may_not_and_nobody_gets_a_revision(deployment: Deployment) -> None:
    key, lister = deployment.add_key(), deployment.add_key(scopes=("models",))
    server = deployment.start()
    huge = question(key.text, **{"content-length": str(33 * 1024 * 1024)})
    asked = (question(key.text, body=b""), question(None), question(lister.text), huge)
    good, missing, scope, large = ask(server.socket, *asked, stage=HEAD)
    assert (good.status, good.headers) == (None, {})
    assert (missing.code, scope.code) == ("missing_api_key", "insufficient_scope")
    assert (large.status, large.code) == (413, "body_too_large")


def test_a_service_is_found_by_the_model_that_is_named(deployment: Deployment) -> None:
    deployment.add_service("other", number_of_revisions=2)
    every, one = deployment.add_key(service=None), deployment.add_key(service="other")
    server = deployment.start()

    def asked(key: str, model: str) -> tuple[str | None, str | None]:
        body = b'{"model":"%s","messages":[{"role":"user","content":"x"}]}' % model.encode()
        (answer,) = ask(server.socket, question(key, body=body))
        return answer.headers.get("x-gonogo-revision"), answer.code

    assert [asked(every.text, model) for model in ("svc", "other")] == [("svc/1", None), ("other/2", None)]
    assert [asked(one.text, model) for model in ("svc", "other")] == [(None, "model_not_found"), ("other/2", None)]
    (answer,) = ask(server.socket, question(every.text, body=b'{"model":"third"}'))
    assert (answer.status, answer.headers["x-gonogo-param"]) == (404, "model")
    assert answer.body.endswith("It may use: other, svc.")


def test_the_list_of_models_is_of_what_the_key_may_use_and_tells_how_long_a_context_is(deployment: Deployment) -> None:
    deployment.add_service("other", number_of_revisions=2)
    keys = [deployment.add_key(service=None), deployment.add_key(scopes=("models",))]
    listed = [question(key.text, "/v1/models", b"", method="GET") for key in keys]
    every, one = ask(deployment.start().socket, *listed)
    assert (every.status, one.status) == (200, 200)
    models = json.loads(every.body)
    assert models["object"] == "list"
    assert [(one["id"], one["max_model_len"]) for one in models["data"]] == [("other", 4097), ("svc", 25_480)]
    assert set(models["data"][0]) == {"id", "object", "created", "owned_by", "max_model_len"}
    assert abs(models["data"][0]["created"] - time.time()) < 60
    assert [one["id"] for one in json.loads(one.body)["data"]] == ["svc"]


class SlowGate:
    """Holds requests until told otherwise."""

    def __init__(self) -> None:
        self.asked: list[tuple[Request, str]] = []
        self.cancelled = 0
        self.opened = asyncio.Event()
        self.answer: Admitted | Deny = Admitted(endpoints=("10.0.0.1:1", "10.0.0.2:2"))

    async def admit(self, request: Request, _key: object, revision: str) -> Admitted | Deny:
        self.asked.append((request, revision))
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer


class OneView:
    """What a policy server would read of a store."""

    def __init__(self, deployment: Deployment) -> None:
        self.reader = open_ruled(deployment.root / "gonogo.db")

    def __call__(self) -> View:
        return self.reader.policy_view()


def test_the_gate_may_let_a_request_wait_and_then_say_where_it_goes(deployment: Deployment, tmp_path: Path) -> None:
    key = deployment.add_key()

    async def run() -> None:
        gate = SlowGate()
        service = PolicyService(OneView(deployment), tell=pytest.fail, gate=gate)
        server = build_server(service)
        server.add_insecure_port(f"unix:{tmp_path}/p.sock")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/p.sock") as channel:
            waiting = [asyncio.create_task(ask_on(channel, question(key.text))) for _ in range(READ_AT_ONCE + 4)]
            while len(gate.asked) < len(waiting):
                await asyncio.sleep(0.01)
            assert (await ask_on(channel, question(None))).status == 401, "those that wait keep nobody from an answer"
            gone = channel.unary_unary(CHECK)(question(key.text).SerializeToString(), metadata=((STAGE, WHOLE),))
            while len(gate.asked) <= len(waiting):
                await asyncio.sleep(0.01)
            gone.cancel()
            while not gate.cancelled:
                await asyncio.sleep(0.01)
            gate.opened.set()
            answers = await asyncio.gather(*waiting)
            gate.answer = Deny(status=429, code="full", message="Full.", type="rate_limit_error")
            refused = await ask_on(channel, question(key.text))
        await server.stop(0)
        assert {answer.headers["x-gateway-destination-endpoint"] for answer in answers} == {"10.0.0.1:1,10.0.0.2:2"}
        request, revision = gate.asked[0]
        assert (request.model, request.max_tokens, request.request_id, revision) == ("svc", 4, "r-1", "svc/1")
        assert (refused.status, refused.code) == (429, "full")

    asyncio.run(run())


def test_an_error_of_ours_refuses_and_is_recorded_once_without_the_key(deployment: Deployment) -> None:
    told: list[str] = []

    class Broken:
        @property
        def keys(self) -> Any:
            raise RuntimeError(key.text)

        serving: dict[str, int] = {}  # noqa: RUF012

    class BrokenGate:
        async def admit(self, *_asked: object) -> Any:
            raise RuntimeError(key.text)

    key = deployment.add_key()
    message = question(key.text).SerializeToString()
    service = PolicyService(Broken, clock=time.time, tell=told.append)  # type: ignore[arg-type]
    answers = {service.judged(stage, message) for stage in (HEAD, WHOLE) for _ in range(5)}
    answers.add(service.judged(WHOLE, b"\xff\xff no protobuf"))
    gated = PolicyService(OneView(deployment), tell=told.append, gate=BrokenGate())
    asked = gated.judged(WHOLE, message)
    assert not isinstance(asked, bytes)
    answers.update(asyncio.run(gated.admitted(asked)) for _ in range(2))
    assert len(answers) == 1
    assert b"policy_error" in answers.pop()  # type: ignore[operator]
    assert len(told) == 4
    assert "RuntimeError" in told[0]
    assert key.text not in "".join(told)
    assert key.text[4:14] not in "".join(told)


def test_bytes_that_are_no_message_are_refused_and_the_server_goes_on(deployment: Deployment) -> None:
    key = deployment.add_key()
    server = deployment.start()
    garbage, good = ask(server.socket, b"\xff\xff\xff\xff", question(key.text))
    assert (garbage.status, garbage.code) == (500, "policy_error")
    assert good.status is None
    assert key.text not in server.log()


def test_a_message_larger_than_any_body_may_be_is_refused(deployment: Deployment) -> None:
    server = deployment.start()

    async def run() -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(f"unix:{server.socket}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ask_on(channel, question(None, body=b"x" * MAX_MESSAGE_BYTES))
            return refused.value.code()

    assert asyncio.run(run()) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ask(server.socket, question(None))[0].status == 401


def test_the_health_service_says_serving_and_not_serving(deployment: Deployment) -> None:
    server = deployment.start()

    async def check() -> bytes:
        async with grpc.aio.insecure_channel(f"unix:{server.socket}") as channel:
            return bytes(await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5))

    assert asyncio.run(check()) == b"\x08\x01"
    (deployment.root / "gonogo.db").unlink()
    until(lambda: asyncio.run(check()) == b"\x08\x02", 8)


@pytest.mark.parametrize(("mode", "word"), [(0o755, "mode 755"), (None, "No such file")])
def test_a_socket_where_others_could_reach_it_is_refused(tmp_path: Path, mode: int | None, word: str) -> None:
    directory = tmp_path / "open"
    if mode is not None:
        directory.mkdir()
        directory.chmod(mode)
    words = ["--socket", str(directory / "p.sock"), "--database", str(tmp_path / "x.db"), "--index", "0"]
    words += ["--valkey", str(directory / "valkey-0.sock"), "--access-log", str(tmp_path / "access.log")]
    command = [sys.executable, "-m", "gonogo.gateway.policy.main", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_the_log_never_holds_a_key(deployment: Deployment) -> None:
    key = deployment.add_key()
    server = deployment.start()
    ask(server.socket, question(key.text), question(key.text[:-1] + "_"), question("gng_" + "0" * 49))
    server.terminate()
    assert not re.search(r"gng_[0-9A-Za-z]", server.log())
    lines = server.log().splitlines()
    assert len(lines) == 4, (
        "one for the start, one each for the Valkey and the Envoy that are not here, one for the end, no request"
    )


def test_it_starts_fast_enough_to_be_restarted_under_load() -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import gonogo.gateway.policy.main"], check=True, timeout=20, env=os.environ)
    assert time.monotonic() - began < 2, "measured 0.2 s alone on a machine with 2 cores"
    heavy = "import sys, gonogo.gateway.policy.main; print([m for m in ('sqlalchemy', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], check=True, capture_output=True, text=True, timeout=20)
    assert done.stdout.strip() == "[]"
