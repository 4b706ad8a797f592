"""gRPC through the real Envoy: same keys, same limits, one HTTP request per call; and every error is a status."""

from __future__ import annotations

import asyncio
from typing import Iterator

import grpc
import pytest

from gonogo.rpc.v1 import inference_pb2 as pb
from tests.shell.policy_parts import Deployment
from tests.shell.rpc_parts import all_of, bearer, channel_to, gateway, said, stub_of
from tests.shell.scripted_engine import Answer, Asked, ScriptedEngine


@pytest.fixture
def deployment(tmp_path: object) -> Iterator[Deployment]:
    made = Deployment.make(tmp_path)  # type: ignore[arg-type]
    yield made
    made.close()


def answers(asked: Asked) -> Answer:
    return Answer(text=f"You said {asked.prompt}.", gap_s=0.05)


def test_generate_streams_and_chat_answers(deployment: Deployment) -> None:
    key = deployment.add_key()

    async def run() -> None:
        with ScriptedEngine(answers, model="svc") as engine:
            async with gateway(deployment, engine.port) as (front, rpc), channel_to(front) as channel:
                stub = stub_of(channel)
                request = pb.GenerateRequest(model="svc", conversation=said("hello"))
                pieces = await all_of(stub.Generate(request, metadata=bearer(key.text), timeout=20))
                print(pieces)
                assert "".join(piece.text for piece in pieces) == "You said hello."
                answer = await stub.Chat(pb.ChatRequest(model="svc", conversation=said("hi")), metadata=bearer(key.text))
                print(answer)
                print(await stub.ListModels(pb.ListModelsRequest(), metadata=bearer(key.text)))
                try:
                    await stub.ListModels(pb.ListModelsRequest())
                except grpc.aio.AioRpcError as e:
                    print(repr(e), e.initial_metadata(), e.trailing_metadata())
                print(front.access_log.read_text())
                print(rpc.log())

    asyncio.run(run())
