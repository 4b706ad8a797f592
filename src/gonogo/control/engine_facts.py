"""Says to policy servers which engines are full, by the counters that each replica's watch reads each second.

Only what is worth saying is written, so that an idle deployment writes nothing; what is not said again is gone after
three seconds. Nothing depends on it (`gonogo.gateway.policy.engine_facts`).
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Callable, Iterable, Mapping

from gonogo.control.watch import ReplicaWatch
from gonogo.engines.model import Progress
from gonogo.facts.part import COUNTERS_DB
from gonogo.gateway.policy.engine_facts import EVERY_S, FRESH_S, KEY, EngineFacts, packed
from gonogo.gateway.policy.pick import FULL
from gonogo.gateway.policy.valkey import Away, Valkey


class FullEngines:
    """Which engines are full. A queue counts when it was not empty at two readings: one request waits for the next
    step of every busy engine, and a conversation must not leave its cache for that.
    """

    def __init__(self, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._read: dict[str, tuple[float, Progress, int]] = {}

    def among(self, read: Mapping[str, tuple[float, Progress]]) -> dict[str, EngineFacts]:
        """By endpoint, of those that were read: when (monotonic seconds) and what."""
        self._read = {endpoint: self._next(endpoint, *one) for endpoint, one in read.items()}
        now, moved = self._monotonic(), self._clock() - self._monotonic()
        found = {
            endpoint: EngineFacts(waiting=waiting, cache_used=progress.cache_used, at=round(at + moved, 3))
            for endpoint, (at, progress, waiting) in self._read.items()
            if now - at <= FRESH_S
        }
        return {name: one for name, one in found.items() if one.waiting or (one.cache_used or 0.0) >= FULL}

    def _next(self, endpoint: str, at: float, progress: Progress) -> tuple[float, Progress, int]:
        before = self._read.get(endpoint)
        if before is None:
            return at, progress, 0
        if before[0] == at:
            return before
        return at, progress, min(before[1].requests_waiting, progress.requests_waiting)


def readings(watches: Iterable[ReplicaWatch]) -> dict[str, tuple[float, Progress]]:
    """By endpoint, the last reading of each engine's counters."""
    found = ((one.process.port, one.seen) for one in watches)
    return {
        f"127.0.0.1:{port}": (seen.progress_at, seen.progress)
        for port, seen in found
        if port and seen.progress is not None and seen.progress_at is not None
    }


async def tell_for_ever(socket: Path, watches: Callable[[], Iterable[ReplicaWatch]]) -> None:
    """Until cancelled. Without Valkey nothing is told, and nobody misses it."""
    valkey = Valkey(socket, COUNTERS_DB, {}, tell=lambda _: None)
    await valkey.start(0.0)
    full = FullEngines()
    try:
        while True:
            found = full.among(readings(watches()))
            try:
                if found:
                    await valkey.call("SET", KEY, packed(found), "PX", int(FRESH_S * 1000))
            except Away:
                pass
            await asyncio.sleep(EVERY_S)
    finally:
        await valkey.stop()
