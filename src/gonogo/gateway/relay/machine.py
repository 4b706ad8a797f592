"""Whether this machine is slow: how long a small computation takes, for the processor time that it needs.

Being woken late is no measure: schedulers favour what sleeps. With 16 busy processes on two cores a relay was woken in
time, while engines took eight times as long for a token.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Callable

COMPUTED_S = 0.015
SLOW_TIMES = 3.0
"""So many times longer than its processor time: two other processes want each core."""
IS_FRESH_S = 0.3
_BLOCK = bytes(256 * 1024)


class Machine:
    """Measured only when somebody asks, in a thread. `measure` returns how many times longer it took."""

    def __init__(self, measure: Callable[[], float] | None = None) -> None:
        self._measure = measure or times_longer
        self._slow = False
        self._seen_at = float("-inf")

    async def is_slow(self) -> bool:
        """Whether what computes is kept waiting, as of just now."""
        if time.monotonic() - self._seen_at > IS_FRESH_S:
            self._slow = await asyncio.to_thread(self._measure) > SLOW_TIMES
            self._seen_at = time.monotonic()
        return self._slow


def times_longer() -> float:
    """Compute for 15 ms of processor time; how many times as long it took."""
    began, computed, digest = time.perf_counter(), time.thread_time(), hashlib.sha256()
    while (spent_s := time.thread_time() - computed) < COMPUTED_S:
        digest.update(_BLOCK)  # lets others have the interpreter
    return (time.perf_counter() - began) / spent_s
