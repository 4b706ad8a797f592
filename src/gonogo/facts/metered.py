"""The lines of several logs become requests: the gateway's and the relay's are joined by the request's id. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterable, Mapping

from gonogo.facts.request_record import LogPosition, RequestRecord, StreamRecord
from gonogo.facts.usage import counts

WAIT_S = 15.0
"""How long one of the two lines of a stream waits for the other; then it counts alone (a relay or Envoy was killed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRead:
    """What was read of one log at once. `position`: where it goes on; `malformed`: lines that said nothing."""

    position: LogPosition
    lines: int
    malformed: int
    gaps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """What was read of all logs at once, by the log's name. `drained`: all were read to their ends."""

    logs: Mapping[str, LogRead] = field(default_factory=dict)
    requests: tuple[RequestRecord, ...] = ()
    streams: tuple[StreamRecord, ...] = ()
    drained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Lines that wait for the other one of their request, by its id."""

    requests: Mapping[str, RequestRecord] = field(default_factory=dict)
    streams: Mapping[str, StreamRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """`whole`: requests of which all is known; `waiting`: what waits now, of the new lines and of those before."""

    whole: tuple[tuple[RequestRecord | None, StreamRecord | None], ...]
    waiting: Waiting


def join(requests: Iterable[RequestRecord], streams: Iterable[StreamRecord], before: Waiting) -> Joined:
    """Join new lines with one another and with those that wait. What no relay passed on is whole by itself."""
    waiting_requests, waiting_streams = dict(before.requests), dict(before.streams)
    whole: list[tuple[RequestRecord | None, StreamRecord | None]] = []
    for request in requests:
        if not counts(request):
            continue
        if request.relayed:
            waiting_requests[request.request_id] = request
        else:
            whole.append((request, None))
    for stream in streams:
        waiting_streams[stream.request_id] = stream
    for request_id in waiting_requests.keys() & waiting_streams.keys():
        whole.append((waiting_requests.pop(request_id), waiting_streams.pop(request_id)))
    return Joined(whole=tuple(whole), waiting=Waiting(requests=waiting_requests, streams=waiting_streams))
