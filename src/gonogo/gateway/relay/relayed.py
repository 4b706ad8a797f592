"""The life of one relayed stream: attempts, one after the other, until the answer is whole or is ended cleanly.

Not here: what events mean (`gonogo.engines.stream`), when silence is death (`silence`), what follows a lost attempt
(`takeover`), the HTTP around it (`server`).
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Mapping, Protocol

import aiohttp

from gonogo.engines.stream import Continuation, Finished, NotContinued, Transcript, is_error
from gonogo.gateway.relay.record import Attempt, Loss, Record
from gonogo.gateway.relay.refusals import Refusal, replica_lost
from gonogo.gateway.relay.silence import FIRST_TOKEN_S
from gonogo.gateway.relay.sse import DONE, Event, Events, NotEvents, event_of, json_of
from gonogo.gateway.relay.takeover import TakeOver
from gonogo.gateway.relay.upstream import REPLICA_HEADER, Inner
from gonogo.gateway.relay.watch import Wait, Watch

HOP_BY_HOP = frozenset(
    ["connection", "keep-alive", "transfer-encoding", "content-length", "server", "date", "upgrade", "te", "trailer"]
)


class Client(Protocol):
    """The client's side: an answer that begins with the first write."""

    @property
    def begun(self) -> bool:
        """Whether its status is sent."""

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status and headers."""

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client is slower than the engine."""


class _Lost(Exception):
    """The running attempt broke off; the text is the word for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What all streams share. `continuations`: how often one request may be continued."""

    inner: Inner
    watch: Watch
    continuations: int


