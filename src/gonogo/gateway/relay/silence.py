"""When a replica that says nothing is taken for dead. Pure; the numbers are seconds.

A hung process (SIGSTOP, a stuck device) keeps its connection open, so that only silence tells. Slow is not hung: an
engine may compute a long prompt for a minute before its first token, and on an overloaded machine every pause is long,
while a stream that is moved costs the next replica its whole prompt: with fixed limits such a machine (20 processes for
each core) moved most of its streams, some of them four times. So Envoy's verdict on the replica is asked, nothing is
moved where no other replica is well, and every limit grows with the pauses that this very stream has had.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOK_AFTER_S = 1.0
"""Before that, silence is not even asked about."""
UNHEALTHY_S, UNHEALTHY_PAUSES = 1.5, 10
"""Envoy's health checks failed as well: at least so long, and so many of the longest pauses."""
HEALTHY_S, PAUSES = 4.0, 30
"""It answers health checks, or nobody knows: its computing part may hang all the same."""
LONGEST_S = 60.0
FIRST_TOKEN_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """How long nothing came, and what else is known.

    `healthy`: Envoy's verdict on this replica; None: it is not known which replica, or Envoy did not say.
    `elsewhere`: another replica of the revision is well; None: not known. `begun`: the attempt has given a token.
    `longest_gap_s`: the longest pause between two of this stream's tokens; `first_s`: how long its first one took.
    """

    silent_s: float
    healthy: bool | None
    elsewhere: bool | None
    begun: bool
    longest_gap_s: float = 0.0
    first_s: float = 0.0


def is_hung(seen: Silence) -> bool:
    """Whether the answer is to be continued elsewhere."""
    if seen.silent_s >= FIRST_TOKEN_S:
        return True
    if seen.elsewhere is False:
        return False
    if seen.healthy is False:
        return seen.silent_s >= min(LONGEST_S, max(UNHEALTHY_S, UNHEALTHY_PAUSES * seen.longest_gap_s))
    if not seen.begun:
        return False
    return seen.silent_s >= min(LONGEST_S, max(HEALTHY_S, PAUSES * seen.longest_gap_s, 2 * seen.first_s))
