"""The requests of one revision that wait for room in this policy server, and how fast they move up. Pure.

Order and fairness are `DynamicBatchScheduler`'s; here is how many may wait, how long, and what is said to one that may
not. `now` is given: seconds of a monotonic clock.
Not here: where the room is (`ledger`), which replica (`pick`), waiting itself (`admission`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping, Sequence

from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.ledger import Room
from gonogo.gateway.policy.pace import Pace
from gonogo.plan.batching import Batch, DynamicBatchScheduler, Priority, Waiting

RATE_LIMIT = "rate_limit_error"
LONGEST_RETRY_S = 60
SHORTEST_WAIT_S = 0.05
UNKNOWN_SHARE = 0.5
"""Of the promised time that is kept for the prompt while nobody knows how fast replicas are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of one line. `rooms`: so many times what all replicas may hold may wait, in tokens.

    `servers`: policy servers that share the room and have a line each; a line moves so many times slower.
    """

    most_waiting: int = 256
    rooms: int = 8
    longest_wait_s: float = 30.0
    servers: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one wants in the line: tokens to hold, how many of them are its prompt, by when it needs its first token.

    `later`: it may take its time. Those that may not go before it, and it never is in their way.
    """

    tokens: int
    prompt_tokens: int
    ttft_s: float | None = None
    later: bool = False


class Line:
    """Who waits for a revision."""

    def __init__(self, bounds: Bounds, pace: Pace) -> None:
        self._bounds = bounds
        self._pace = pace
        self._scheduler = DynamicBatchScheduler(1)
        self._costs: Mapping[Priority, dict[str, int]] = {each: {} for each in Priority}

    def __len__(self) -> int:
        return sum(map(len, self._costs.values()))

    def longest_wait_s(self, claim: Claim) -> float:
        """How long it may wait: until its prompt could not be computed in time any more."""
        if claim.ttft_s is None:
            return self._bounds.longest_wait_s
        prompt_s = self._pace.takes_s(min(claim.prompt_tokens, claim.tokens))
        if prompt_s is None:
            prompt_s = claim.ttft_s * UNKNOWN_SHARE
        return min(self._bounds.longest_wait_s, max(SHORTEST_WAIT_S, claim.ttft_s - prompt_s))

    def refusal(self, claim: Claim, room: Room, replicas: int) -> Deny | None:
        """Why it may not join; None: it may. `replicas`: that are well."""
        bounds, before = self._bounds, self._before(claim)
        wait_s = self._wait_s(before, replicas)
        if len(before) >= bounds.most_waiting or sum(before) + claim.tokens > bounds.rooms * room.tokens * replicas:
            return self._overloaded(claim, replicas, "no more may wait")
        longest_s = self.longest_wait_s(claim)
        if before and wait_s is not None and wait_s > longest_s:
            why = f"the next would wait {wait_s:.1f} s, and may {longest_s:.1f} s"
            return self._overloaded(claim, replicas, why)
        return None

    def too_long(self, claim: Claim, replicas: int) -> Deny:
        """What one is told that has waited as long as it may."""
        waited = f"this one waited {self.longest_wait_s(claim):g} s, the longest allowed"
        return self._overloaded(claim, replicas, waited)

    def join(self, waiting: Waiting, tokens: int, room: Room) -> None:
        """Let it wait. `tokens`: what it will hold, at most the room of a replica. Names must not come twice."""
        self._scheduler.max_tokens = room.tokens
        self._scheduler.add(waiting)
        self._costs[waiting.priority][waiting.request_id] = tokens

    def leave(self, name: str) -> None:
        """Forget it; one that does not wait is no mistake."""
        self._scheduler.remove(name)
        self._forget(name)

    def next(self, now: float, free_tokens: int) -> Batch:
        """Whose turn it is, one or none, of those that fit into the largest room there is; it waits on until `went`."""
        return self._scheduler.propose(now, tokens=free_tokens, most=1)

    def went(self, batch: Batch) -> None:
        """It has room now."""
        for waiting in batch.requests:
            self._forget(waiting.request_id)
        self._scheduler.went(batch)

    def _forget(self, name: str) -> None:
        for costs in self._costs.values():
            costs.pop(name, None)

    def _before(self, claim: Claim) -> list[int]:
        """The tokens of each that goes before it, as far as it is not given a turn."""
        priorities = Priority if claim.later else (Priority.INTERACTIVE,)
        return [tokens for each in priorities for tokens in self._costs[each].values()]

    def _wait_s(self, before: Sequence[int], replicas: int) -> float | None:
        return self._pace.takes_s(sum(before) * self._bounds.servers, replicas)

    def _overloaded(self, claim: Claim, replicas: int, why: str) -> Deny:
        before = self._before(claim)
        wait_s = self._wait_s(before, replicas)
        retry_s = min(LONGEST_RETRY_S, max(1, math.ceil(wait_s if wait_s is not None else 1)))
        holders = f"{replicas} replica is" if replicas == 1 else f"{replicas} replicas are"
        return Deny(
            status=429,
            code="overloaded",
            message=f"The {holders} full and {len(before)} requests wait ({sum(before):,} tokens): {why}. "
            f"Try again in {retry_s} s, or ask for less: prompt and max_tokens count.",
            type=RATE_LIMIT,
            headers=(("retry-after", str(retry_s)),),
        )