class Relayed:
    """One stream. `headers` go along with every request to the inner listener."""

    def __init__(self, relay: Relay, transcript: Transcript, record: Record, headers: Mapping[str, str]) -> None:
        self._relay = relay
        self._transcript = transcript
        self._record = record
        self._takeover = TakeOver(relay.inner, relay.watch, headers, relay.continuations)
        self._given_up: aiohttp.ClientResponse | None = None
        self._told = 0  # tokens that former attempts added
        self.asked: list[Continuation] = []
        """Every request to an engine, for a drill that holds them against the answer."""

    @property
    def losses(self) -> list[Loss]:
        """Every lost attempt."""
        return self._takeover.losses

    async def run(self, path: str, client: Client) -> None:
        """Relay it to its end. Raises what `client` raises, CancelledError when the client has gone."""
        going: Continuation | Finished | NotContinued
        going = Continuation(path=path, body=self._transcript.opening(), how="first")
        await self._takeover.aim()
        while isinstance(going, Continuation):
            self.asked.append(going)
            attempt = Attempt(how=going.how)
            self._record.attempts.append(attempt)
            try:
                await self._timed(going, attempt, client)
                return
            except _Lost as lost:
                attempt.end = str(lost)
            self._takeover.lost(attempt)
            await self._takeover.aim()
            going = await self._takeover.next(self._transcript, self._record, going)
        if isinstance(going, Finished):
            await self._finish(client, b"".join(event_of(event) for event in going.events))
            return
        await self.give_up(client, replica_lost(going.reason), going.reason)

    async def give_up(self, client: Client, refusal: Refusal, reason: str) -> None:
        """End the stream with an error that the client can read, as an answer of its own where none has begun."""
        self._record.reason = reason
        if client.begun:
            self._record.status = "lost"
            await client.write(refusal.events(self._record.request_id))
            return
        self._record.status, self._record.http_status = "refused", refusal.status
        await client.begin(refusal.status, refusal.headers())
        await client.write(refusal.body(self._record.request_id))

    async def _timed(self, going: Continuation, attempt: Attempt, client: Client) -> None:
        began = time.monotonic()
        try:
            await self._attempt(going, attempt, client)
        except asyncio.CancelledError:
            attempt.end = "cancelled"
            raise
        finally:
            attempt.ms = round(1000 * (time.monotonic() - began), 1)
            attempt.prompt_ms = self._transcript.prompt_ms
            tokens = self._transcript.tokens
            attempt.tokens = None if tokens is None else max(0, tokens - self._told)
            self._told = tokens or 0

    async def _attempt(self, going: Continuation, attempt: Attempt, client: Client) -> None:
        body = json.dumps(going.body, ensure_ascii=False, separators=(",", ":")).encode()
        self._takeover.asked()
        answer = await self._open(going.path, body, attempt)
        try:
            attempt.replica = answer.headers.get(REPLICA_HEADER)
            if answer.status == 200 and answer.content_type == "text/event-stream":
                await self._stream(answer, attempt, client)
            elif going.how == "first":
                await self._pass(answer, attempt, client)
            else:
                raise _Lost("refused")
        finally:
            answer.close()  # not released: an answer that still runs must end at once, and free its slot

    async def _open(self, path: str, body: bytes, attempt: Attempt) -> aiohttp.ClientResponse:
        """llama-server sends its status with the first token: until then this waits, and not the reading."""
        opening = asyncio.ensure_future(self._relay.inner.open(path, body, self._takeover.headers))
        endpoint = self._takeover.sent_to
        wait = Wait(since=time.monotonic(), replica=None, endpoint=endpoint, begun=False, give_up=opening.cancel)
        try:
            with self._relay.watch.over(wait):
                await asyncio.wait({opening}, timeout=FIRST_TOKEN_S)
            if opening.done() and not opening.cancelled():
                return opening.result()
        except (aiohttp.ClientError, OSError) as error:
            raise _Lost("refused") from error
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise
        finally:
            opening.cancel()
        attempt.replica = wait.replica
        raise _Lost("hung")

    async def _pass(self, answer: aiohttp.ClientResponse, attempt: Attempt, client: Client) -> None:
        """What is no stream (the engine's or Envoy's error) goes to the client as it is."""
        self._record.status, self._record.http_status = ("done" if answer.status < 400 else "refused"), answer.status
        attempt.end = f"status {answer.status}"
        await client.begin(answer.status, _headers_of(answer))
        try:
            async for chunk in answer.content.iter_any():
                await client.write(chunk)
        except aiohttp.ClientError:
            attempt.end = "died"

    async def _stream(self, answer: aiohttp.ClientResponse, attempt: Attempt, client: Client) -> None:
        events, begun = Events(), False
        while True:
            since = time.monotonic()
            chunk = await self._read(answer, attempt.replica, begun)
            waited_s = time.monotonic() - since
            if not chunk:
                break
            try:
                out, ended = self._translated(events.feed(chunk))
            except NotEvents as error:
                raise _Lost("garbage") from error
            if out:
                self._relay.watch.gave(attempt.replica, waited_s if begun else None)
                begun = True
                await self._give(answer, client, out)
            if ended == "done":
                return
            if ended:
                raise _Lost(ended)
        if not self._transcript.finished:
            raise _Lost("died")
        await self._finish(client, b"".join(event_of(event) for event in self._transcript.ending()))

    def _translated(self, events: list[Event]) -> tuple[bytes, str]:
        """What the client gets for these events; and how the attempt ends with them, empty when it does not."""
        out: list[bytes] = []
        for event in events:
            if event.done:
                return b"".join(out) + DONE, "done"
            if event.data is None and event.named is None:
                continue  # a comment that kept a connection alive: Envoy's and ours need none
            if event.named == "error":
                return b"".join(out), "error"
            try:
                said = json_of(event)
            except NotEvents:
                return b"".join(out), "garbage"
            if is_error(said):
                return b"".join(out), "error"
            told = self._transcript.event(said)
            out += [event.raw] if self._transcript.verbatim else [event_of(one) for one in told]
            if self._transcript.complete:
                return b"".join(out) + DONE, "done"
        return b"".join(out), ""

    async def _give(self, answer: aiohttp.ClientResponse, client: Client, out: bytes) -> None:
        if not client.begun:
            await client.begin(200, _headers_of(answer))
        now = time.monotonic()
        self._record.piece(now, after_loss=self._takeover.under_way)
        self._takeover.gave(now)
        await client.write(out)

    async def _read(self, answer: aiohttp.ClientResponse, replica: str | None, begun: bool) -> bytes:
        """The next bytes; empty at the end. Raises `_Lost` when the replica died or hangs."""
        wait = Wait(
            since=time.monotonic(),
            replica=replica,
            begun=begun,
            longest_gap_s=self._record.longest_gap_s,
            first_s=self._record.first_s,
            give_up=answer.close,
        )
        try:
            with self._relay.watch.over(wait):
                chunk = await answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _Lost("hung" if wait.hung or answer is self._given_up else "died") from error
        if wait.hung:  # these bytes came in the same moment; there are no more
            self._given_up = answer
        return chunk

    async def _finish(self, client: Client, out: bytes) -> None:
        await client.write(out + DONE)


def _headers_of(answer: aiohttp.ClientResponse) -> Mapping[str, str]:
    """The engine's headers, without those of the connection."""
    return {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}


def _close(opening: asyncio.Future[aiohttp.ClientResponse]) -> None:
    """The client went in the very moment in which the answer began."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
