"""What metering writes and reads: usage by span, how far each log was read, halves that wait. In one transaction."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Union

import sqlalchemy as sa

from gonogo.facts.metered import WAIT_S, Joined, LogRead, Metered, Waiting, join
from gonogo.facts.request_record import Attempt, LogPosition, RequestRecord, StreamRecord
from gonogo.facts.usage import COUNTS, NOBODY, PROBES, Histogram, Tally, Usage
from gonogo.store import tables as t
from gonogo.store import usage_tables as u
from gonogo.store.log import Log, Subject

MINUTE_S, HOUR_S, DAY_S, ALL_S = 60, 3600, 86400, 0
KEPT_S: Mapping[int, int] = {MINUTE_S: 26 * HOUR_S, HOUR_S: 35 * DAY_S, DAY_S: 400 * DAY_S}
"""Length of a span → how long its rows are kept. Every request is in a row of each; the sum of all is kept for ever."""

_MAPS = ("statuses", "outcomes")
_KEY = ("span_s", "at", "key_id", "service")
_SUMS = (*COUNTS, *_MAPS, "histograms")
_UPSERT = (
    f"INSERT INTO usage ({', '.join((*_KEY, *_SUMS))})"  # noqa: S608 (names of our own columns)
    f" VALUES ({', '.join(f':{name}' for name in (*_KEY, *_SUMS))})"
    f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _SUMS)}"
)
_Key = tuple[int, int, str, str]
_Pair = tuple[Union[RequestRecord, None], Union[StreamRecord, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Usage of one key and service in the span that begins at `at` (Unix seconds). Names: see `facts.usage.NOBODY`."""

    at: int
    key_id: str
    service: str
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """How the requests of one key and service ended, in one span."""

    key_id: str
    service: str
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """How far a log was read, and the sums of what was in it."""

    position: LogPosition
    lines: int
    malformed: int
    gaps: int


def keep(connection: sa.Connection, log: Log, read: Metered) -> int:
    """Count what was read, and note how far. Returns how many halves still wait."""
    joined = join(read.requests, read.streams, _waiting(connection))
    alone = _alone(connection, joined.waiting, log.now) if read.drained else ()
    _note_waiting(connection, joined, alone, log.now)
    if read.drained:  # what no version can read any more
        connection.execute(sa.delete(u.half_requests).where(u.half_requests.c.since_at < log.now - 4 * WAIT_S))
    _add(connection, (*joined.whole, *alone), log.now)
    for stream in read.streams:
        if stream.continued > 0:
            _tell(log, stream)
    for name, seen in read.logs.items():
        _note_log(connection, name, seen)
    for span_s, kept_s in KEPT_S.items():
        old = sa.and_(u.usage.c.span_s == span_s, u.usage.c.at < log.now - kept_s)
        connection.execute(sa.delete(u.usage).where(old))
    return len(joined.waiting.requests) + len(joined.waiting.streams) - len(alone)


def rows(connection: sa.Connection, span_s: int, since: float, until: float) -> tuple[UsageRow, ...]:
    """The rows of spans of this length that begin from `since` to before `until`, oldest first."""
    this = sa.and_(u.usage.c.span_s == span_s, u.usage.c.at >= since, u.usage.c.at < until)
    order = (u.usage.c.at, u.usage.c.key_id, u.usage.c.service)
    found = connection.execute(sa.select(u.usage).where(this).order_by(*order)).mappings()
    return tuple(
        UsageRow(at=row["at"], key_id=row["key_id"], service=row["service"], usage=_usage(row)) for row in found
    )


def outcomes(connection: sa.Connection, span_s: int, since: float, until: float) -> tuple[OutcomeRow, ...]:
    """As `rows`, of the outcomes alone."""
    c = u.usage.c
    this = sa.and_(c.span_s == span_s, c.at >= since, c.at < until)
    found = connection.execute(sa.select(c.key_id, c.service, c.outcomes).where(this))
    return tuple(OutcomeRow(key_id=row[0], service=row[1], outcomes=json.loads(row[2])) for row in found)


def logs(connection: sa.Connection) -> dict[str, LogState]:
    """By the log's name."""
    return {
        row["log"]: LogState(
            position=LogPosition(inode=row["inode"], offset=row["next_byte"], mark=row["mark"]),
            **{name: row[name] for name in ("lines", "malformed", "gaps")},
        )
        for row in connection.execute(sa.select(u.log_positions)).mappings()
    }


