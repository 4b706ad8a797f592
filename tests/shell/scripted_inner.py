"""A paper llama-server that breaks by script: on a unix socket in place of Envoy's inner listener, or on a port.

    ScriptedInner(socket, model, ["die after 3", "fine"])

The first streamed request dies after three events, the next is answered to its end; with nothing left in the script
every replica is gone (503). Questions are always answered.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Awaitable, Callable, Sequence

from aiohttp import web

from gonogo.engines.stream import Question
from tests.core.paper_engines import PaperLlama, PaperModel

QUESTIONS = ("/apply-template", "/tokenize", "/detokenize")


class ScriptedInner:
    """`async with`. `requests`: (path, body) of each streamed request; `running`: those that are being answered."""

    def __init__(self, socket: Path | None, model: PaperModel, script: Sequence[str], port: int = 0) -> None:
        self.port = port
        self.engine = PaperLlama(model)
        self.script = list(script)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.questions: list[str] = []
        self.running = 0
        self.instead: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        """Answers every request in place of the script."""
        self._socket = socket

    async def __aenter__(self) -> ScriptedInner:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_get("/health", self._health)
        application.router.add_route("POST", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        if self._socket is not None:
            await web.UnixSite(self._runner, str(self._socket)).start()
        else:
            site = web.TCPSite(self._runner, "127.0.0.1", self.port)
            await site.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.instead is not None:
            return await self.instead(request)
        body = await request.json()
        if request.path in QUESTIONS:
            self.questions.append(request.path)
            return web.json_response(self.engine.answer(Question(path=request.path, body=body)))
        if not self.script:
            envelope = '{"error":{"code":"no_healthy_replica"}}'
            headers = {"content-type": "application/json", "x-gonogo-wrapped": "1", "retry-after": "1"}
            return web.Response(status=503, text=envelope, headers=headers)
        self.requests.append((request.path, body))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        what, _, after = self.script.pop(0).partition(" after ")
        if what.startswith("status"):
            return web.Response(status=int(what.split()[1]), text='{"error":"an engine\'s own words"}')
        self.running += 1
        try:
            return await self._stream(request, body, what, int(after or 10**9))
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request, body: dict[str, Any], what: str, after: int) -> web.StreamResponse:
        replica = f"svc/1/{len(self.requests) - 1}"
        answer = web.StreamResponse(headers={"content-type": "text/event-stream", "x-gonogo-replica": replica})
        await answer.prepare(request)
        for number, event in enumerate(self.engine.stream(request.path, body)):
            if number >= after:
                return await self._broken(request, answer, what, event)
            await answer.write(f"data: {json.dumps(event)}\n\n".encode())
        if what != "fine":
            return await self._broken(request, answer, what, {})
        if request.path != "/completion":
            await answer.write(b"data: [DONE]\n\n")
        return answer

    async def _broken(self, request: web.Request, answer: web.StreamResponse, what: str, event: Any) -> Any:
        if what == "hang":
            await asyncio.sleep(60)
        if what == "garbage":
            await answer.write(b"data: \x00\xff not json\n\n")
        if what == "half":
            await answer.write(f"data: {json.dumps(event)}"[:30].encode())
        if what == "error":
            await answer.write(b'data: {"error": {"message": "an engine\'s own words", "code": 500}}\n\n')
        if what == "failure":
            await answer.write(b'event: error\ndata: "an engine\'s own words"\n\n')
        if what == "whole":
            await answer.write(b"data: [DONE]\n\n")
        if what != "eof":
            assert request.transport is not None
            await asyncio.sleep(0.01)
            request.transport.abort()
        return answer
