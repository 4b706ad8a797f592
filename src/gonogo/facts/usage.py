"""What requests used: counted per key and service, and added up. Pure; adding is commutative, so that order is nothing.

The buckets of the histograms are those of OpenTelemetry's conventions for generative AI (gen-ai-metrics.md: duration,
time_to_first_token, time_per_output_token, token.usage).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Mapping

from gonogo.facts.request_record import RequestRecord, StreamRecord

_TOKENS = tuple(float(4**power) for power in range(14))
BOUNDS: Mapping[str, tuple[float, ...]] = {
    "ttft_s": (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    "per_token_s": (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    "duration_s": (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    "prompt": _TOKENS,
    "completion": _TOKENS,
}
"""Name of a histogram → the upper bounds of its buckets (seconds, or tokens of one request); one more is above all."""

PROBES = "probes"
"""Stands for the keys of all probes: each has one of its own, and lives for minutes."""
NOBODY = ""
"""Stands for no key, or no service: the request was refused before it was known."""


class Outcome(str, Enum):
    """How a request ended, as availability counts it.

    answered: wholly. failed: by us (5xx, a stream that broke or was cut off). refused: the request was wrong, or above
    a limit (4xx). gone: the client went away before the end. other: nothing that a service is asked for (/healthz).
    """

    ANSWERED = "answered"
    FAILED = "failed"
    REFUSED = "refused"
    GONE = "gone"
    OTHER = "other"


DONE, CANCELLED, REFUSED = "done", "cancelled", "refused"
"""The relay's words for how a stream ended; any other is a stream that was not whole (`gateway.relay.record`)."""

