"""The server that Envoy asks about each request (ext_authz): one question, one answer, gRPC on a unix socket.

Not here: what is answered (`question`), the snapshot (`snapshot`), the process around it (`main`).

Nothing of a request depends on this server after its answer, so it may die in the middle of a long one. Whatever cannot
be decided is refused.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import Any, Callable

import grpc
import grpc.aio

from gonogo.gateway.policy.answers import BROKEN, UNEXPECTED, Told, headers_for, let_through, refusal
from gonogo.gateway.policy.body import MAX_BODY_BYTES
from gonogo.gateway.policy.decide import View
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.gate import Gate, OpenGate
from gonogo.gateway.policy.question import HEAD, STAGE, WHOLE, Asked, asked_by_head, asked_whole

SERVICE = "envoy.service.auth.v3.Authorization"
HEALTH_SERVICE = "grpc.health.v1.Health"
MAX_STREAMS = 8192
MAX_MESSAGE_BYTES = MAX_BODY_BYTES + 1024 * 1024
READ_AT_ONCE = 16
"""Questions that are read and judged at the same time. Only then is a body held, so that all of them take 528 MiB at
most: the others wait in Envoy, which keeps them anyway."""
MAX_RECORDED = 50

# grpc.health.v1.HealthCheckResponse by hand, as the package that holds it would be one dependency for two constants.
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.so_reuseport", 0),
    # Envoy PINGs twice a second to notice a hung server; gRPC would take that for abuse and close the connection.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ("grpc.keepalive_permit_without_calls", 1),
)


class PolicyService:
    """Answers each question; `view` gives the snapshot or None when it is too old.

    `clock` gives Unix seconds. `tell` gets one record for each kind of error, without anything that a client sent.
    """

    def __init__(
        self,
        view: Callable[[], View | None],
        *,
        clock: Callable[[], float] = time.time,
        tell: Callable[[str], None],
        gate: Gate | None = None,
    ) -> None:
        self._view = view
        self._clock = clock
        self._tell = tell
        self._gate = gate or OpenGate()
        self._reading = asyncio.Semaphore(READ_AT_ONCE)
        self._recorded: set[str] = set()
        self._asking: set[asyncio.Task[Any]] = set()

    async def check(self, messages: Any, context: Any) -> bytes:
        """One question. Read here and not by gRPC, so that how many are held is ours to say.

        The answer and the end of the call leave together: with one gone and not the other, Envoy has no answer.
        """
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        async with self._reading:
            judged = self.judged(_stage(context), await anext(aiter(messages), b""))
        return judged if isinstance(judged, bytes) else await self.admitted(judged)

    async def drain(self, within_s: float) -> None:
        """Wait for the questions that were asked. New ones are answered too: refused, Envoy would try here again."""
        if self._asking:
            await asyncio.wait(set(self._asking), timeout=within_s)

    async def health(self, _request: bytes, _context: Any) -> bytes:
        """gRPC health: serving while the snapshot is fresh."""
        return _NOT_SERVING if self._view() is None else _SERVING

    def judged(self, stage: str, message: bytes) -> Asked | bytes:
        """What to ask the gate, or the serialized answer. Never raises."""
        try:
            if stage == WHOLE:
                return asked_whole(message, self._view(), self._clock())
            if stage == HEAD:
                return asked_by_head(message, self._view(), self._clock())
            self._note("Envoy did not say which question it asks: its settings are not ours")
            return refusal(UNEXPECTED)
        except Exception as error:  # noqa: BLE001 - the boundary: an error of ours must refuse, and must be written down once
            self._record(error)
            return refusal(BROKEN)

    async def admitted(self, asked: Asked) -> bytes:
        """The serialized answer of the gate. Raises nothing but a cancellation."""
        try:
            admitted = await self._gate.admit(asked.request, asked.key, asked.revision)
            if isinstance(admitted, Deny):
                return refusal(admitted, Told(key_id=asked.key.key_id, revision=asked.revision))
            headers = {
                "x-gonogo-revision": asked.revision,
                "x-gonogo-key-id": asked.key.key_id,
                **headers_for(asked.request, asked.rules, admitted),
                **(asked.headers if admitted.fallback is None else asked.headers_away),
            }
            to = "" if admitted.fallback is None else admitted.fallback.authority
            told = Told(prompt_tokens=asked.request.prompt_tokens, fallback=to)
            return let_through(headers, admitted.reply_headers, told)
        except Exception as error:  # noqa: BLE001 - the same boundary
            self._record(error)
            return refusal(BROKEN)

    def _record(self, error: Exception) -> None:
        """The place and the type; not the text, which may hold what a client sent."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        self._note(f"{type(error).__name__} while deciding; the request was refused\n{frames}".rstrip())

    def _note(self, text: str) -> None:
        if text not in self._recorded and len(self._recorded) < MAX_RECORDED:
            self._recorded.add(text)
            self._tell(text)


def _stage(context: Any) -> str:
    for name, value in context.invocation_metadata():
        if name == STAGE:
            return str(value)
    return ""


def build_server(service: PolicyService) -> grpc.aio.Server:
    """A server with this service, not bound to a socket yet. Messages pass as bytes: answers are kept serialized."""
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_STREAMS)
    check = grpc.stream_unary_rpc_method_handler(service.check)
    health = grpc.unary_unary_rpc_method_handler(service.health)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(SERVICE, {"Check": check}),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": health}),
        )
    )
    return server
