"""The queue in a few numbers: what people, /metrics and the report look at."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gonogo.tasks import batches, leases, ledger
from gonogo.tasks.leases import Machine
from gonogo.tasks.nouns import Counts

RATE_OVER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`oldest_age_s` of what waits, None: nothing waits. `ended_per_s` over the last minute. `workers` hold leases now.

    `batches` are those that are not finished.
    """

    counts: Counts
    oldest_age_s: float | None
    ended_per_s: float
    workers: int
    batches: int
    draining: bool


def summary_of(ledger_file: Path, now: float) -> Summary | None:
    """The same, for who only looks; None where there is no queue, or none that can be read now."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(ledger_file))}?mode=ro", uri=True, timeout=1.0)) as c:
            c.row_factory = sqlite3.Row
            return summary(c, now)
    except sqlite3.Error:
        return None


def summary(c: sqlite3.Connection, now: float) -> Summary:
    """What is so at `now` (Unix seconds)."""
    oldest = ledger.oldest_queued_at(c)
    ended = c.execute("SELECT count(*) FROM tasks WHERE finished_at > ? AND finished_at <= ?", (now - RATE_OVER_S, now))
    return Summary(
        counts=ledger.counts(c),
        oldest_age_s=None if oldest is None else max(0.0, now - oldest),
        ended_per_s=ended.fetchone()[0] / RATE_OVER_S,
        workers=len(leases.holders(c, Machine.this())),
        batches=len(batches.unfinished(c)),
        draining=leases.draining(c),
    )