def waiting(connection: sa.Connection) -> int:
    """How many halves wait."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(u.half_requests)).scalar_one())


def _add(connection: sa.Connection, whole: Iterable[_Pair], now: float) -> None:
    k = t.keys
    probes = set(connection.execute(sa.select(k.c.key_id).where(k.c.revision.is_not(None))).scalars())
    minutes: dict[tuple[int, str, str], Tally] = {}
    for request, stream in whole:
        minutes.setdefault(_minute(request, stream, now, probes), Tally()).count(request, stream)
    sums: dict[_Key, Tally] = {}
    for (at, key_id, service), tally in minutes.items():
        used = tally.usage()
        for span_s in (*KEPT_S, ALL_S):
            begin = at // span_s * span_s if span_s else 0
            sums.setdefault((span_s, begin, key_id, service), Tally()).add(used)
    _write(connection, sums)


def _minute(
    request: RequestRecord | None, stream: StreamRecord | None, now: float, probes: set[str]
) -> tuple[int, str, str]:
    """The minute in which it ended, its key and its service."""
    told = request if request is not None and request.revision is not None else stream or request
    assert told is not None
    key_id = (request.key_id if request is not None else None) or told.key_id or NOBODY
    ended = request.ended_at if request is not None else now
    return int(ended // MINUTE_S) * MINUTE_S, PROBES if key_id in probes else key_id, told.service or NOBODY


def _write(connection: sa.Connection, sums: Mapping[_Key, Tally]) -> None:
    """Add the sums to the rows that there are, and make those that are not there yet."""
    c = u.usage.c
    for span_s, at in {key[:2] for key in sums}:
        this = sa.and_(c.span_s == span_s, c.at == at)
        for row in connection.execute(sa.select(u.usage).where(this)).mappings():
            tally = sums.get((span_s, at, row["key_id"], row["service"]))
            if tally is not None:
                tally.add(_usage(row))
    if sums:
        rows = [dict(zip(_KEY, key, strict=True)) | _columns(tally.usage()) for key, tally in sums.items()]
        connection.execute(sa.text(_UPSERT), rows)


def _columns(used: Usage) -> dict[str, object]:
    histograms = {name: [*seen.counts, seen.total] for name, seen in used.histograms.items()}
    return {
        **{name: getattr(used, name) for name in COUNTS},
        **{name: json.dumps(dict(getattr(used, name)), sort_keys=True) for name in _MAPS},
        "histograms": json.dumps(histograms, sort_keys=True),
    }


def _usage(row: Mapping[Any, Any]) -> Usage:
    histograms = {
        name: Histogram(counts=tuple(values[:-1]), total=values[-1])
        for name, values in json.loads(row["histograms"]).items()
    }
    return Usage(
        **{name: row[name] for name in COUNTS},
        **{name: json.loads(row[name]) for name in _MAPS},
        histograms=histograms,
    )


def _waiting(connection: sa.Connection) -> Waiting:
    requests: dict[str, RequestRecord] = {}
    streams: dict[str, StreamRecord] = {}
    for row in connection.execute(sa.select(u.half_requests)).mappings():
        content = json.loads(row["content"])
        try:
            if row["half"] == "request":
                requests[row["request_id"]] = RequestRecord(**content)
            else:
                attempts = tuple(Attempt(**one) for one in content.pop("attempts"))
                streams[row["request_id"]] = StreamRecord(attempts=attempts, **content)
        except TypeError:  # written by another version of gonogo, seconds before it was replaced: it goes with its time
            continue
    return Waiting(requests=requests, streams=streams)


def _alone(connection: sa.Connection, waiting_now: Waiting, now: float) -> tuple[_Pair, ...]:
    """Halves that waited long enough; a clock that was put back does not keep them for ever."""
    since = u.half_requests.c.since_at
    old = sa.or_(since < now - WAIT_S, since > now + WAIT_S)
    query = sa.select(u.half_requests.c.request_id).where(old)
    due = set(connection.execute(query).scalars())
    return (
        *((one, None) for name, one in waiting_now.requests.items() if name in due),
        *((None, one) for name, one in waiting_now.streams.items() if name in due),
    )


def _note_waiting(
    connection: sa.Connection,
    joined: Joined,
    alone: tuple[_Pair, ...],
    now: float,
) -> None:
    h = u.half_requests
    counted = {(one or other).request_id for one, other in (*joined.whole, *alone)}  # type: ignore[union-attr]
    known = {(row.request_id, row.half) for row in connection.execute(sa.select(h.c.request_id, h.c.half))}
    for request_id in counted & {request_id for request_id, _ in known}:
        connection.execute(sa.delete(h).where(h.c.request_id == request_id))
    halves: Mapping[str, Mapping[str, RequestRecord | StreamRecord]] = {
        "request": joined.waiting.requests,
        "stream": joined.waiting.streams,
    }
    new = [
        {"request_id": name, "half": half, "content": json.dumps(dataclasses.asdict(one)), "since_at": now}
        for half, lines in halves.items()
        for name, one in lines.items()
        if name not in counted and (name, half) not in known
    ]
    if new:
        connection.execute(sa.insert(h), new)


def _note_log(connection: sa.Connection, name: str, seen: LogRead) -> None:
    c = u.log_positions.c
    place = {"inode": seen.position.inode, "next_byte": seen.position.offset, "mark": seen.position.mark}
    counts = {"lines": seen.lines, "malformed": seen.malformed, "gaps": seen.gaps}
    grown = {column: c[column] + value for column, value in counts.items()}
    changed = connection.execute(sa.update(u.log_positions).where(c.log == name).values(**place, **grown))
    if changed.rowcount == 0:
        connection.execute(sa.insert(u.log_positions).values(log=name, **place, **counts))


def _tell(log: Log, stream: StreamRecord) -> None:
    service, _, number = (stream.revision or "").rpartition("/")
    subject = Subject(service=service or None, revision=int(number) if number.isdecimal() else None)
    detail = {
        "request": stream.request_id,
        "key_id": stream.key_id,
        "continued": stream.continued,
        "attempts": [dataclasses.asdict(one) for one in stream.attempts],
        "stall_ms": None if stream.stall_ms is None else round(stream.stall_ms),
        "status": stream.status,
    }
    log.append("StreamContinued", subject, detail)
