"""One request's conversation with Envoy: headers, then the body, then all answers at once.

Whoever may not is refused by the headers, before a body is read. Nothing is said to Envoy before the last byte is here:
until then it may ask another policy server in place of one that died. Not here: gRPC (`server`), and what is decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Awaitable, Callable, Sequence

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from gonogo.gateway.policy.answers import STALE, headers_for, let_through, model_list, read_headers, refusal
from gonogo.gateway.policy.body import MAX_BODY_BYTES, parse
from gonogo.gateway.policy.decide import MODEL_LIST, Caller, RequestHeaders, View, choose, decide
from gonogo.gateway.policy.deny import INVALID_REQUEST, SERVER_ERROR, Deny
from gonogo.gateway.policy.gate import Gate
from gonogo.gateway.policy.request import Head, Request, model_of, request_of
from gonogo.gateway.policy.rules import ServiceRules

MOST_HELD_BYTES = 512 * 1024 * 1024
"""Of all bodies that one policy server holds, those that wait for room included."""

Read = Callable[[], Awaitable[bytes | None]]
"""Envoy's next message, serialized; None: it has no more to say, so the client went away."""

_TOO_LARGE = Deny(
    status=413,
    code="body_too_large",
    message=f"The request body is larger than {MAX_BODY_BYTES // 1024**2} MiB.",
    type=INVALID_REQUEST,
)
_FULL = Deny(
    status=503,
    code="bodies_full",
    message=f"The gateway holds {MOST_HELD_BYTES // 1024**2} MiB of request bodies and takes in no more. Try again.",
    type=SERVER_ERROR,
    headers=(("retry-after", "1"),),
)


class Unasked(Exception):
    """Envoy said something that its settings do not let it say."""


class Held:
    """How much all requests of this server hold."""

    def __init__(self, most_bytes: int = MOST_HELD_BYTES) -> None:
        self._most_bytes = most_bytes
        self.size_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Whether there is room for so many more; then they are held."""
        if self.size_bytes + size_bytes > self._most_bytes:
            return False
        self.size_bytes += size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        self.size_bytes -= size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request that nothing is wrong with, and where it goes."""

    caller: Caller
    request: Request
    revision: str
    rules: ServiceRules


@dataclass(slots=True)
class _Body:
    """What came so far. `trailers`: they came after it."""

    pieces: list[bytes]
    size_bytes: int = 0
    trailers: bool = False


class Exchange:
    """The conversation about one request. `view` gives the snapshot, None when it is too old; `clock` Unix seconds."""

    def __init__(
        self, view: Callable[[], View | None], clock: Callable[[], float], gate: Gate, held: Held, read: Read
    ) -> None:
        self._view = view
        self._clock = clock
        self._gate = gate
        self._held = held
        self._read = read

    async def answers(self, first: bytes) -> Sequence[bytes]:
        """What to say to Envoy, in order; nothing when the client went away. Raises `Unasked`."""
        message = ProcessingRequest.FromString(first)
        if message.WhichOneof("request") != "request_headers":
            raise Unasked("something else than request headers first")
        headers = read_headers(message.request_headers)
        view = self._view()
        if view is None:
            return (refusal(STALE),)
        caller = decide(headers, view, self._clock())
        if isinstance(caller, Deny):
            return (refusal(caller),)
        if headers.path.partition("?")[0] == MODEL_LIST:
            return (model_list(caller, view),)
        if (headers.content_length or 0) > MAX_BODY_BYTES:
            return (refusal(_TOO_LARGE),)
        body = _Body(pieces=[])
        try:
            return await self._with_body(headers, body, whole=message.request_headers.end_of_stream)
        finally:
            self._held.give(body.size_bytes)

    async def _with_body(self, headers: RequestHeaders, body: _Body, *, whole: bool) -> Sequence[bytes]:
        if not whole:
            refused = await self._take_in(body)
            if refused is _GONE:
                return ()
            if isinstance(refused, Deny):
                return (refusal(refused),)
        raw = b"".join(body.pieces)
        body.pieces.clear()
        asked = self._judge(headers, raw)
        if isinstance(asked, Deny):
            return (refusal(asked),)
        admitted = await self._gate.admit(asked.request, asked.caller.key, asked.revision)
        if isinstance(admitted, Deny):
            return (refusal(admitted),)
        set_headers = {
            "x-gonogo-revision": asked.revision,
            "x-gonogo-key-id": asked.caller.key.key_id,
            **headers_for(asked.request, asked.rules, admitted),
        }
        return let_through(set_headers, admitted.reply_headers, raw, body.trailers)

    async def _take_in(self, body: _Body) -> Deny | object | None:
        """Read to the end of the body; `_GONE` when there will be none."""
        while True:
            serialized = await self._read()
            if serialized is None:
                return _GONE
            message = ProcessingRequest.FromString(serialized)
            kind = message.WhichOneof("request")
            if kind == "request_trailers":
                body.trailers = True
                return None
            if kind != "request_body":
                raise Unasked(f"{kind} in a request's body")
            piece = message.request_body.body
            if body.size_bytes + len(piece) > MAX_BODY_BYTES:
                return _TOO_LARGE
            if not self._held.take(len(piece)):
                return _FULL
            body.size_bytes += len(piece)
            body.pieces.append(piece)
            if message.request_body.end_of_stream:
                return None

    def _judge(self, headers: RequestHeaders, raw: bytes) -> _Asked | Deny:
        """By the snapshot of now: a key may have been revoked while a slow client sent its body."""
        view = self._view()
        if view is None:
            return STALE
        caller = decide(headers, view, self._clock())
        if isinstance(caller, Deny):
            return caller
        fields = parse(raw)
        if isinstance(fields, Deny):
            return fields
        model = model_of(fields)
        if isinstance(model, Deny):
            return model
        revision = choose(caller, model)
        if isinstance(revision, Deny):
            return revision
        path = headers.path.partition("?")[0]
        head = Head(method=headers.method, path=path, request_id=headers.request_id)
        rules = view.rules[revision]
        request = request_of(head, fields, rules)
        if isinstance(request, Deny):
            return request
        return _Asked(caller=caller, request=request, revision=revision, rules=rules)


_GONE = object()
