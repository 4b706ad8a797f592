"""One task that looks at every stream that waits for its replica, and lets go of those that wait for a hung one.

Not here: when silence is death (`silence`). A timer for each piece of each stream would cost more than the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Callable, Collection, Iterator

from gonogo.gateway.relay.flows import Flows
from gonogo.gateway.relay.machine import Machine
from gonogo.gateway.relay.replicas import Replicas
from gonogo.gateway.relay.silence import ALONE_S, LOOK_AFTER_S, Alone, Silence, is_hung

LOOK_EVERY_S = 0.1


@dataclass(slots=True, kw_only=True, eq=False)
class Wait:
    """One stream that waits for bytes since `since` (monotonic seconds). `give_up` makes its reading end at once.

    `replica` None: not known yet; `endpoint` is then where it was sent first, if that is known.
    """

    since: float
    replica: str | None
    begun: bool
    give_up: Callable[[], object]
    endpoint: str | None = None
    longest_gap_s: float = 0.0
    first_s: float = 0.0
    hung: bool = False


class Watch:
    """`run` for ever beside the streams."""

    def __init__(self, replicas: Replicas, machine: Machine) -> None:
        self._replicas = replicas
        self._machine = machine
        self._waits: set[Wait] = set()
        self._flows = Flows()

    @contextlib.contextmanager
    def over(self, wait: Wait) -> Iterator[None]:
        """Look after this wait while it lasts."""
        self._waits.add(wait)
        try:
            yield
        finally:
            self._waits.discard(wait)

    def gave(self, replica: str | None, pause_s: float | None) -> None:
        """A piece came from this replica after so long; None: its stream's first, so that the pause is a prompt's."""
        if replica is not None:
            self._flows.gave(replica, time.monotonic(), pause_s)

    async def endpoints(self, revision: str, picked: str | None, lost: Collection[str]) -> str | None:
        """Where to go, the best first, commas between; None: Envoy decides.

        `picked`: what policy said; it stands where nothing is known against it. `lost`: not there.
        """
        hung = [name for name in self._flows.hung(time.monotonic()) if name.rpartition("/")[0] == revision]
        if not hung and not lost:
            return picked
        return ",".join(await self._replicas.others(revision, lost, hung)) or None

    async def run(self) -> None:
        """Look around ten times a second."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            began = time.monotonic()
            silent = [wait for wait in self._waits if began - wait.since >= LOOK_AFTER_S]
            for wait in silent:
                if wait.replica is None and wait.endpoint is not None:
                    wait.replica = await self._replicas.at(wait.endpoint)
                silence = await self._silence(wait, began)
                if wait in self._waits and is_hung(silence):
                    wait.hung = True
                    if wait.replica is not None:
                        self._flows.hangs(wait.replica, began)
                    wait.give_up()

    async def _silence(self, wait: Wait, now: float) -> Silence:
        seen = await self._replicas.of(wait.replica)
        slow = wait.begun and now - wait.since >= ALONE_S and await self._machine.is_slow()
        return Silence(
            silent_s=now - wait.since,
            healthy=seen.healthy,
            elsewhere=seen.elsewhere,
            begun=wait.begun,
            longest_gap_s=wait.longest_gap_s,
            first_s=wait.first_s,
            alone=None if slow else self._alone(wait.replica, now),
            slow_machine=slow,
            given_up=wait.replica in self._flows.hung(now),
        )

    def _alone(self, replica: str | None, now: float) -> Alone | None:
        last = None if replica is None else self._flows.last(replica)
        if replica is None or last is None:
            return None
        return Alone(
            silent_s=now - last,
            longest_gap_s=self._flows.longest_gap_s(replica),
            few_seen=not self._flows.is_known(replica),
        )
