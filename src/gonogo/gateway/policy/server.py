"""The ext_proc server: one question, one answer, end of stream. gRPC on a unix socket.

Not here: who may (`decide`), the snapshot (`snapshot`), the process around it (`main`).

The stream ends with the answer: nothing of a request depends on this server afterwards, so it may die in the middle
of a long answer. Whatever cannot be decided is refused.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from typing import Any, Callable

import grpc
import grpc.aio
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from gonogo.gateway.policy.answers import BROKEN, STALE, UNEXPECTED, answer, read_headers
from gonogo.gateway.policy.decide import View, decide

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
HEALTH_SERVICE = "grpc.health.v1.Health"
MAX_STREAMS = 8192
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_RECORDED = 50

_END: object = grpc.aio.EOF  # type: ignore[attr-defined]

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
    """Answers each stream's first message; `view` gives the snapshot or None when it is too old.

    `clock` gives Unix seconds. `tell` gets one record for each kind of error, without anything that a client sent.
    """

    def __init__(
        self,
        view: Callable[[], View | None],
        *,
        clock: Callable[[], float] = time.time,
        tell: Callable[[str], None],
    ) -> None:
        self._view = view
        self._clock = clock
        self._tell = tell
        self._recorded: set[str] = set()
        self._streams: set[asyncio.Task[Any]] = set()

    async def process(self, _requests: Any, context: Any) -> None:
        """One ext_proc stream."""
        stream = asyncio.current_task()
        assert stream is not None
        self._streams.add(stream)
        try:
            message = await context.read()
            if message is not _END:
                await context.write(self.decided(message))
        finally:
            self._streams.discard(stream)

    async def drain(self, within_s: float) -> None:
        """Wait for the streams that have begun. New ones are still answered: refused, Envoy would try here again."""
        if self._streams:
            await asyncio.wait(set(self._streams), timeout=within_s)

    async def check(self, _request: bytes, _context: Any) -> bytes:
        """gRPC health: serving while the snapshot is fresh."""
        return _NOT_SERVING if self._view() is None else _SERVING

    def decided(self, message: bytes) -> bytes:
        """The serialized answer to one serialized question. Never raises."""
        try:
            return self._decide(message)
        except Exception as error:  # noqa: BLE001 - the boundary: an error of ours must refuse, and must be written down once
            self._record(error)
            return answer(BROKEN)

    def _decide(self, message: bytes) -> bytes:
        request = ProcessingRequest.FromString(message)
        if request.WhichOneof("request") != "request_headers":
            self._note("Envoy sent something else than request headers: its processing mode is not ours")
            return answer(UNEXPECTED)
        view = self._view()
        if view is None:
            return answer(STALE)
        return answer(decide(read_headers(request.request_headers), view, self._clock()))

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
