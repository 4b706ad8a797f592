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
from gonogo.gateway.relay.replicas import Replicas
from gonogo.gateway.relay.silence import LOOK_AFTER_S, Alone, Silence, is_hung

LOOK_EVERY_S = 0.1
LATE_S = 0.1
"""Woken later than that, this process has not had a processor: the machine is slow, and engines with it."""
PROMPT_WITHIN_S = 0.5
"""A request that came so soon after a replica's last piece may be why it is silent: its prompt is computed."""


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

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._waits: set[Wait] = set()
        self._flows = Flows()
        self._late_at = float("-inf")

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
        now = time.monotonic()
        if replica is not None:
            slow = pause_s is not None and self._late_at >= now - pause_s
            self._flows.gave(replica, now, None if slow else pause_s)

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
            wanted = time.monotonic() + LOOK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)
            began = time.monotonic()
            if began - wanted > LATE_S:
                self._late_at = began
            silent = [wait for wait in self._waits if began - wait.since >= LOOK_AFTER_S]
            for wait in list(self._waits) if silent else ():
                if wait.replica is None and wait.endpoint is not None:
                    wait.replica = await self._replicas.at(wait.endpoint)
            for wait in silent:
                silence = await self._silence(wait, began)
                if wait in self._waits and is_hung(silence):
                    wait.hung = True
                    if wait.replica is not None:
                        self._flows.hangs(wait.replica, began)
                    wait.give_up()

    async def _silence(self, wait: Wait, now: float) -> Silence:
        seen = await self._replicas.of(wait.replica)
        return Silence(
            silent_s=now - wait.since,
            healthy=seen.healthy,
            elsewhere=seen.elsewhere,
            begun=wait.begun,
            longest_gap_s=wait.longest_gap_s,
            first_s=wait.first_s,
            alone=None if wait.replica is None else self._alone(wait.replica, now),
            given_up=wait.replica in self._flows.hung(now),
        )

    def _alone(self, replica: str, now: float) -> Alone | None:
        last = self._flows.last(replica)
        if last is None or self._late_at >= last:
            return None
        prompts = (wait for wait in self._waits if not wait.begun and wait.replica in (None, replica))
        if not self._flows.is_known(replica) and any(wait.since <= last + PROMPT_WITHIN_S for wait in prompts):
            return None
        return Alone(silent_s=now - last, longest_gap_s=self._flows.longest_gap_s(replica))
