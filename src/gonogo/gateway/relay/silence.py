"""When a replica that says nothing is taken for dead. Pure; the numbers are seconds.

A hung process (SIGSTOP, a stuck device) keeps its connection open, so that only silence tells. Slow is not hung: an
engine may compute a long prompt for a minute before its first token, and a busy one may pause between two. Envoy asks
every replica's health anyway, and its verdict is what makes a short limit safe.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOK_AFTER_S = 1.0
"""Before that, silence is not even asked about."""
UNHEALTHY_S = 1.5
UNKNOWN_S = 3.0
HEALTHY_S = 4.0
PAUSES = 30
LONGEST_PAUSE_S = 30.0
FIRST_TOKEN_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """How long nothing came, and what else is known.

    `healthy`: Envoy's verdict on this replica; None: it is not known which replica, or Envoy did not say.
    `begun`: the attempt has given a token. `longest_gap_s`: the longest pause between two of this stream's tokens.
    """

    silent_s: float
    healthy: bool | None
    begun: bool
    longest_gap_s: float = 0.0


def is_hung(seen: Silence) -> bool:
    """Whether the answer is to be continued elsewhere."""
    if seen.healthy is False:
        return seen.silent_s >= UNHEALTHY_S
    if not seen.begun:
        return seen.silent_s >= FIRST_TOKEN_S
    if seen.healthy is None:
        return seen.silent_s >= UNKNOWN_S
    return seen.silent_s >= min(LONGEST_PAUSE_S, max(HEALTHY_S, PAUSES * seen.longest_gap_s))
