"""Who may call over gRPC, what is open, what is no call at all; and a gRPC server that dies."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from gonogo.gateway.rpc.main import build_server
from gonogo.gateway.rpc.server import InferenceService, local_front
from gonogo.rpc.v1 import inference_pb2 as pb
from gonogo.security.keys import with_other_secret
from tests.shell.policy_parts import Deployment
from tests.shell.rpc_parts import (
    PATIENCE_S,
    HeldEngine,
    all_of,
    bearer,
    channel_to,
    error_of,
    gateway,
    logged,
    said,
    soon,
    stub_of,
    trailing,
)
from tests.shell.scripted_engine import Answer, ScriptedEngine

Code = grpc.StatusCode
HELLO = pb.GenerateRequest(model="svc", conversation=said("hello"))
CHAT = pb.ChatRequest(model="svc", conversation=said("hello"))
LIST = pb.ListModelsRequest()
REFLECTION = "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"


@pytest.fixture
def deployment(tmp_path: object) -> Iterator[Deployment]:
    made = Deployment.make(tmp_path)  # type: ignore[arg-type]
    yield made
    made.close()


def yes(_: object) -> Answer:
    return Answer(text="yes")


def test_without_a_good_key_no_call_reaches_the_server_and_the_status_says_why(deployment: Deployment) -> None:
    good, revoked, lister = deployment.add_key(), deployment.add_key(), deployment.add_key(scopes=("models",))
    deployment.revoke(revoked)

    async def run() -> None:
        with ScriptedEngine(yes, model="svc") as engine:
            async with gateway(deployment, engine.port) as (front, _), channel_to(front) as channel:
                stub, health = stub_of(channel), health_pb2_grpc.HealthStub(channel)
                calls = {
                    "Chat": lambda key: stub.Chat(CHAT, metadata=bearer(key)),
                    "Generate": lambda key: all_of(stub.Generate(HELLO, metadata=bearer(key))),
                    "ListModels": lambda key: stub.ListModels(LIST, metadata=bearer(key)),
                    "Nothing": lambda key: unary(channel, "/gonogo.v1.Inference/Nothing", key),
                    "Watch": lambda key: all_of(health.Watch(health_pb2.HealthCheckRequest(), metadata=bearer(key))),
                    "reflection": lambda key: reflected(channel, "v1", key),
                }
                for name, call in calls.items():
                    for key, says in (
                        (None, "no API key"),
                        (with_other_secret(good.text), "does not know"),
                        (revoked.text, "revoked"),
                    ):
                        error = await error_of(call(key))
                        assert error.code() == Code.UNAUTHENTICATED, (name, error)
                        assert says in str(error.details()), name
                        assert "{" not in str(error.details()), "the words, and no envelope"
                        assert trailing(error)["x-request-id"]
                for name in ("Chat", "Generate"):
                    error = await error_of(calls[name](lister.text))
                    assert error.code() == Code.PERMISSION_DENIED
                    assert "scope" in str(error.details())
                assert [one.id for one in (await calls["ListModels"](lister.text)).models] == ["svc"]
                assert engine.asked == []
                await soon(lambda: len(logged(front)) >= 22, "every call is logged")
                assert {one["upstream"] for one in logged(front) if one["grpc_status"] == "Unauthenticated"} == {None}
                deployment.revoke(good)
                await became(lambda: code_of(calls["Chat"](good.text)), Code.UNAUTHENTICATED)

    asyncio.run(run())


def test_who_says_that_a_call_is_small_is_asked_for_a_key_all_the_same(deployment: Deployment) -> None:
    """About small bodies policy is asked once, when they are here; nobody waits for the messages of a call."""

    async def run() -> None:
        async with HeldEngine() as engine, gateway(deployment, engine.port) as (front, _):
            asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
            for path, message in ((REFLECTION.format("v1"), asked), ("/grpc.health.v1.Health/Watch", b"")):
                framed = bytes(1) + len(message).to_bytes(4, "big") + message
                client = front.client()  # HTTP/1.1, with a content-length, which gRPC's own client does not send
                reply = await client.send(
                    "POST", f"{path} HTTP/1.1\r\ncontent-type: application/grpc\r\nx:", None, framed
                )
                client.close()
                assert b"grpc-status: 16\r\n" in reply.head, reply
            assert engine.requests == []

    asyncio.run(run())


def test_health_is_open_and_reflection_tells_who_has_a_key_what_there_is(deployment: Deployment) -> None:
    key = deployment.add_key()

    async def run() -> None:
        async with HeldEngine() as engine, gateway(deployment, engine.port) as (front, _), channel_to(front) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", "gonogo.v1.Inference"):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            assert await code_of(health.Check(health_pb2.HealthCheckRequest(service="x"))) == Code.NOT_FOUND
            watch = health.Watch(health_pb2.HealthCheckRequest(), metadata=bearer(key.text))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()
            for version in ("v1", "v1alpha"):
                listed = await reflected(channel, version, key.text)
                names = {one.name for one in listed.list_services_response.service}
                assert {"gonogo.v1.Inference", "grpc.health.v1.Health"} <= names

    asyncio.run(run())


def test_what_is_no_call_of_ours_gets_a_status_or_a_hint(deployment: Deployment) -> None:
    key = deployment.add_key()

    async def run() -> None:
        async with HeldEngine() as engine, gateway(deployment, engine.port) as (front, _), channel_to(front) as channel:
            for path in ("/gonogo.v1.Inference/Nothing", "/gonogo.v2.Inference/Chat"):
                error = await error_of(unary(channel, path, key.text))
                assert error.code() == Code.UNIMPLEMENTED, path
                assert "{" not in str(error.details()), "the words, and no envelope"
            client = front.client()
            reply = await client.send("POST", "/gonogo.v1.Inference/Chat", key.text, b"{}")
            client.close()
            assert reply.status == 404
            assert b"gRPC" in reply.body
            error = await error_of(unary(channel, "/gonogo.v1.Inference/Chat", key.text, b"\xff\xff no message"))
            assert error.code() == Code.INVALID_ARGUMENT
            assert "gonogo.v1" in str(error.details())
            assert engine.requests == []

    asyncio.run(run())


def test_a_call_beyond_the_bound_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with local_front(str(tmp_path / "none.sock")) as front:
            server, _ = build_server(InferenceService(front, tell=print), most_calls=1)
            server.add_insecure_port(f"unix:{tmp_path}/rpc.sock")
            await server.start()
            async with grpc.aio.insecure_channel(f"unix:{tmp_path}/rpc.sock") as channel:
                health = health_pb2_grpc.HealthStub(channel)
                watch = health.Watch(health_pb2.HealthCheckRequest())
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                assert await code_of(health.Check(health_pb2.HealthCheckRequest())) == Code.RESOURCE_EXHAUSTED
                watch.cancel()
                await became(lambda: code_of(health.Check(health_pb2.HealthCheckRequest())), Code.OK)
                assert await code_of(stub_of(channel).Chat(CHAT)) == Code.UNAVAILABLE, "no gateway there"
            await server.stop(0)

    asyncio.run(run())


def test_a_changed_listener_loses_no_call(deployment: Deployment) -> None:
    key = deployment.add_key()

    async def run() -> None:
        with ScriptedEngine(yes, model="svc") as engine:
            async with gateway(deployment, engine.port) as (front, _), channel_to(front) as channel:
                stub = stub_of(channel)
                for number in range(20):
                    if number % 5 == 2:
                        front.publish(access_log_path=str(_another_name_of(front.access_log, number)))
                    assert await code_of(stub.Chat(CHAT, metadata=bearer(key.text), timeout=PATIENCE_S)) == Code.OK
                # The last configuration is in force in both listeners, and a call goes through it.
                both = {"local-front", f"gateway/127.0.0.1:{front.port}"}
                await became(lambda: _in_force(deployment, "other-17.log"), both)
                assert await code_of(stub.Chat(CHAT, metadata=bearer(key.text), timeout=PATIENCE_S)) == Code.OK

    asyncio.run(run())


def _another_name_of(log: Path, number: int) -> Path:
    """A changed setting, and the same file: policy must go on hearing which requests have ended."""
    name = log.with_name(f"other-{number}.log")
    name.symlink_to(log)
    return name


async def _in_force(deployment: Deployment, log_name: str) -> set[str]:
    """The listeners that are active with this log."""
    transport = httpx.AsyncHTTPTransport(uds=str(deployment.root / "run" / "admin.sock"))
    async with httpx.AsyncClient(transport=transport, timeout=10) as client:
        dumped = (await client.get("http://admin/config_dump?resource=dynamic_listeners")).json()
    return {one["name"] for one in dumped["configs"] if log_name in json.dumps(one.get("active_state", {}))}


def test_a_caller_cannot_say_who_it_is_nor_choose_a_revision(deployment: Deployment) -> None:
    key = deployment.add_key()
    forged = {
        "x-gonogo-key-id": "admin",
        "x-gonogo-revision": "other/9",
        "x-request-id": "forged",
        "x-gateway-destination-endpoint": "127.0.0.1:9",
        "x-forwarded-for": "203.0.113.9",
    }

    async def run() -> None:
        with ScriptedEngine(yes, model="svc") as engine:
            async with gateway(deployment, engine.port) as (front, _), channel_to(front) as channel:
                await stub_of(channel).Chat(CHAT, metadata=(*bearer(key.text), *forged.items()))
                seen = engine.asked[0].headers
                assert not [name for name in seen if name.startswith(("x-gonogo", "x-gateway", "x-forwarded-for"))]
                await soon(lambda: len(logged(front)) == 2, "two lines")
                assert {one["key_id"] for one in logged(front)} == {key.key_id}
                assert "forged" not in {one["request_id"] for one in logged(front)}
                assert not [one for one in logged(front) if one["client"].startswith("203.0.113.9")]
                mode = stat.S_IMODE((deployment.root / "run" / "front.sock").stat().st_mode)
                assert mode == 0o600, oct(mode)

    asyncio.run(run())


def test_a_picture_of_megabytes_goes_through_and_what_is_too_large_is_refused(deployment: Deployment) -> None:
    key = deployment.add_key()

    def picture(size: int) -> pb.ChatRequest:
        image = pb.Image(data=bytes(size), media_type="image/png")
        parts = [pb.Part(text="What is this?"), pb.Part(image=image)]
        return pb.ChatRequest(
            model="svc", conversation=pb.Conversation(messages=[pb.Message(role=pb.ROLE_USER, parts=parts)])
        )

    async def run() -> None:
        with ScriptedEngine(yes, model="svc") as engine:
            async with gateway(deployment, engine.port) as (front, _), channel_to(front) as channel:
                stub = stub_of(channel)
                await stub.Chat(picture(5_000_000), metadata=bearer(key.text), timeout=PATIENCE_S)
                assert [len(one) for one in engine.asked[0].pictures] == [5_000_000]
                for size in (26_000_000, 36_000_000):  # larger than 32 MiB as JSON; larger than a message may be
                    error = await error_of(stub.Chat(picture(size), metadata=bearer(key.text), timeout=60))
                    assert error.code() == Code.RESOURCE_EXHAUSTED, (size, error)
                assert len(engine.asked) == 1

    asyncio.run(run())


def test_a_killed_server_ends_its_calls_as_unavailable_and_is_back_with_the_next_one(deployment: Deployment) -> None:
    key = deployment.add_key()

    async def run() -> None:
        async with HeldEngine() as engine, gateway(deployment, engine.port) as (front, rpc), channel_to(front) as to:
            stub = stub_of(to)
            call = stub.Generate(HELLO, metadata=bearer(key.text), timeout=PATIENCE_S)
            await engine.asked()
            await engine.begin()
            await engine.text("Once")
            assert (await call.read()).text == "Once"
            unanswered = asyncio.ensure_future(stub.Chat(CHAT, metadata=bearer(key.text), timeout=PATIENCE_S))
            await engine.asked(2)
            rpc.kill()
            # After the first piece Envoy can only reset the stream, and gRPC reads that as INTERNAL.
            assert (await error_of(call.read())).code() == Code.INTERNAL
            assert (await error_of(unanswered)).code() == Code.UNAVAILABLE
            await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
            error = await error_of(stub.Chat(CHAT, metadata=bearer(key.text)))
            assert error.code() == Code.UNAVAILABLE
            assert "Try again" in str(error.details())
            assert trailing(error)["retry-after"] == "1"
            client = front.client()
            assert (await client.send("GET", "/healthz", None)).status == 200
            client.close()
            rpc.start_again()
            waiting = asyncio.ensure_future(stub.Chat(CHAT, metadata=bearer(key.text), timeout=PATIENCE_S))
            await engine.asked(3)
            waiting.cancel()

    asyncio.run(run())


def test_a_call_that_began_before_the_server_was_told_to_stop_may_end(deployment: Deployment) -> None:
    key = deployment.add_key()

    async def run() -> None:
        async with HeldEngine() as engine, gateway(deployment, engine.port) as (front, rpc), channel_to(front) as to:
            call = stub_of(to).Generate(HELLO, metadata=bearer(key.text), timeout=PATIENCE_S)
            await engine.asked()
            await engine.begin()
            rpc.terminate()
            await engine.text("Once")
            await engine.event("[DONE]")
            assert [one.text for one in await all_of(call)] == ["Once"]
            await soon(lambda: rpc.process.poll() is not None, "it ends")
            assert rpc.process.returncode == 0, rpc.log()
            assert not rpc.socket.exists()

    asyncio.run(run())


def test_policy_servers_that_are_gone_let_nobody_in(deployment: Deployment) -> None:
    key = deployment.add_key()

    async def run() -> None:
        async with HeldEngine() as engine, gateway(deployment, engine.port) as (front, _):
            deployment.servers[0].process.send_signal(signal.SIGKILL)
            deployment.servers[0].process.wait(10)
            async with channel_to(front) as channel:
                error = await error_of(stub_of(channel).Chat(CHAT, metadata=bearer(key.text), timeout=PATIENCE_S))
                assert error.code() == Code.UNAVAILABLE
                assert "checks keys" in str(error.details())
                assert trailing(error)["retry-after"] == "1"
                assert engine.requests == []

    asyncio.run(run())


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return Code.OK


async def became(question: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Ask again until the answer is this one."""
    ends = asyncio.get_running_loop().time() + PATIENCE_S
    while (seen := await question()) != wanted:
        assert asyncio.get_running_loop().time() < ends, seen
        await asyncio.sleep(0.05)


async def unary(channel: grpc.aio.Channel, path: str, key: str | None, message: bytes = b"") -> Any:
    method: Any = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
    return await method(message, metadata=bearer(key), timeout=PATIENCE_S)


async def reflected(channel: grpc.aio.Channel, version: str, key: str | None) -> Any:
    method: Any = channel.stream_stream(
        REFLECTION.format(version),
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    call = method(iter([asked]), metadata=bearer(key), timeout=PATIENCE_S)
    (answer,) = await all_of(call)
    return answer
