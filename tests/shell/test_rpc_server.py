"""The gRPC server alone, with a program of the test's in the place of Envoy's local front."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import AsyncIterator

import grpc
from aiohttp import web

from gonogo.gateway.rpc.main import build_server
from gonogo.gateway.rpc.server import InferenceService, local_front
from gonogo.rpc.v1 import inference_pb2 as pb
from tests.shell.rpc_parts import error_of, said, stub_of, trailing

LEFT = {"x-ratelimit-remaining-requests": "3", "x-ratelimit-limit-requests": "60"}
CHAT = pb.ChatRequest(model="svc", conversation=said("hello"))


@contextlib.asynccontextmanager
async def served(root: Path, front: web.Application) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the server, which asks this front."""
    runner = web.AppRunner(front)
    await runner.setup()
    await web.UnixSite(runner, str(root / "front.sock")).start()
    async with local_front(str(root / "front.sock")) as client:
        server, _ = build_server(InferenceService(client, tell=print))
        server.add_insecure_port(f"unix:{root}/rpc.sock")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{root}/rpc.sock") as channel:
            yield channel
        await server.stop(0)
    await runner.cleanup()


def test_what_is_left_of_a_limit_is_told_with_an_answer_and_with_a_refusal(tmp_path: Path) -> None:
    seen: list[web.Request] = []

    async def front(request: web.Request) -> web.Response:
        seen.append(request)
        if len(seen) == 1:
            answer = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
            return web.json_response(answer, headers={**LEFT, "x-other": "no"})
        error = {"message": "60 requests a minute.", "type": "rate_limit_error", "code": "requests_per_minute"}
        return web.json_response({"error": error}, status=429, headers={**LEFT, "retry-after": "7"})

    async def run() -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", front)
        async with served(tmp_path, application) as channel:
            metadata = (("authorization", "Bearer k"), ("x-request-id", "r"), ("x-forwarded-for", "192.0.2.1"))
            call = stub_of(channel).Chat(CHAT, metadata=(*metadata, ("x-odd", "not handed on"), ("odd-bin", b"\xff")))
            assert (await call).message.parts[0].text == "hi"
            assert dict(await call.trailing_metadata()) == LEFT
            error = await error_of(stub_of(channel).Chat(CHAT, metadata=metadata))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.details() == "60 requests a minute."
            assert LEFT.items() <= trailing(error).items()
            assert (trailing(error)["retry-after"], trailing(error)["x-request-id"]) == ("7", "r")
        assert {name: seen[0].headers[name] for name, _ in metadata} == dict(metadata)
        assert "x-odd" not in seen[0].headers

    asyncio.run(run())
