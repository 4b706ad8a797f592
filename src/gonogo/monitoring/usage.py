"""Usage as people read it: by key and model, with times; and the availability of each service. Reads the store only."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any, Iterable, Mapping

from gonogo.facts.usage import PROBES, Outcome, Usage, quantile
from gonogo.plan.availability import Availability, availability
from gonogo.store.metering import DAY_S, HOUR_S, MINUTE_S, UsageRow
from gonogo.store.store import Store

WINDOWS: Mapping[str, int] = {"1h": HOUR_S, "24h": DAY_S, "30d": 30 * DAY_S}
"""The windows that availability is told over, in seconds."""
_UNIT_OF: Mapping[str, str] = {"1h": "minute", "24h": "hour", "30d": "day"}
UNITS: Mapping[str, int] = {"minute": MINUTE_S, "hour": HOUR_S, "day": DAY_S}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Usage of one key and service; with `at` (Unix seconds) of one span alone. Names: `facts.usage.NOBODY`."""

    service: str
    key_id: str
    at: int | None
    usage: Usage

    def values(self) -> dict[str, Any]:
        """As plain values: counts, tokens, and times in ms (None: there were none), read off the histograms."""
        used = self.usage
        return {
            "service": self.service,
            "key_id": self.key_id,
            **({} if self.at is None else {"at": self.at}),
            "requests": used.requests,
            **{name: used.outcomes.get(name, 0) for name in ("answered", "failed", "refused", "gone")},
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "cached_tokens": used.cached_tokens,
            "unmetered": used.unmetered,
            "estimated": used.estimated,
            "streamed": used.streamed,
            "continued": used.continued,
            **{f"ttft_p{share}_ms": _ms(used, "ttft_s", share) for share in (50, 95)},
            **{f"per_token_p{share}_ms": _ms(used, "per_token_s", share) for share in (50, 95)},
            **{f"duration_p{share}_ms": _ms(used, "duration_s", share) for share in (50, 95)},
            "statuses": dict(sorted(used.statuses.items())),
        }


def lines(rows: Iterable[UsageRow], *, by_time: bool) -> tuple[Line, ...]:
    """Rows summed by service and key, and by time if asked; in that order."""
    sums: dict[tuple[int, str, str], Usage] = {}
    for row in rows:
        who = (row.at if by_time else 0, row.service, row.key_id)
        sums[who] = sums[who] + row.usage if who in sums else row.usage
    return tuple(
        Line(service=service, key_id=key_id, at=at if by_time else None, usage=used)
        for (at, service, key_id), used in sorted(sums.items())
    )


def unit_for(seconds: float) -> str:
    """The spans that a look back over so many seconds is made of: few enough to add up, kept long enough."""
    if seconds <= 2 * HOUR_S:
        return "minute"
    return "hour" if seconds <= 3 * DAY_S else "day"


def rows_since(store: Store, unit: str, since: float, now: float) -> tuple[UsageRow, ...]:
    """Rows of spans of this unit; the span that `since` lies in is there as a whole."""
    span_s = UNITS[unit]
    return store.usage(span_s, since // span_s * span_s, now + span_s)


def availabilities(store: Store, now: float) -> dict[str, dict[str, Availability]]:
    """Service → window → what was measured, over services that were asked for anything.

    A window begins with a whole minute (1h), hour (24h) or day (30d, UTC). What failed before its service was known
    counts for the service `""`.
    """
    found: dict[str, dict[str, Availability]] = {}
    for name, seconds in WINDOWS.items():
        span_s = UNITS[_UNIT_OF[name]]
        begin = (now - seconds) // span_s * span_s
        sums: dict[str, Counter[str]] = {}
        for row in store.outcomes(span_s, begin, now + span_s):
            if row.key_id != PROBES:
                sums.setdefault(row.service, Counter()).update(row.outcomes)
        for service, counts in sorted(sums.items()):
            answered, failed = counts[Outcome.ANSWERED.value], counts[Outcome.FAILED.value]
            if answered + failed:
                found.setdefault(service, {})[name] = availability(answered, failed)
    return found


def plain(found: Mapping[str, Mapping[str, Availability]]) -> dict[str, dict[str, dict[str, Any]]]:
    """As JSON values."""
    return {
        service: {name: dataclasses.asdict(one) for name, one in windows.items()} for service, windows in found.items()
    }


def _ms(used: Usage, name: str, percent: int) -> float | None:
    seen = used.histograms.get(name)
    value = None if seen is None else quantile(name, seen, percent / 100)
    return None if value is None else round(1000 * value, 1)
