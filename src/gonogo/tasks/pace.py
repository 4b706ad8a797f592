"""How many requests a worker has under way: more while all goes well, half when the gateway has no room. Pure.

The gateway's admission lets interactive requests go first and refuses batch ones when its queue is full; this is the
other side of it: a refusal is not hammered against, and what interactive traffic leaves is found out again by and by.
What waits there is the gateway's to begin, when it is in nobody's way: it alone knows whose a request is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST, FEWEST, MOST = 4.0, 1.0, 64.0
TOKENS = 65536
"""Tokens that a worker has under way at most, prompts and expected answers together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`window`: requests at once. Nothing begins before `not_before` (seconds, the caller's clock)."""

    window: float = FIRST
    not_before: float = 0.0


def answered(pace: Pace) -> Pace:
    """One more came back well: one more at once for each window of them."""
    return replace(pace, window=min(MOST, pace.window + 1 / pace.window))


def refused(pace: Pace, now: float, wait_s: float) -> Pace:
    """No room. Those that were under way together are refused together: they halve it once."""
    first = now >= pace.not_before
    return replace(
        pace,
        window=max(FEWEST, pace.window / 2) if first else pace.window,
        not_before=max(pace.not_before, now + wait_s),
    )


def room(pace: Pace, running: int, now: float) -> int:
    """How many may begin now."""
    return 0 if now < pace.not_before else max(0, int(pace.window) - running)
