"""The limits of keys are those of gRPC calls: counted once, told in trailing metadata, free when a call ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Iterator

import grpc
import pytest

from gonogo.rpc.v1 import inference_pb2 as pb
from tests.shell.policy_parts import Deployment
from tests.shell.rpc_parts import (
    PATIENCE_S,
    HeldEngine,
    all_of,
    bearer,
    channel_to,
    error_of,
    gateway,
    said,
    soon,
    stub_of,
    trailing,
)
from tests.shell.scripted_engine import Answer, ScriptedEngine
from tests.shell.valkey_parts import Valkey

Code = grpc.StatusCode
SAMPLING = pb.Sampling(max_tokens=4)
HELLO = pb.GenerateRequest(model="svc", conversation=said("hello"), sampling=SAMPLING)
CHAT = pb.ChatRequest(model="svc", conversation=said("hello"), sampling=SAMPLING)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment.make(tmp_path)
    with Valkey(run=tmp_path / "run"):
        yield made
        made.close()


def test_a_call_counts_once_and_beside_requests_over_http(deployment: Deployment) -> None:
    key = deployment.add_key(requests_per_minute=4).text

    async def run() -> None:
        with ScriptedEngine(lambda _: Answer(text="yes"), model="svc") as engine:
            async with gateway(deployment, engine.port) as (front, _), channel_to(front) as channel:
                stub, client = stub_of(channel), front.client()
                body = {"model": "svc", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
                over_http = await client.send("POST", "/v1/chat/completions", key, json.dumps(body).encode())
                client.close()
                assert b"x-ratelimit-remaining-requests: 3\r\n" in over_http.head
                for left in ("2", "1", "0"):
                    call = stub.Chat(CHAT, metadata=bearer(key), timeout=PATIENCE_S)
                    assert (await call).message.parts[0].text == "yes"
                    assert dict(await call.trailing_metadata())["x-ratelimit-remaining-requests"] == left
                error = await error_of(all_of(stub.Generate(HELLO, metadata=bearer(key), timeout=PATIENCE_S)))
                assert error.code() == Code.RESOURCE_EXHAUSTED
                assert "requests_per_minute" in str(error.details())
                assert 1 <= int(trailing(error)["retry-after"]) <= 61
                assert trailing(error)["x-ratelimit-remaining-requests"] == "0"
                assert len(engine.asked) == 4

    asyncio.run(run())


def test_the_place_of_a_call_that_was_cancelled_is_free_again(deployment: Deployment) -> None:
    key = deployment.add_key(concurrent=1).text

    async def run() -> None:
        async with HeldEngine() as engine, gateway(deployment, engine.port) as (front, _), channel_to(front) as channel:
            stub = stub_of(channel)
            held: Any = stub.Generate(HELLO, metadata=bearer(key), timeout=60)
            await engine.asked()
            await engine.begin()
            await engine.text("Once")
            assert (await held.read()).text == "Once"
            error = await error_of(stub.Chat(CHAT, metadata=bearer(key), timeout=PATIENCE_S))
            assert error.code() == Code.RESOURCE_EXHAUSTED
            held.cancel()
            calls = []

            def another() -> bool:
                calls.append(asyncio.ensure_future(stub.Chat(CHAT, metadata=bearer(key), timeout=PATIENCE_S)))
                return len(engine.requests) == 2

            await soon(another, "the next one is let in")
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(run())
