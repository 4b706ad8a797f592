"""How many requests a worker has under way: more while all goes well, half when the gateway has no room. Pure.

The gateway's admission lets interactive requests go first and refuses batch ones when its queue is full; this is the
other side of it: a refusal is not hammered against, what interactive traffic leaves is found out again by and by, and
while others ask the replicas too, they have a part of each replica, and each request of theirs takes one of ours away.
Others are seen only where none of our requests waits in the gateway, as at servers of others, which nobody knows the
room of; where the room is known, admission keeps ours back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST, FEWEST, MOST = 4.0, 1.0, 64.0
TOKENS = 65536
"""Tokens that a worker has under way at most, prompts and expected answers together."""
OTHERS_REMEMBERED_S = 30.0
"""A conversation pauses between two turns: what is begun in such a pause would be in the way of the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`window`: requests at once. Nothing begins before `not_before` (seconds, the caller's clock).

    `beside`: while others ask too, until `beside_until`, no more than so many at once.
    """

    window: float = FIRST
    not_before: float = 0.0
    beside: int = 0
    beside_until: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the replicas do: requests under way at all of them together, and how many of ours they may have beside
    those of others.
    """

    active: int
    beside: int


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


def seen(pace: Pace, traffic: Traffic, running: int, now: float) -> Pace:
    """The replicas were looked at while `running` requests of ours were under way."""
    others = max(0, traffic.active - running)
    until = now + OTHERS_REMEMBERED_S if others else pace.beside_until
    return replace(pace, beside=max(1, traffic.beside - others), beside_until=until)


def room(pace: Pace, running: int, now: float) -> int:
    """How many may begin now."""
    window = min(pace.window, pace.beside) if now < pace.beside_until else pace.window
    return 0 if now < pace.not_before else max(0, int(window) - running)
