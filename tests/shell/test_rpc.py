"""gRPC through the real Envoy: pieces as they come, one HTTP request per call, and every error is a status."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from gonogo.rpc.v1 import inference_pb2 as pb
from tests.shell.gateway_parts import Front
from tests.shell.policy_parts import Deployment
from tests.shell.rpc_parts import (
    PATIENCE_S,
    HeldEngine,
    RpcProcess,
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
USAGE = {"id": "a-1", "model": "svc", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


@pytest.fixture
def deployment(tmp_path: object) -> Iterator[Deployment]:
    made = Deployment.make(tmp_path)  # type: ignore[arg-type]
    yield made
    made.close()


def with_engine(deployment: Deployment, test: Callable[[HeldEngine, Front, RpcProcess, Any], Any]) -> None:
    """Run `test` with an engine that is held, the gateway before it, and a stub that trusts it."""

    async def run() -> None:
        async with HeldEngine() as engine, gateway(deployment, engine.port) as (front, rpc), channel_to(front) as to:
            await test(engine, front, rpc, stub_of(to))

    asyncio.run(run())


def test_an_answer_comes_piece_by_piece_with_its_end_and_its_usage_last(deployment: Deployment) -> None:
    key = deployment.add_key()

    async def test(engine: HeldEngine, front: Front, _: RpcProcess, stub: Any) -> None:
        call = stub.Generate(HELLO, metadata=bearer(key.text), timeout=PATIENCE_S)
        head, body = await engine.asked()
        await engine.begin()
        pieces = aiter(call)
        for text in ("Hel", "lo ", "世界"):
            await engine.text(text)
            piece = await anext(pieces)
            assert (piece.text, piece.id, piece.model) == (text, "a-1", "svc"), "each before the engine writes the next"
        await engine.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "id": "a-1"})
        await engine.event(USAGE)
        await engine.event("[DONE]")
        await engine.end()
        rest = [one async for one in pieces]
        assert [one.finish_reason for one in rest] == [pb.FINISH_REASON_STOP, pb.FINISH_REASON_UNSPECIFIED]
        assert (rest[-1].usage.prompt_tokens, rest[-1].usage.completion_tokens) == (7, 3)
        assert await call.code() == Code.OK
        assert head.startswith("POST /v1/chat/completions ")
        assert body["messages"] == [{"role": "user", "content": "hello"}]
        assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
        assert key.text not in head, "the engine needs no key"
        await soon(lambda: len(logged(front)) == 2, "two lines")
        outer, inner = sorted(logged(front), key=lambda one: str(one["path"]))
        assert [one["path"] for one in (outer, inner)] == ["/gonogo.v1.Inference/Generate", "/v1/chat/completions"]
        assert outer["request_id"] == inner["request_id"] == dict(await call.initial_metadata())["x-request-id"]
        assert (outer["revision"], inner["revision"]) == (None, "svc/1"), "one of them is a request to a model"
        assert outer["key_id"] == inner["key_id"] == key.key_id
        assert outer["grpc_status"] == "OK"

    with_engine(deployment, test)


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_a_call_that_nobody_waits_for_any_more_frees_the_engine(deployment: Deployment, how: str) -> None:
    key = deployment.add_key()

    async def test(engine: HeldEngine, _: Front, rpc: RpcProcess, stub: Any) -> None:
        call = stub.Generate(HELLO, metadata=bearer(key.text), timeout=4 if how == "deadline" else PATIENCE_S)
        await engine.asked()
        await engine.begin()
        await engine.text("Once")
        assert (await call.read()).text == "Once"
        assert not engine.gone.is_set()
        if how == "cancelled":
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call.read()
        else:
            error = await error_of(call.read())
            assert error.code() == Code.DEADLINE_EXCEEDED
        await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
        waiting = asyncio.ensure_future(stub.Chat(CHAT, metadata=bearer(key.text), timeout=4))
        await engine.asked(2)
        engine.gone.clear()
        if how == "cancelled":
            waiting.cancel()
        else:
            assert (await error_of(waiting)).code() == Code.DEADLINE_EXCEEDED
        await asyncio.wait_for(engine.gone.wait(), PATIENCE_S)
        assert "error" not in rpc.log().lower(), rpc.log()

    with_engine(deployment, test)


@pytest.mark.parametrize(
    ("then", "code", "says"),
    [
        ({"error": {"message": "No replica is left.", "type": "server_error", "code": "replica_lost"}},
         Code.UNAVAILABLE, "No replica is left."),
        ({"error": {"message": "The model failed.", "type": "server_error", "code": "engine_error"}},
         Code.INTERNAL, "The model failed."),
        ("no JSON at all", Code.INTERNAL, "no answer to this question"),
        (None, Code.UNAVAILABLE, "cut off"),
        ("end", Code.UNAVAILABLE, "cut off"),
    ],
)  # fmt: skip
def test_a_stream_that_goes_wrong_ends_with_a_status_and_never_silently(
    deployment: Deployment, then: Any, code: grpc.StatusCode, says: str
) -> None:
    key = deployment.add_key()

    async def test(engine: HeldEngine, _: Front, __: RpcProcess, stub: Any) -> None:
        call = stub.Generate(HELLO, metadata=bearer(key.text), timeout=PATIENCE_S)
        await engine.asked()
        await engine.begin()
        await engine.text("Once")
        assert (await call.read()).text == "Once"
        if then is None:
            engine.cut()
        elif then == "end":
            await engine.end()
        else:
            await engine.event(then)
        error = await error_of(call.read())
        assert error.code() == code
        assert says in str(error.details())

    with_engine(deployment, test)


def test_the_gateways_errors_become_statuses_with_their_words(deployment: Deployment) -> None:
    key, unserved = deployment.add_key(), deployment.add_key(service="unborn")
    statuses = {
        400: (Code.INVALID_ARGUMENT, "engine_refused"),
        404: (Code.NOT_FOUND, "engine_unsupported"),
        429: (Code.RESOURCE_EXHAUSTED, "engine_overloaded"),
        500: (Code.INTERNAL, "engine_error"),
    }
    answer = Answer()

    async def run() -> None:
        with ScriptedEngine(lambda _: answer, model="svc") as engine:
            async with gateway(deployment, engine.port) as (front, _), channel_to(front) as channel:
                nonlocal answer
                stub = stub_of(channel)
                for status, (code, reason) in statuses.items():
                    answer = Answer(status=status, text="internal words of an engine")
                    for call in (
                        stub.Chat(CHAT, metadata=bearer(key.text)),
                        all_of(stub.Generate(HELLO, metadata=bearer(key.text))),
                    ):
                        error = await error_of(call)
                        assert (error.code(), reason_of(error)) == (code, reason)
                        assert "internal words" not in str(error.details())
                        assert trailing(error)["x-request-id"]
                error = await error_of(stub.Chat(CHAT, metadata=bearer(unserved.text)))
                assert (error.code(), reason_of(error), trailing(error)["retry-after"]) == (
                    Code.UNAVAILABLE,
                    "not_serving",
                    "1",
                )
                assert retry_after_s(error) == 1
                error = await error_of(stub.Chat(pb.ChatRequest(model="svc"), metadata=bearer(key.text)))
                assert (error.code(), reason_of(error)) == (Code.INVALID_ARGUMENT, "invalid_request")
                assert "conversation.messages" in str(error.details())
                assert trailing(error)["x-request-id"]
                assert len(engine.asked) == 2 * len(statuses)

    asyncio.run(run())


def reason_of(error: grpc.aio.AioRpcError) -> str:
    (info,) = _details(error, ErrorInfo)
    assert info.domain == "gonogo"
    return str(info.reason)


def retry_after_s(error: grpc.aio.AioRpcError) -> int:
    (info,) = _details(error, RetryInfo)
    return int(info.retry_delay.seconds)


def _details(error: grpc.aio.AioRpcError, kind: Any) -> list[Any]:
    status = Status.FromString(trailing(error)["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found = []
    for one in status.details:
        made = kind()
        if one.Unpack(made):
            found.append(made)
    return found
