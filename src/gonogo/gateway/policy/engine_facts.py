"""What engines say of themselves, for the picker: whose queue does not empty, whose cache is full.

Control asks engines for their counters anyway, and says here, in the Valkey that policy servers share, which ones are
full; they read it twice a second. So nobody asks an engine twice, and an idle deployment writes nothing. None of it is
needed: what is older than `FRESH_S`, or not told (control is dead, Valkey away), is not known, and the picker goes by
what is held. Not here: control's side (`gonogo.control.engine_facts`).
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Callable, Mapping, Sequence

from gonogo.gateway.policy.replicas import ReplicaSeen
from gonogo.gateway.policy.valkey import Away, Valkey

KEY = "engines"
FRESH_S = 3.0
EVERY_S = 0.5
MOST_ENGINES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """Of one engine that is full, `at` (Unix seconds): requests in its own queue; the share of its KV cache that is
    taken, None: it does not say.
    """

    waiting: int
    cache_used: float | None
    at: float


Facts = Mapping[str, EngineFacts]
"""By endpoint (`ip:port`)."""


def packed(facts: Facts) -> str:
    """The value that is kept in Valkey."""
    return json.dumps({endpoint: [one.waiting, one.cache_used, one.at] for endpoint, one in facts.items()})


def unpacked(value: bytes | None) -> Facts:
    """What `packed` made; nothing of what is not that."""
    try:
        content = json.loads(value or b"{}")
        return {
            str(endpoint): EngineFacts(
                waiting=int(waiting), cache_used=None if cache is None else float(cache), at=float(at)
            )
            for endpoint, (waiting, cache, at) in list(content.items())[:MOST_ENGINES]
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def with_facts(seen: Sequence[ReplicaSeen], facts: Facts, now: float) -> tuple[ReplicaSeen, ...]:
    """The replicas with what their engines say, where that is fresh. `now` in Unix seconds."""
    return tuple(_with(each, facts.get(each.endpoint), now) for each in seen)


def _with(seen: ReplicaSeen, facts: EngineFacts | None, now: float) -> ReplicaSeen:
    if facts is None or not -1.0 <= now - facts.at <= FRESH_S:
        return seen
    return replace(seen, waiting=facts.waiting, cache_used=facts.cache_used)


class EngineWatch:
    """One per policy server. `of` gives what is known of a revision's replicas, with what their engines say.

    `replicas` gives what Envoy says of them, None: nothing; `clock` Unix seconds.
    """

    def __init__(
        self, valkey: Valkey, replicas: Callable[[str], Sequence[ReplicaSeen] | None], clock: Callable[[], float]
    ) -> None:
        self._valkey = valkey
        self._replicas = replicas
        self._clock = clock
        self._facts: Facts = {}

    def of(self, revision: str) -> Sequence[ReplicaSeen] | None:
        seen = self._replicas(revision)
        return seen if seen is None or not self._facts else with_facts(seen, self._facts, self._clock())

    async def look(self) -> None:
        """Look once; where Valkey is away, what is known grows old."""
        try:
            self._facts = unpacked(await self._valkey.call("GET", KEY))
        except Away:
            return

    async def run(self) -> None:
        """Look twice a second, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)
