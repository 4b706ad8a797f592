"""One request as the gateway's log tells it: a line of Envoy's access log, a line of a relay's log. Pure.

Envoy writes a line when a request ended, whatever its end was (`gateway.resources.listeners` says which fields). The
relay writes one when a stream ended (`gateway.relay`). Both carry the request's id; metering joins them by it.
Not here: reading the files (`gateway.access_log`), and what is counted from them (`control.metering`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Mapping, Sequence

from gonogo.facts.parse_json import speakable

LINE_BEGINS = b'{"attempts":'
"""How every line of Envoy's access log begins (it sorts the fields); a line behind half a line is found by it."""
RELAY = "relay"
"""Envoy's cluster of relays: what was sent there was answered by a replica that only the relay's line names."""
RPC = "rpc"
"""Envoy's cluster of the gRPC server: what a call there asks comes back as an HTTP request, with a line of its own."""
LONGEST_NAME = 512
"""Characters of a name (key, revision, replica, request id) that are kept; more is no name of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """How far a log was read. `inode` names the file, `offset` the first byte not read (always after a newline).

    `mark` is a checksum of the bytes just before the offset: it tells the file from another that got the same inode.
    """

    inode: int
    offset: int
    mark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request at the front door. Times in ms from its start; None: it did not come to that, or was not told.

    `at` is its start in Unix seconds; `sent_ms`: when all of it was on its way to a replica or a relay. `status` 0: the
    client went away before there was one. `revision`: the one that policy chose (`service/number`); `upstream`: Envoy's
    cluster, which is `relay` for what a relay passes on. `prompt_estimate`: tokens as policy estimated them. `code`:
    why policy refused it.
    """

    at: float
    request_id: str
    method: str
    path: str
    status: int
    flags: str
    details: str
    bytes_received: int
    bytes_sent: int
    duration_ms: int
    sent_ms: int | None
    first_byte_ms: int | None
    attempts: int
    upstream: str | None
    replica: str | None
    revision: str | None
    key_id: str | None
    streamed: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    prompt_estimate: int | None
    code: str | None

    @property
    def ended_at(self) -> float:
        """Unix seconds."""
        return self.at + self.duration_ms / 1000

    @property
    def relayed(self) -> bool:
        """Whether a relay's line tells more of it."""
        return self.upstream == RELAY

    @property
    def is_call(self) -> bool:
        """Whether it is a gRPC call. The request that it became has the same id and key: it is the one that counts."""
        return self.upstream == RPC

    @property
    def service(self) -> str | None:
        """The service that policy chose; None: it was refused before, or needed none."""
        return None if self.revision is None else service_of(self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One replica's part of a stream: how many tokens it gave, and how that ended (the relay's word)."""

    replica: str
    tokens: int
    end: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """One stream as a relay passed it on. Times in ms; None: there was none. `continued`: how often another replica
    took over. `stall_ms`: the longest wait of the client between two tokens while one died. `status`: done, cancelled
    (by the client), lost (ended by an error event of ours), refused (an error, `http_status`, before the stream).
    """

    request_id: str
    key_id: str | None
    revision: str | None
    attempts: tuple[Attempt, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    ttft_ms: float | None
    itl_p50_ms: float | None
    itl_p95_ms: float | None
    itl_max_ms: float | None
    stall_ms: float | None
    continued: int
    status: str
    http_status: int | None

    @property
    def replica(self) -> str | None:
        """The replica that ended it."""
        return self.attempts[-1].replica if self.attempts else None

    @property
    def service(self) -> str | None:
        return None if self.revision is None else service_of(self.revision)


def service_of(revision: str) -> str:
    """`svc` of `svc/3`."""
    return revision.rpartition("/")[0] or revision


def parse_request(line: bytes) -> RequestRecord | None:
    """One line of Envoy's access log; None when it is not one.

    Envoy killed in the middle of a line leaves half of one, and the next Envoy goes on behind it: the whole line after
    the half is read, the half is lost.
    """
    found = _object(line)
    if found is None:
        again = line.rfind(LINE_BEGINS, 1)
        found = _object(line[again:]) if again > 0 else None
    return None if found is None else _request(found)


def parse_stream(line: bytes) -> StreamRecord | None:
    """One line of a relay's log; None when it is not one."""
    found = _object(line)
    if found is None:
        return None
    request_id = _name(found.get("request_id"))
    if request_id is None:
        return None
    gaps = found.get("itl_ms")
    gaps = gaps if isinstance(gaps, dict) else {}
    return StreamRecord(
        request_id=request_id,
        key_id=_name(found.get("key_id")),
        revision=_name(found.get("revision")),
        attempts=_attempts(found.get("attempts")),
        prompt_tokens=_count(found.get("prompt_tokens")),
        completion_tokens=_count(found.get("completion_tokens")),
        cached_tokens=_count(found.get("cached_tokens")),
        ttft_ms=_ms(found.get("ttft_ms")),
        itl_p50_ms=_ms(gaps.get("p50")),
        itl_p95_ms=_ms(gaps.get("p95")),
        itl_max_ms=_ms(gaps.get("max")),
        stall_ms=_ms(found.get("stall_ms")),
        continued=_count(found.get("continued")) or 0,
        status=_name(found.get("status")) or "",
        http_status=_count(found.get("http_status")),
    )


