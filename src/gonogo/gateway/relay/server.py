"""The HTTP of the relay: streamed POSTs from Envoy on a unix socket. Every stream is a connection of its own.

An answer has neither a length nor chunks: it ends where its connection ends. So, when this process is killed, Envoy
sees the end of an answer and not a broken one, and its filter (`gonogo.gateway.resources.relay`) can add the error
event that this process could no longer send.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from dataclasses import asdict, dataclass
from typing import Any, Callable, Mapping

from aiohttp import web

from gonogo.engines.stream import CHAT, COMPLETIONS, Asked, Transcript
from gonogo.engines.stream_table import transcript_for
from gonogo.gateway.policy.away import FALLBACK_HEADER
from gonogo.gateway.policy.renaming import SERVED_AS
from gonogo.gateway.relay.record import Counts, Record
from gonogo.gateway.relay.refusals import BROKEN, DRAINED, NOT_A_STREAM, OVERLOADED, TOO_LARGE, UNKNOWN_PATH, Refusal
from gonogo.gateway.relay.relayed import Relay, Relayed
from gonogo.gateway.relay.takeover import PICK_HEADER, REVISION_HEADER

MOST_BODY_BYTES = 33 * 1024 * 1024
KEY, ENGINE, CONTINUE = "x-gonogo-key-id", "x-gonogo-engine", "x-gonogo-continue"
REQUEST_ID = "x-request-id"
_PASSED_ON = (
    *(REQUEST_ID, REVISION_HEADER, KEY, PICK_HEADER, FALLBACK_HEADER),
    *("content-type", "accept", "traceparent", "tracestate"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Streams at the same time, and bytes of their requests together; more are refused with 503."""

    streams: int = 512
    body_bytes: int = 1024**3


class Server:
    """The handlers. `write` gets the record of each stream; `tell` a line about what went wrong here.

    `trace`, for drills only, gets what was asked of engines and which ids came: that is what was said.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        limits: Limits,
        write: Callable[[Mapping[str, object]], None],
        tell: Callable[[str], None],
        trace: Callable[[Mapping[str, object]], None] | None = None,
    ) -> None:
        self._relay = relay
        self._limits = limits
        self._write = write
        self._tell = tell
        self._trace = trace
        self._running: dict[asyncio.Task[Any], tuple[Relayed, _Answer]] = {}
        self._held_bytes = 0

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(client_max_size=MOST_BODY_BYTES)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_route("*", "/{path:.*}", self._relayed)
        return application

    @property
    def streams(self) -> int:
        """How many run."""
        return len(self._running)

    async def drain(self, within_s: float) -> None:
        """Let the streams come to their end; those that do not are ended with an error event."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=within_s)
        left = dict(self._running)
        for task in left:
            task.cancel()
        for relayed, answer in left.values():
            try:
                await asyncio.wait_for(relayed.give_up(answer, DRAINED, "drained"), 1.0)
            except (OSError, asyncio.TimeoutError):
                continue

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "streams": self.streams})

    async def _relayed(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST" or request.path not in (CHAT, COMPLETIONS):
            return _refused(UNKNOWN_PATH, request)
        size = request.content_length or 0
        if self.streams >= self._limits.streams or self._held_bytes + size > self._limits.body_bytes:
            return _refused(OVERLOADED, request)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _refused(TOO_LARGE, request)
        asked = _asked(request, body)
        if asked is None:
            return _refused(NOT_A_STREAM, request)
        self._held_bytes += len(body)
        try:
            return await self._run(request, asked)
        finally:
            self._held_bytes -= len(body)

    async def _run(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        transcript = transcript_for(request.headers.get(ENGINE, ""), asked)
        record = Record(
            request_id=headers.get(REQUEST_ID, ""),
            key_id=headers.get(KEY, ""),
            revision=headers.get(REVISION_HEADER, ""),
            path=asked.path,
            began=time.monotonic(),
        )
        answer, relayed = _Answer(request), Relayed(self._relay, transcript, record, headers)
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = (relayed, answer)
        try:
            await relayed.run(asked.path, answer)
        except asyncio.CancelledError:
            record.status = "cancelled"
            raise
        except (ConnectionError, OSError):
            record.status = "cancelled"  # the client's side was closed under a write
        except Exception as error:  # noqa: BLE001 - the boundary: an error of ours must be told to the client and here
            self._tell(_place_of(error))
            await relayed.give_up(answer, BROKEN, "relay_error")
        finally:
            self._running.pop(task, None)
            self._recorded(record, transcript)
            if self._trace is not None:
                self._trace(_traced(record, relayed, transcript))
        return answer.response

    def _recorded(self, record: Record, transcript: Transcript) -> None:
        counts = Counts(
            prompt_tokens=transcript.prompt_tokens,
            completion_tokens=transcript.tokens,
            cached_tokens=transcript.cached_tokens,
        )
        wall_time = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            self._write(record.content(time.monotonic(), wall_time, counts))
        except OSError as error:
            self._tell(f"a record could not be written: {error.strerror}")


class _UntilClosed(web.StreamResponse):
    """An answer that ends where its connection ends. aiohttp knows this kind, for WebSockets."""

    _length_check = False

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self.force_close()


class _Answer:
    """`Client` for one request of Envoy's."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> bool:
        return self._response is not None

    @property
    def response(self) -> web.StreamResponse:
        """What was sent; 500 where nothing was."""
        return self._response or web.Response(status=500)

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        given = {**headers, REQUEST_ID: self._request.headers.get(REQUEST_ID, "")}
        self._response = _UntilClosed(status, given)
        await self._response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        assert self._response is not None
        await self._response.write(data)


def _place_of(error: Exception) -> str:
    """The place and the type; not the text, which may hold what was said."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__} in a stream, which was ended with an error\n{frames}".rstrip()


def _traced(record: Record, relayed: Relayed, transcript: Transcript) -> Mapping[str, object]:
    asked = [{"path": one.path, "how": one.how, "body": dict(one.body)} for one in relayed.asked]
    losses = [asdict(one) for one in relayed.losses]
    return {"request_id": record.request_id, "ids": list(transcript.ids), "asked": asked, "losses": losses}


def _asked(request: web.Request, body: bytes) -> Asked | None:
    """The request as the client meant it, its model called as the replicas call it; None: it is no streamed one."""
    served_as = request.headers.get(SERVED_AS)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("stream") is not True:
        return None
    if served_as is not None:
        content["model"] = json.loads(served_as)
    return Asked(path=request.path, body=content, continuable=request.headers.get(CONTINUE, "yes") != "no")


def _refused(refusal: Refusal, request: web.Request) -> web.Response:
    body = refusal.body(request.headers.get(REQUEST_ID, ""))
    return web.Response(status=refusal.status, headers=refusal.headers(), body=body)
