"""How a policy server hears that requests have ended: from the logs that Envoy and the relays write.

So nothing of a running answer depends on a policy server. Every policy server reads every line; what they do with it
may be done twice. How far was read is kept where the counting is (Valkey), so that a server which begins anew, or had
been counting by itself, begins where Valkey last heard of it. Not here: what a line means (`facts.request_record`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Awaitable, Callable, Mapping, Protocol, Sequence

from gonogo.facts.request_record import LogPosition, RequestRecord, StreamRecord, parse_request, parse_stream
from gonogo.gateway.access_log import LogTail
from gonogo.gateway.policy.counters import End
from gonogo.gateway.policy.valkey import Away, Valkey

POLL_S = 0.01
"""As often as Envoy writes its log to the file (`bootstrap.FLUSH_MS`)."""
READ_BYTES = 64 * 1024
"""Read and judged in one go: about a hundred lines, while which no request is answered."""
_KEPT = "ends:positions"

Hears = Callable[[Sequence[End]], Awaitable[object]]


class Positions(Protocol):
    """Where the logs are read on, kept with what was made of them."""

    @property
    def generation(self) -> int:
        """Another number where what is kept may be older than what was read; 0: it cannot be asked."""
        ...

    async def load(self) -> Mapping[str, LogPosition]:
        """By the name of the log; what is not in it was never read. Raises `Away`."""
        ...

    async def keep(self, name: str, position: LogPosition) -> None:
        """Raises `Away`."""
        ...


class ValkeyPositions:
    """`Positions` in Valkey."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey

    @property
    def generation(self) -> int:
        return self._valkey.opened if self._valkey.there else 0

    async def load(self) -> Mapping[str, LogPosition]:
        answer = await self._valkey.call("HGETALL", _KEPT)
        pairs = zip(answer[::2], answer[1::2], strict=True)
        return {str(name, "utf-8"): _position(value) for name, value in pairs}

    async def keep(self, name: str, position: LogPosition) -> None:
        await self._valkey.call("HSET", _KEPT, name, f"{position.inode} {position.offset} {position.mark}")


class Ends:
    """Reads the access log and the relays' logs for ever, and tells each of `hears` what has ended.

    `tell` gets a line when a log cannot be read, and when it can be again.
    """

    def __init__(
        self,
        access_log: Path,
        relay_logs: Sequence[Path],
        positions: Positions,
        hears: Sequence[Hears],
        tell: Callable[[str], None],
    ) -> None:
        self._logs: Mapping[Path, Callable[[bytes], End | None]] = {
            access_log: end_of_request,
            **dict.fromkeys(relay_logs, end_of_stream),
        }
        self._positions = positions
        self._hears = hears
        self._tell = tell
        self._generation = 0
        self._tails = {log: LogTail.at_end(log) for log in self._logs}
        self._failing: str | None = None

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                busy = await self.poll()
                self._note(None)
            except OSError as error:
                busy = False
                self._note(f"{type(error).__name__}: {error.strerror}")
            await asyncio.sleep(0 if busy else POLL_S)

    async def poll(self) -> bool:
        """Read each log once; whether there may be more. Raises OSError."""
        if self._positions.generation not in (0, self._generation):
            await self._begin_where_valkey_is()
        busy = False
        for log, meaning in self._logs.items():
            busy = await self._read(log, meaning) or busy
        return busy

    async def _begin_where_valkey_is(self) -> None:
        generation = self._positions.generation
        try:
            kept = await self._positions.load()
            for log, tail in self._tails.items():
                if log.name not in kept and tail.position is not None:
                    await self._positions.keep(log.name, tail.position)
        except Away:
            return
        for log in self._logs:
            if log.name in kept:
                self._tails[log].close()
                self._tails[log] = LogTail(log, kept[log.name])
        self._generation = generation

    async def _read(self, log: Path, meaning: Callable[[bytes], End | None]) -> bool:
        tail = self._tails[log]
        lines = tail.read(READ_BYTES)
        if not lines:
            return False
        ends = [end for end in map(meaning, lines) if end is not None]
        for hears in self._hears if ends else ():
            await hears(ends)
        # Not where Valkey went away meanwhile and came back: then it has not heard of these.
        if tail.position is not None and self._positions.generation == self._generation != 0:
            with suppress(Away):
                await self._positions.keep(log.name, tail.position)
        return True

    def _note(self, failing: str | None) -> None:
        if failing is not None and self._failing is None:
            self._tell(f"the gateway's logs cannot be read, so it is not heard which requests have ended: {failing}")
        if failing is None and self._failing is not None:
            self._tell("the gateway's logs can be read again")
        self._failing = failing


def end_of_request(line: bytes) -> End | None:
    """What a line of the access log says; None where nothing was counted of the request.

    A gRPC call has the id of the request that it became: the end of that one is told by its own line, or the relay's.
    """
    record = parse_request(line)
    if record is None or record.key_id is None or record.is_call:
        return None
    tokens = _used(record)
    # The relay knows more: its line is on its way, or was before this one.
    final = tokens is not None or not record.relayed
    return End(request_id=record.request_id, tokens=tokens, final=final)


def end_of_stream(line: bytes) -> End | None:
    """What a line of a relay's log says."""
    record = parse_stream(line)
    if record is None:
        return None
    prompt_tokens = record.prompt_tokens or 1
    return End(
        request_id=record.request_id,
        tokens=_sum(record),
        first_s=None if record.ttft_ms is None or len(record.attempts) != 1 else record.ttft_ms / 1000,
        computed=max(0, prompt_tokens - (record.cached_tokens or 0)) / prompt_tokens,
    )


def _used(record: RequestRecord) -> int | None:
    """Nothing where no answer came. Who goes away before one came has used what nobody counted: the estimate stays."""
    if record.status >= 400:
        return 0
    return _sum(record)


def _sum(record: RequestRecord | StreamRecord) -> int | None:
    if record.prompt_tokens is None or record.completion_tokens is None:
        return None
    return record.prompt_tokens + record.completion_tokens


def _position(value: bytes) -> LogPosition:
    inode, offset, mark = map(int, value.split())
    return LogPosition(inode=inode, offset=offset, mark=mark)
