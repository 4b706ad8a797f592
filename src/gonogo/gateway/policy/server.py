"""The ext_proc server: one stream for each request, gRPC on a unix socket.

Not here: the conversation on a stream (`exchange`), the snapshot (`snapshot`), the process around it (`main`).

The stream ends with the answers: nothing of a request depends on this server afterwards, so it may die in the middle
of a long answer. Whatever cannot be decided is refused.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from typing import Any, Callable, Sequence

import grpc
import grpc.aio

from gonogo.gateway.policy.answers import BROKEN, UNEXPECTED, refusal
from gonogo.gateway.policy.body import MAX_BODY_BYTES
from gonogo.gateway.policy.decide import View
from gonogo.gateway.policy.exchange import Exchange, Held, Read, Unasked
from gonogo.gateway.policy.gate import Gate, OpenGate

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
HEALTH_SERVICE = "grpc.health.v1.Health"
MAX_STREAMS = 8192
MAX_MESSAGE_BYTES = MAX_BODY_BYTES + 1024 * 1024
"""Envoy sends a body as it comes, in pieces that may be as large as all of it."""
MAX_RECORDED = 50

_END: object = grpc.aio.EOF  # type: ignore[attr-defined]

# grpc.health.v1.HealthCheckResponse by hand, as the package that holds it would be one dependency for two constants.
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.so_reuseport", 0),
    # Envoy PINGs twice a second to notice a hung server; gRPC would take that for abuse and close the connection.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ("grpc.keepalive_permit_without_calls", 1),
)


class PolicyService:
    """Answers each stream; `view` gives the snapshot or None when it is too old.

    `clock` gives Unix seconds. `tell` gets one record for each kind of error, without anything that a client sent.
    """

    def __init__(
        self,
        view: Callable[[], View | None],
        *,
        clock: Callable[[], float] = time.time,
        tell: Callable[[str], None],
        gate: Gate | None = None,
        held: Held | None = None,
    ) -> None:
        self._view = view
        self._clock = clock
        self._tell = tell
        self._gate = gate or OpenGate()
        self._held = held or Held()
        self._recorded: set[str] = set()
        self._streams: set[asyncio.Task[Any]] = set()

    async def process(self, _requests: Any, context: Any) -> None:
        """One ext_proc stream."""
        stream = asyncio.current_task()
        assert stream is not None
        self._streams.add(stream)
        try:
            await self._converse(context)
        finally:
            self._streams.discard(stream)

    async def drain(self, within_s: float) -> None:
        """Wait for the streams that have begun. New ones are still answered: refused, Envoy would try here again."""
        if self._streams:
            await asyncio.wait(set(self._streams), timeout=within_s)

    async def check(self, _request: bytes, _context: Any) -> bytes:
        """gRPC health: serving while the snapshot is fresh."""
        return _NOT_SERVING if self._view() is None else _SERVING

    async def answers(self, first: bytes, read: Read) -> Sequence[bytes]:
        """The serialized answers to a stream that begins with this message. Raises nothing but a cancellation."""
        try:
            return await Exchange(self._view, self._clock, self._gate, self._held, read).answers(first)
        except Unasked as error:
            self._note(f"Envoy sent {error}: its processing mode is not ours")
            return (refusal(UNEXPECTED),)
        except Exception as error:  # noqa: BLE001 - the boundary: an error of ours must refuse, and must be written down once
            self._record(error)
            return (refusal(BROKEN),)

    async def _converse(self, context: Any) -> None:
        async def read() -> bytes | None:
            message = await context.read()
            return None if message is _END else message

        first = await read()
        if first is not None:
            for answer in await self.answers(first, read):
                await context.write(answer)

    def _record(self, error: Exception) -> None:
        """The place and the type; not the text, which may hold what a client sent."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        self._note(f"{type(error).__name__} while deciding; the request was refused\n{frames}".rstrip())

    def _note(self, text: str) -> None:
        if text not in self._recorded and len(self._recorded) < MAX_RECORDED:
            self._recorded.add(text)
            self._tell(text)


def build_server(service: PolicyService) -> grpc.aio.Server:
    """A server with this service, not bound to a socket yet. Messages pass as bytes: answers are kept serialized."""
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_STREAMS)
    process = grpc.stream_stream_rpc_method_handler(service.process)
    check = grpc.unary_unary_rpc_method_handler(service.check)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(SERVICE, {"Process": process}),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": check}),
        )
    )
    return server


def tell_stderr(text: str) -> None:
    """One record with the time, to stderr, which the launcher made a file."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
    sys.stderr.flush()