def _request(found: Mapping[str, object]) -> RequestRecord | None:
    request_id, at, duration = (
        _name(found.get("request_id")),
        _time(found.get("time")),
        _count(found.get("duration_ms")),
    )
    if request_id is None or at is None or duration is None:
        return None
    upstream = _name(found.get("upstream_cluster"))
    return RequestRecord(
        at=at,
        request_id=request_id,
        method=_name(found.get("method")) or "",
        path=_name(found.get("path")) or "",
        status=_count(found.get("status")) or 0,
        flags=_name(found.get("flags")) or "",
        details=_name(found.get("details")) or "",
        bytes_received=_count(found.get("bytes_received")) or 0,
        bytes_sent=_count(found.get("bytes_sent")) or 0,
        duration_ms=duration,
        sent_ms=_count(found.get("sent_ms")),
        first_byte_ms=_count(found.get("first_byte_ms")),
        attempts=_count(found.get("attempts")) or 0,
        upstream=upstream,
        replica=_name(found.get("replica")),
        revision=_name(found.get("revision")) or _name(found.get("refused_revision")),
        key_id=_name(found.get("key_id")) or _name(found.get("refused_key_id")),
        streamed=str(found.get("content_type") or "").startswith("text/event-stream"),
        prompt_tokens=_count(found.get("prompt_tokens")),
        completion_tokens=_count(found.get("completion_tokens")),
        cached_tokens=_count(found.get("cached_tokens")),
        prompt_estimate=_count(found.get("prompt_estimate")),
        code=_name(found.get("code")),
    )


def _object(line: bytes) -> Mapping[str, object] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _attempts(value: object) -> tuple[Attempt, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    found = (one for one in value if isinstance(one, dict))
    return tuple(
        Attempt(
            replica=_name(one.get("replica")) or "",
            tokens=_count(one.get("tokens")) or 0,
            end=_name(one.get("end")) or "",
        )
        for one in found
    )


def _time(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def _name(value: object) -> str | None:
    """Text that can be a name; Envoy writes `-` for what there is not."""
    if not isinstance(value, str) or value in ("", "-") or not speakable(value):
        return None
    return value[:LONGEST_NAME]


def _count(value: object) -> int | None:
    """A whole number from 0 to 2^53; Envoy writes those of metadata as 7.0 or as text, and JSON knows NaN."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 2**53:
        return None
    return int(value)


def _ms(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 2**53:
        return None
    return float(value)
