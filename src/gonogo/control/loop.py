"""The reconcile loop: observe, decide, act, record, observe again. It fits on one screen."""

from __future__ import annotations

import asyncio

from gonogo.control.apply import Hands
from gonogo.control.deployment import Deployment
from gonogo.control.journal import Journal
from gonogo.control.observe import Observer
from gonogo.control.record import Recorder
from gonogo.facts.world import World
from gonogo.plan.decide import decide
from gonogo.plan.model import DesiredService, Plan
from gonogo.runtimes.tell import tell
from gonogo.store.faults import StaleEpoch

TICK_S = 0.5
PAUSE_AFTER_FAILURE_S = 1.0


class WorldMoved(Exception):
    """The plan was made from what is so no more: it must be made anew."""


class Reconciler:
    """Runs until told to stop. `world` and `plan` are the latest, `failure` what the last round met, for who asks."""

    def __init__(
        self, deployment: Deployment, observer: Observer, hands: Hands, journal: Journal, recorder: Recorder
    ) -> None:
        self._store = deployment.store
        self._observer = observer
        self._hands = hands
        self._journal = journal
        self._recorder = recorder
        self._wake = asyncio.Event()
        self._stopping = False
        self.world: World | None = None
        self.plan: Plan | None = None
        self.failure: Exception | None = None

    def wake(self) -> None:
        """Look again now rather than at the next tick. May be called from the loop's thread only."""
        self._wake.set()

    @property
    def stopping(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def refresh(self) -> None:
        """Renew what grows old by itself (the certificate). A failure is written down; the next time comes."""
        try:
            await self._hands.refresh()
        except Exception as error:  # noqa: BLE001 (a bad certificate file must not end control; its check says so)
            tell(f"refresh failed: {error!r}")

    async def run(self) -> None:
        """The four verbs, for ever."""
        while not self._stopping:
            self._wake.clear()
            services = self._store.services()
            self.world = await self._observer.observe(services)
            self.plan = decide(services, self.world)
            try:
                await self.carry_out(self.plan, self.world, services)
                self._recorder.record(self.plan, self.world)
                self.failure = None
            except WorldMoved:
                continue
            except StaleEpoch:
                raise
            except Exception as error:  # noqa: BLE001 the boundary: what failed is written down, the next round looks again
                self.failure = error
                tell(f"round failed: {error!r}")
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
            await self._nap()

    async def carry_out(self, plan: Plan, world: World, services: tuple[DesiredService, ...]) -> None:
        """Perform the plan's actions in order. Raises `WorldMoved` before the first that no longer fits.

        It fits while `world` is the observation that the plan names, and while nobody asked for anything else since
        (a service that is asked for again must not be forgotten by a plan made a moment before).
        """
        for action in plan.actions:
            if plan.observation != world.observation or self._store.services() != services:
                raise WorldMoved(f"the plan was made from observation {plan.observation}, which holds no more")
            if self._hands.under_way(action):
                continue
            self._journal.started(action)
            try:
                await self._hands.perform(action, world)
            except Exception as error:  # one action failed: written down, the others wait for the next round
                self._journal.failed(action, error)
                raise
            self._journal.finished(action)

    async def _nap(self) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), timeout=TICK_S)
        except asyncio.TimeoutError:
            return
