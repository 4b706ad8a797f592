"""Measured availability, how sure that is, and what is left of the error budget. Pure.

Counted are requests that were answered and those that failed by us: 5xx, and streams that broke or were cut off. What
was refused (4xx: wrong, or above a limit) and what its client left before the end counts neither way, and neither do
the gateway's own probes (`facts.usage.Outcome`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

OBJECTIVE = 0.9997
"""The share of requests that is to be answered."""
_Z = 1.959963984540054  # the 97.5 % point of the normal distribution: an interval of 95 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Of `asked` requests `failed`. `share`, `low`, `high`: what was answered, and the interval of 95 % around it;
    None where nothing was asked. `budget_left`: the part of the error budget that is left, 1 untouched, below 0
    overdrawn. `proven`: the whole interval lies at or above the objective.
    """

    asked: int
    failed: int
    share: float | None
    low: float | None
    high: float | None
    budget_left: float | None
    proven: bool


def availability(answered: int, failed: int, objective: float = OBJECTIVE) -> Availability:
    """Raises ValueError for negative counts, and for an objective that is not between 0 and 1."""
    if answered < 0 or failed < 0 or not 0 < objective < 1:
        raise ValueError(f"answered {answered}, failed {failed}, objective {objective}")
    asked = answered + failed
    if asked == 0:
        return Availability(asked=0, failed=0, share=None, low=None, high=None, budget_left=None, proven=False)
    low, high = wilson(answered, asked)
    return Availability(
        asked=asked,
        failed=failed,
        share=answered / asked,
        low=low,
        high=high,
        budget_left=1 - failed / (asked * (1 - objective)),
        proven=low >= objective,
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval of 95 % for a share (E. B. Wilson, JASA 22, 1927; recommended for small and for extreme
    shares by Brown, Cai and DasGupta, Statistical Science 16(2), 2001). `trials` ≥ 1."""
    share, z2 = successes / trials, _Z * _Z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    # At the two edges the sums cancel to nothing, but for the last bit.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return low, high
