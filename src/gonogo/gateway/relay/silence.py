"""When a replica that says nothing is taken for dead. Pure; the numbers are seconds.

A hung process (SIGSTOP, a stuck device) keeps its connection open, so that only silence tells. Slow is not hung: an
engine may compute a long prompt for a minute before its first token, and on an overloaded machine every pause is long,
while a stream that is moved costs the next replica its whole prompt: with fixed limits such a machine (20 processes for
each core) moved most of its streams, some of them four times. So nothing is moved where no other replica is well, and
every limit grows with pauses that were seen. What makes a verdict quick is a sign that it is this replica and not the
machine: Envoy's health checks of it fail; or a computation of our own takes no longer than it should (`machine`), while
all streams of the replica are silent.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOK_AFTER_S = 1.0
"""Before that, silence is not even asked about."""
UNHEALTHY_S, UNHEALTHY_PAUSES = 1.5, 10
"""Envoy's health checks failed as well: at least so long, and so many of the stream's longest pauses."""
ALONE_S, ALONE_PAUSES = 2.5, 2
"""All streams of the replica are silent, and the machine is not slow: at least so long, and so many of the longest
pauses of all its streams. A step computes no more than a batch of a prompt: what a full one takes is seen there."""
FEW_SEEN_S, FEW_SEEN_PAUSES = 3.5, 10
"""The same, when so few pauses are known that the longest may still come."""
HEALTHY_S, PAUSES = 3.5, 30
"""It answers health checks, or nobody knows: its computing part may hang all the same."""
SLOW_MACHINE_S = 10.0
"""Not before that on a machine that is slow right now, whatever the pauses were before it was."""
LONGEST_S = 60.0
FIRST_TOKEN_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A replica whose streams are all silent, on a machine that is not slow.

    `silent_s`: since the last piece of any of them; `longest_gap_s`: the longest pause that ended well, of the last
    minute and all its streams; `few_seen`: it is of few.
    """

    silent_s: float
    longest_gap_s: float
    few_seen: bool = False

    @property
    def too_long(self) -> bool:
        """Whether that is more than slowness."""
        if self.few_seen:
            return self.silent_s >= _limit(FEW_SEEN_S, FEW_SEEN_PAUSES * self.longest_gap_s)
        return self.silent_s >= _limit(ALONE_S, ALONE_PAUSES * self.longest_gap_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """How long nothing came, and what else is known.

    `healthy`: Envoy's verdict on this replica; None: it is not known which replica, or Envoy did not say.
    `elsewhere`: another replica of the revision is well; None: not known. `begun`: the attempt has given a token.
    `longest_gap_s`: the longest pause between two of this stream's tokens; `first_s`: how long its first one took.
    `alone`: what all streams of the replica show; None: not known, or no measure, as on a slow machine.
    `slow_machine`: it is slow right now.
    `given_up`: the replica was taken for hung in another stream, and has said nothing to anybody since.
    """

    silent_s: float
    healthy: bool | None
    elsewhere: bool | None
    begun: bool
    longest_gap_s: float = 0.0
    first_s: float = 0.0
    alone: Alone | None = None
    slow_machine: bool = False
    given_up: bool = False


def is_hung(seen: Silence) -> bool:
    """Whether the answer is to be continued elsewhere."""
    if seen.silent_s >= FIRST_TOKEN_S:
        return True
    if seen.elsewhere is False:
        return False
    if seen.healthy is False and seen.silent_s >= _limit(UNHEALTHY_S, UNHEALTHY_PAUSES * seen.longest_gap_s):
        return True
    if not seen.begun:
        return seen.given_up and seen.silent_s >= HEALTHY_S
    if seen.alone is not None and seen.alone.too_long:
        return True
    if seen.healthy is False:
        return False
    least_s = SLOW_MACHINE_S if seen.slow_machine else HEALTHY_S
    return seen.silent_s >= _limit(least_s, PAUSES * seen.longest_gap_s, 2 * seen.first_s)


def _limit(least_s: float, *grown_s: float) -> float:
    return min(LONGEST_S, max(least_s, *grown_s))
