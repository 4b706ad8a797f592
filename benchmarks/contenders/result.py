"""What was measured, and what it means: rows, their best rounds, and the verdicts against the aims. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from contenders.load import Measured

ADDED_AT_MOST_MS = 2.0
REQUESTS_PER_S_AT_LEAST = 600.0
DIRECT, OURS = "direct", "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of one contender: at 1 connection and at many, and the load average (1 minute) before it."""

    one: Measured
    many: Measured
    load_average: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender. `error` says why there are no rounds."""

    name: str
    version: str | None
    note: str
    rounds: tuple[Round, ...] = ()
    error: str | None = None

    @property
    def one(self) -> Measured | None:
        """The round with the lowest median: noise of a shared machine only ever adds."""
        return min((each.one for each in self.rounds), key=lambda one: one.p50_ms, default=None)

    @property
    def one_p99_ms(self) -> float | None:
        """The lowest 99th percentile at 1 connection, which need not be of the round with the lowest median."""
        return min((each.one.p99_ms for each in self.rounds), default=None)

    @property
    def many(self) -> Measured | None:
        """The round with the most requests a second."""
        return max((each.many for each in self.rounds), key=lambda many: many.requests_per_s, default=None)

    @property
    def failed(self) -> int:
        """Requests that failed, in all rounds."""
        return sum(each.one.failed + each.many.failed for each in self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One aim of ours. `met` is None when it could not be measured."""

    name: str
    limit: float
    measured: float | None
    met: bool | None

    def __str__(self) -> str:
        seen = "not measured" if self.measured is None else f"measured {self.measured:,.2f}"
        return f"{'?' if self.met is None else '✓' if self.met else '✗'} {self.name}: {seen}"


def added_ms(row: Row, rows: tuple[Row, ...]) -> float | None:
    """By how much its median at 1 connection is above that of the upstream itself."""
    direct = next((each.one for each in rows if each.name == DIRECT), None)
    return None if row.one is None or direct is None else row.one.p50_ms - direct.p50_ms


def aims(rows: tuple[Row, ...]) -> tuple[Aim, ...]:
    """What is asked of our gateway with keys, limits, counting and picking on."""
    ours = next(row for row in rows if row.name == OURS)
    added = added_ms(ours, rows)
    rate = None if ours.many is None else ours.many.requests_per_s
    return (
        Aim(
            name=f"ours adds at most {ADDED_AT_MOST_MS} ms at the median, 1 connection",
            limit=ADDED_AT_MOST_MS,
            measured=added,
            met=None if added is None else added <= ADDED_AT_MOST_MS,
        ),
        Aim(
            name=f"ours serves at least {REQUESTS_PER_S_AT_LEAST:.0f} requests/s",
            limit=REQUESTS_PER_S_AT_LEAST,
            measured=rate,
            met=None if rate is None else rate >= REQUESTS_PER_S_AT_LEAST,
        ),
        Aim(
            name="no request through ours failed",
            limit=0,
            measured=None if ours.many is None else ours.failed,
            met=None if ours.many is None else ours.failed == 0,
        ),
    )


def as_json(rows: tuple[Row, ...], setting: dict[str, Any]) -> dict[str, Any]:
    """The object that `--json` prints. Times in milliseconds; null: not measured."""
    return {
        "setting": setting,
        "rows": [
            {
                "name": row.name,
                "version": row.version,
                "note": row.note,
                "error": row.error,
                "p50_ms": row.one.p50_ms if row.one else None,
                "p99_ms": row.one_p99_ms,
                "added_p50_ms": added_ms(row, rows),
                "requests_per_s": row.many.requests_per_s if row.many else None,
                "failed": row.failed,
                "rounds": [asdict(each) for each in row.rounds],
            }
            for row in rows
        ],
        "aims": [asdict(aim) for aim in aims(rows)],
    }
