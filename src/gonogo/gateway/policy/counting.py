"""The gate of a policy server, put together: limits, admission, Valkey behind both, who hears of ends, who looks."""

from __future__ import annotations

import asyncio
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Awaitable, Callable

from gonogo.facts.part import COUNTERS_DB
from gonogo.gateway.policy.admission import Admission
from gonogo.gateway.policy.counters import Counters, LocalCounters
from gonogo.gateway.policy.decide import View
from gonogo.gateway.policy.ends import Ends, ValkeyPositions
from gonogo.gateway.policy.engine_facts import EngineWatch
from gonogo.gateway.policy.fallback import FallbackGate
from gonogo.gateway.policy.gate import Gate
from gonogo.gateway.policy.gate_limits import LimitsGate
from gonogo.gateway.policy.ledger import MemoryLedger
from gonogo.gateway.policy.placing import Clocks
from gonogo.gateway.policy.replicas import ReplicaWatch, fetch_clusters
from gonogo.gateway.policy.rules import ServiceRules
from gonogo.gateway.policy.shared import SharedCounters, SharedLedger, scripts
from gonogo.gateway.policy.valkey import Valkey

AGAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The socket of Valkey, the logs that tell which requests have ended, and Envoy's admin socket, which tells of
    replicas; None: nothing is known of them, and Envoy balances.
    """

    valkey: Path
    access_log: Path
    relay_logs: tuple[Path, ...] = ()
    envoy: Path | None = None


class Counting:
    """The gate; what it counts is shared while Valkey is there. `start` connects and begins to hear and to look.

    `view` gives the snapshot, None when it is too old.
    """

    def __init__(self, places: Places, view: Callable[[], View | None], tell: Callable[[str], None]) -> None:
        self._places = places
        self._tell = tell
        self._valkey = Valkey(places.valkey, COUNTERS_DB, scripts(), tell=tell)
        self._view = view
        self._running: tuple[asyncio.Task[None], ...] = ()
        self._counters: Counters = SharedCounters(self._valkey, LocalCounters(_monotonic_ms))
        ledger = SharedLedger(self._valkey, MemoryLedger(time.time), time.time)
        self._watch = ReplicaWatch(self._clusters, time.monotonic, tell)
        clocks = Clocks(monotonic=time.monotonic, wall=time.time)
        self._engines = EngineWatch(self._valkey, self._watch.of, time.time)
        self._admission = Admission(ledger, self._engines.of, self._rules, clocks)
        inner = FallbackGate(self._admission, self._watch.of, self._rules)
        self.gate: Gate = LimitsGate(self._counters, inner)

    async def start(self) -> None:
        """Connect, for a second at most: without Valkey it counts by itself until there is one."""
        await self._valkey.start()
        positions = ValkeyPositions(self._valkey)
        everybody = (self._counters.finish, self._admission.heard)
        ends = Ends(self._places.access_log, self._places.relay_logs, positions, everybody, self._tell)
        loops = [ends.run, self._admission.run]
        if self._places.envoy is not None:
            await self._watch.look()
            loops += [self._watch.run, self._engines.run]
        self._running = tuple(asyncio.create_task(self._for_ever(run)) for run in loops)

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._valkey.stop()

    async def _for_ever(self, run: Callable[[], Awaitable[None]]) -> None:
        """Without one of these loops requests would wait for room that nobody sees, for as long as holds last."""
        while True:
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - a boundary: an error of ours must be told, and must not end the loop
                frames = "".join(traceback.format_tb(error.__traceback__))
                self._tell(f"{type(error).__name__}; it begins anew\n{frames}".rstrip())
            await asyncio.sleep(AGAIN_S)

    def _rules(self, revision: str) -> ServiceRules | None:
        view = self._view()
        return None if view is None else view.rules.get(revision)

    async def _clusters(self) -> bytes:
        assert self._places.envoy is not None
        return await fetch_clusters(self._places.envoy)


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
