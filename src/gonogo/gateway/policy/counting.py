"""Everything of a policy server that counts, put together: Valkey, what is counted in it, and who hears of ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

from gonogo.facts.part import COUNTERS_DB
from gonogo.gateway.policy.counters import Counters, End, LocalCounters
from gonogo.gateway.policy.ends import Ends, Hears, ValkeyPositions
from gonogo.gateway.policy.ledger import Ledger, MemoryLedger
from gonogo.gateway.policy.shared import SharedCounters, SharedLedger, scripts
from gonogo.gateway.policy.valkey import Valkey


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The socket of Valkey, and the logs that tell which requests have ended."""

    valkey: Path
    access_log: Path
    relay_logs: tuple[Path, ...] = ()


class Counting:
    """Counters and ledger, shared while Valkey is there. `start` connects and begins to hear of ends."""

    def __init__(self, places: Places, tell: Callable[[str], None]) -> None:
        self._places = places
        self._tell = tell
        self._valkey = Valkey(places.valkey, COUNTERS_DB, scripts(), tell=tell)
        self._hearing: asyncio.Task[None] | None = None
        self.counters: Counters = SharedCounters(self._valkey, LocalCounters(_monotonic_ms))
        self.ledger: Ledger = SharedLedger(self._valkey, MemoryLedger(time.time), time.time)

    async def start(self, hears: Sequence[Hears] = ()) -> None:
        """Connect, for a second at most: without Valkey it counts by itself until there is one."""
        await self._valkey.start()
        positions = ValkeyPositions(self._valkey)
        everybody = (self.counters.finish, self._release, *hears)
        ends = Ends(self._places.access_log, self._places.relay_logs, positions, everybody, self._tell)
        self._hearing = asyncio.create_task(ends.run())

    async def stop(self) -> None:
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)
        await self._valkey.stop()

    async def _release(self, ends: Sequence[End]) -> None:
        await self.ledger.release([end.request_id for end in ends if end.over])


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