_CLIENT_LEFT = ("DC", "DR")
_CLIENT_LEFT_DETAILS = ("downstream_remote", "client_disconnect", "http2.remote_re")
_BROKEN_FLAGS = frozenset({"UC", "UF", "UT", "UR", "URX", "LR", "SI", "UPE", "DT", "OM", "NC", "NH"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """`counts[i]`: values in bucket i of `BOUNDS` (not cumulative); `total`: their sum."""

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Sums over requests. `statuses`: HTTP status as text → requests. `outcomes`: `Outcome` → requests.

    `unmetered`: answered, and nobody said how many tokens; `estimated`: for so many requests that a replica worked on
    (those, and those that their client left) the prompt's tokens are policy's estimate. `retried`: Envoy asked more
    than one replica before the first byte. `continued`: streams that another replica went on with.
    """

    requests: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    unmetered: int = 0
    estimated: int = 0
    streamed: int = 0
    retried: int = 0
    continued: int = 0
    histograms: Mapping[str, Histogram] = field(default_factory=dict)

    def __add__(self, other: Usage) -> Usage:
        tally = Tally()
        tally.add(self)
        tally.add(other)
        return tally.usage()

    @property
    def answered(self) -> int:
        return self.outcomes.get(Outcome.ANSWERED.value, 0)

    @property
    def failed(self) -> int:
        return self.outcomes.get(Outcome.FAILED.value, 0)


COUNTS = tuple(one.name for one in fields(Usage) if one.type == "int")
"""The names of the plain sums."""


class Tally:
    """A sum that grows: what many requests are added to before it is looked at."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COUNTS, 0)
        self._statuses: dict[str, int] = {}
        self._outcomes: dict[str, int] = {}
        self._histograms: dict[str, list[float]] = {}

    def count(self, record: RequestRecord | None, stream: StreamRecord | None) -> None:
        """Add one request, from what the gateway and the relay wrote of it; one of the two may be missing."""
        outcome = outcome_of(record, stream)
        told = stream if stream is not None else record
        assert told is not None
        known = told.prompt_tokens is not None or told.completion_tokens is not None
        estimate = record.prompt_estimate if record is not None and told.prompt_tokens is None else None
        estimated = estimate is not None and outcome in (Outcome.ANSWERED, Outcome.GONE)
        counts = self._counts
        counts["requests"] += 1
        _grow(self._statuses, str(record.status if record is not None else 200), 1)
        _grow(self._outcomes, outcome.value, 1)
        counts["prompt_tokens"] += (estimate or 0) if estimated else told.prompt_tokens or 0
        counts["completion_tokens"] += told.completion_tokens or 0
        counts["cached_tokens"] += told.cached_tokens or 0
        counts["unmetered"] += outcome is Outcome.ANSWERED and not known and _generates(record)
        counts["estimated"] += estimated
        counts["streamed"] += stream is not None or (record is not None and record.streamed)
        counts["retried"] += record is not None and record.attempts > 1
        counts["continued"] += stream is not None and stream.continued > 0
        for name, value in _values(record, stream, outcome).items():
            seen = self._seen(name)
            seen[bisect_left(BOUNDS[name], value)] += (
                1  # a value on a bound belongs below it, as Prometheus's `le` says
            )
            seen[-1] += value

    def add(self, used: Usage) -> None:
        """Add another sum."""
        for name in COUNTS:
            self._counts[name] += getattr(used, name)
        for mine, theirs in ((self._statuses, used.statuses), (self._outcomes, used.outcomes)):
            for name, count in theirs.items():
                _grow(mine, name, count)
        for name, histogram in used.histograms.items():
            seen = self._seen(name)
            for index, count in enumerate(histogram.counts):
                seen[index] += count
            seen[-1] += histogram.total

    def usage(self) -> Usage:
        """The sum as it is now."""
        return Usage(
            **self._counts,
            statuses=dict(self._statuses),
            outcomes=dict(self._outcomes),
            histograms={
                name: Histogram(counts=tuple(map(int, seen[:-1])), total=seen[-1])
                for name, seen in self._histograms.items()
            },
        )

    def _seen(self, name: str) -> list[float]:
        """The counts of a histogram's buckets, and behind them the sum of its values."""
        seen = self._histograms.get(name)
        if seen is None:
            seen = self._histograms[name] = [0.0] * (len(BOUNDS[name]) + 2)
        return seen


def usage_of(record: RequestRecord | None, stream: StreamRecord | None) -> Usage:
    """One request."""
    tally = Tally()
    tally.count(record, stream)
    return tally.usage()


def outcome_of(record: RequestRecord | None, stream: StreamRecord | None) -> Outcome:
    """How it ended. A stream without the gateway's line (Envoy was killed) is judged by the relay's alone."""
    if record is None:
        return _outcome_of_stream(stream)
    flags = set(record.flags.split(","))
    if record.status >= 500:
        return Outcome.FAILED
    if flags & set(_CLIENT_LEFT) or record.details.startswith(_CLIENT_LEFT_DETAILS):
        return Outcome.GONE
    if record.status >= 400:
        return Outcome.REFUSED
    broken = record.status == 0 or flags & _BROKEN_FLAGS or record.details.startswith("upstream_reset_after")
    if broken:
        return Outcome.FAILED
    if record.relayed:
        return _outcome_of_stream(stream)
    return Outcome.OTHER if record.revision is None else Outcome.ANSWERED


def counts(record: RequestRecord) -> bool:
    """Whether this line is a request of its own: the outer line of a gRPC call counts only where it went no further,
    or its server died (the request that it had become was then given up, which is nobody's failure). gRPC's status is
    always 200 to HTTP: the flags tell.
    """
    return not record.is_call or bool(set(record.flags.split(",")) & _BROKEN_FLAGS)


def quantile(name: str, seen: Histogram, share: float) -> float | None:
    """The value below which that share lies, straight lines within buckets, as Prometheus's histogram_quantile has it;
    None without values."""
    bounds, rank = BOUNDS[name], share * seen.count
    below = 0
    for index, count in enumerate(seen.counts):
        if count and below + count >= rank:
            if index == len(bounds):
                return bounds[-1]
            low = bounds[index - 1] if index else 0.0
            return low + (bounds[index] - low) * max(0.0, rank - below) / count
        below += count
    return None


def _outcome_of_stream(stream: StreamRecord | None) -> Outcome:
    """None: the relay was killed before it could say, and the client was told that the answer is lost."""
    if stream is None:
        return Outcome.FAILED
    if stream.status == REFUSED:
        return Outcome.FAILED if (stream.http_status or 500) >= 500 else Outcome.REFUSED
    return {DONE: Outcome.ANSWERED, CANCELLED: Outcome.GONE}.get(stream.status, Outcome.FAILED)


def _generates(record: RequestRecord | None) -> bool:
    return record is None or record.method == "POST"


def _values(record: RequestRecord | None, stream: StreamRecord | None, outcome: Outcome) -> Mapping[str, float]:
    """What goes into the histograms: of answered requests only, as the conventions say; a GET generates nothing."""
    told = stream if stream is not None else record
    if outcome is not Outcome.ANSWERED or told is None or not _generates(record):
        return {}
    values: dict[str, float] = {}
    if record is not None:
        values["duration_s"] = record.duration_ms / 1000
    first_ms = _first_token_ms(record, stream)
    if first_ms is not None:
        values["ttft_s"] = first_ms / 1000
        if record is not None and (told.completion_tokens or 0) > 1:
            rest_s = max(0.0, record.duration_ms - first_ms) / 1000
            values["per_token_s"] = rest_s / ((told.completion_tokens or 0) - 1)
    if told.prompt_tokens is not None:
        values["prompt"] = told.prompt_tokens
    if told.completion_tokens is not None:
        values["completion"] = told.completion_tokens
    return values


def _first_token_ms(record: RequestRecord | None, stream: StreamRecord | None) -> float | None:
    """From the request's start at the gateway. The relay counts from when the request reached it: what it waited for
    policy comes before."""
    if stream is not None:
        if stream.ttft_ms is None:
            return None
        return stream.ttft_ms + ((record.sent_ms or 0) if record is not None else 0)
    return record.first_byte_ms if record is not None and record.streamed else None


def _grow(sums: dict[str, int], name: str, count: int) -> None:
    sums[name] = sums.get(name, 0) + count
