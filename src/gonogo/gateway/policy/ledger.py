"""Who holds what: the tokens and sequences that admitted requests take of each replica. A protocol, and one in memory.

Several policy servers share one ledger (embedded Valkey, elsewhere); this process's own is the fallback, and what tests
use. Not here: who may have how much (`admission`), which replica is tried first (`pick`), when a request has ended.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Callable, Mapping, Protocol, Sequence

ASKED_LATELY_S = 30.0
"""A conversation pauses between two turns: a batch that took the replicas meanwhile would be in the way of the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one replica may hold: tokens of prompts and expected answers together, and requests at the same time."""

    tokens: int
    sequences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one replica holds. `prompts_s`: seconds until the prompts among it should have been computed."""

    tokens: int = 0
    sequences: int = 0
    prompts_s: float = 0.0

    def leaves(self, tokens: int, room: Room) -> bool:
        """Whether one more request of so many tokens fits."""
        return self.tokens + tokens <= room.tokens and self.sequences < room.sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What one admitted request takes until it ends, at the latest until `expires_at` (Unix seconds).

    `revision` is `service/number`. `tokens` > 0: of the prompt and the expected answer together. `prompt_s`: seconds
    that a replica should take for the prompt alone, 0: not known; it computes one prompt after the other. `asks`:
    somebody waits for it, who may ask again soon.
    """

    request_id: str
    revision: str
    key_id: str
    tokens: int
    expires_at: float
    prompt_s: float = 0.0
    asks: bool = False


class Ledger(Protocol):
    """Shared by policy servers, so that each call is one step that nothing comes between."""

    async def reserve(self, hold: Hold, endpoints: Sequence[str], room: Room) -> str | None:
        """Enter the hold with the first of these replicas (`ip:port`) of its revision that has room; None: none has.

        A hold of the same request id is replaced, also when none has room: Envoy asks a second policy server when the
        first died after it had reserved. Expired holds take no room.
        """

    async def release(self, request_ids: Sequence[str]) -> int:
        """Forget these holds; how many there were. Unknown ids are no mistake: every policy server sees every end."""

    async def held(self, revision: str) -> Mapping[str, Held]:
        """What each replica (`ip:port`) of this revision holds. One that holds nothing may be absent."""

    async def asked(self, revision: str) -> bool:
        """Whether a hold of somebody who `asks` was entered in the last `ASKED_LATELY_S`, by any policy server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    hold: Hold
    endpoint: str


class MemoryLedger:
    """A ledger of this process alone. `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._held: dict[tuple[str, str], Held] = {}
        self._computed_at: dict[tuple[str, str], float] = {}
        self._expiries: list[tuple[float, str]] = []
        self._asked_at: dict[str, float] = {}

    async def reserve(self, hold: Hold, endpoints: Sequence[str], room: Room) -> str | None:
        """As `Ledger.reserve`."""
        self._expire()
        self._forget(hold.request_id)
        for endpoint in endpoints:
            if self._of(hold.revision, endpoint).leaves(hold.tokens, room):
                self._entries[hold.request_id] = _Entry(hold=hold, endpoint=endpoint)
                self._add(hold, endpoint, 1)
                if hold.asks:
                    self._asked_at[hold.revision] = self._clock()
                begins = max(self._clock(), self._computed_at.get((hold.revision, endpoint), 0.0))
                self._computed_at[hold.revision, endpoint] = begins + hold.prompt_s
                heapq.heappush(self._expiries, (hold.expires_at, hold.request_id))
                return endpoint
        return None

    async def release(self, request_ids: Sequence[str]) -> int:
        """As `Ledger.release`."""
        self._expire()
        return sum(self._forget(request_id) for request_id in request_ids)

    async def held(self, revision: str) -> Mapping[str, Held]:
        """As `Ledger.held`."""
        self._expire()
        now = self._clock()
        return {
            of[1]: replace(held, prompts_s=max(0.0, self._computed_at[of] - now))
            for of, held in self._held.items()
            if of[0] == revision
        }

    async def asked(self, revision: str) -> bool:
        """As `Ledger.asked`."""
        return self._clock() - self._asked_at.get(revision, float("-inf")) < ASKED_LATELY_S

    def _of(self, revision: str, endpoint: str) -> Held:
        return self._held.get((revision, endpoint), _NOTHING)

    def _add(self, hold: Hold, endpoint: str, sign: int) -> None:
        before = self._of(hold.revision, endpoint)
        after = Held(tokens=before.tokens + sign * hold.tokens, sequences=before.sequences + sign)
        if after.sequences:
            self._held[hold.revision, endpoint] = after
        else:
            self._held.pop((hold.revision, endpoint), None)
            self._computed_at.pop((hold.revision, endpoint), None)

    def _forget(self, request_id: str) -> bool:
        entry = self._entries.pop(request_id, None)
        if entry is not None:
            self._add(entry.hold, entry.endpoint, -1)
        return entry is not None

    def _expire(self) -> None:
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            _, request_id = heapq.heappop(self._expiries)
            entry = self._entries.get(request_id)
            # A replaced hold left its old expiry behind.
            if entry is not None and entry.hold.expires_at <= now:
                self._forget(request_id)


_NOTHING = Held()
