"""One task that looks at every stream that waits for its replica, and lets go of those that wait for a hung one.

Not here: when silence is death (`silence`). A timer for each piece of each stream would cost more than the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Callable, Iterator

from gonogo.gateway.relay.silence import LOOK_AFTER_S, Silence, is_hung
from gonogo.gateway.relay.upstream import Health

LOOK_EVERY_S = 0.25


@dataclass(slots=True, kw_only=True, eq=False)
class Wait:
    """One stream that waits for bytes since `since` (monotonic seconds). `give_up` makes its reading end at once."""

    since: float
    replica: str | None
    begun: bool
    longest_gap_s: float
    first_s: float
    give_up: Callable[[], None]
    hung: bool = False


class Watch:
    """`run` for ever beside the streams."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._waits: set[Wait] = set()

    @contextlib.contextmanager
    def over(self, wait: Wait) -> Iterator[None]:
        """Look after this wait while it lasts."""
        self._waits.add(wait)
        try:
            yield
        finally:
            self._waits.discard(wait)

    async def run(self) -> None:
        """Look around four times a second."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            began = time.monotonic()
            for wait in [wait for wait in self._waits if began - wait.since >= LOOK_AFTER_S]:
                seen = await self._health.of(wait.replica)
                silence = Silence(
                    silent_s=began - wait.since,
                    healthy=seen.healthy,
                    elsewhere=seen.elsewhere,
                    begun=wait.begun,
                    longest_gap_s=wait.longest_gap_s,
                    first_s=wait.first_s,
                )
                if wait in self._waits and is_hung(silence):
                    wait.hung = True
                    wait.give_up()
