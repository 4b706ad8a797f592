"""One JSON line for each stream, written when it has ended. Counts and times, never what was said.

`facts.request_record.StreamRecord` reads it.

    {"time", "request_id", "key_id", "revision", "path", "status", "http_status", "duration_ms", "ttft_ms",
     "prompt_tokens", "completion_tokens", "cached_tokens",
     "itl_ms": {"p50", "p95", "max"}, "stall_ms", "continued", "reason",
     "attempts": [{"replica", "tokens", "how", "end", "ms", "prompt_ms"}]}

`status`: done, cancelled (by the client), lost (ended by our error event), refused (an error before the stream).
`tokens` of an attempt are those that it added; `end` is done, or what broke it (died, hung, garbage, error, refused).
`how` is first, ids (exact), text (approximate) or again (nothing had been given). Times are in milliseconds; None is
"not known". `prompt_ms` is what the engine says that it computed the prompt for. `stall_ms` is the longest wait of the
client from a lost attempt's last byte to the next attempt's first.
"""

from __future__ import annotations

from array import array
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_GAPS = 16_384
"""Gaps between pieces that the percentiles are taken from; the longest is kept apart."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One request to a replica."""

    replica: str | None = None
    tokens: int | None = None
    how: str = "first"
    end: str = "done"
    ms: float = 0.0
    prompt_ms: float | None = None


@dataclass(slots=True, kw_only=True)
class Loss:
    """One lost attempt; monotonic seconds. `asked`: the rest was asked for; `first`: its first piece went out."""

    replica: str | None
    end: str
    noticed: float
    asked: float | None = None
    first: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Tokens as the client is told them; None: the engine did not say."""

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None


@dataclass(slots=True, kw_only=True)
class Record:
    """What is known of a stream while it runs. Times given to it are monotonic seconds."""

    request_id: str
    key_id: str
    revision: str
    path: str
    began: float
    status: str = "done"
    http_status: int = 200
    reason: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    first_piece: float | None = None
    last_piece: float | None = None
    longest_gap_s: float = 0.0
    stall_s: float = 0.0
    _gaps: array[float] = field(default_factory=lambda: array("f"))

    def piece(self, now: float, *, after_loss: bool) -> None:
        """A piece of the answer goes to the client."""
        if self.first_piece is None or self.last_piece is None:
            self.first_piece = now
        elif after_loss:
            self.stall_s = max(self.stall_s, now - self.last_piece)
        else:
            gap = now - self.last_piece
            self.longest_gap_s = max(self.longest_gap_s, gap)
            if len(self._gaps) < MOST_GAPS:
                self._gaps.append(gap)
        self.last_piece = now

    @property
    def first_s(self) -> float:
        """How long the first piece took; 0.0 before it."""
        return 0.0 if self.first_piece is None else self.first_piece - self.began

    @property
    def continued(self) -> int:
        """How often a lost attempt was followed by another that reached a replica."""
        return sum(attempt.end != "refused" for attempt in self.attempts[1:])

    def content(self, now: float, wall_time: str, counts: Counts) -> dict[str, Any]:
        """The object of the line."""
        gaps = sorted(self._gaps)
        longest = max([self.longest_gap_s, self.stall_s])
        return {
            "time": wall_time,
            "request_id": self.request_id,
            "key_id": self.key_id,
            "revision": self.revision,
            "path": self.path,
            "status": self.status,
            "http_status": self.http_status,
            "duration_ms": _ms(now - self.began),
            "ttft_ms": None if self.first_piece is None else _ms(self.first_piece - self.began),
            **asdict(counts),
            "itl_ms": {"p50": _at(gaps, 0.5), "p95": _at(gaps, 0.95), "max": _ms(longest) if gaps else None},
            "stall_ms": _ms(self.stall_s) if self.stall_s else None,
            "continued": self.continued,
            "reason": self.reason,
            "attempts": [asdict(attempt) for attempt in self.attempts],
        }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


def _at(gaps: list[float], share: float) -> float | None:
    return _ms(gaps[min(len(gaps) - 1, int(share * len(gaps)))]) if gaps else None
