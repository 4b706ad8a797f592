"""Gathers what the metrics tell, when somebody asks: sums from the store, the rest from the last round's world."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from threading import Lock
from typing import Any

import httpx

import gonogo
from gonogo.control.deployment import Deployment
from gonogo.control.holdings import holdings
from gonogo.engines.size import replicas_wanted
from gonogo.facts.parse_gateway import FILTER, GatewayNow, parse_gateway_now
from gonogo.facts.parse_utilization import Utilization
from gonogo.facts.part import VALKEY
from gonogo.facts.world import World
from gonogo.gateway.policy.ledger import Held
from gonogo.monitoring.exposition import Measured, text
from gonogo.monitoring.usage import availabilities, plain
from gonogo.plan.model import DesiredService, Plan
from gonogo.runtimes.look_accelerators import look_at_utilization
from gonogo.runtimes.unix_http import over
from gonogo.store.metering import ALL_S
from gonogo.store.store import Store
from gonogo.tasks.database import NAME
from gonogo.tasks.summary import Summary, summary_of

UTILIZATION_EVERY_S = 5.0
ENVOY_LIMIT_S = 1.0
AVAILABILITY_EVERY_S = 5.0
QUEUE_EVERY_S = 1.0
"""A million tasks take it a tenth of a second to count."""


class Metrics:
    """One per control process. `text` may be called from any thread; a slow driver makes it take seconds."""

    def __init__(self, deployment: Deployment) -> None:
        self._store = deployment.store
        self._memory = deployment.memory
        self._envoy = deployment.paths.admin_socket
        self._valkey = deployment.paths.part_socket(VALKEY, 0)
        self._looking = Lock()
        self._looked_at = -UTILIZATION_EVERY_S
        self._utilization: tuple[Utilization, ...] = ()
        self._counting = Lock()
        self._counted_at = -AVAILABILITY_EVERY_S
        self._availability: dict[str, Any] = {}
        self._queue_at = -QUEUE_EVERY_S
        self._queue: Summary | None = None

    def text(self, world: World | None, plan: Plan | None) -> str:
        """What a scraper reads. `world` and `plan` are those of the last round."""
        services = self._store.services()
        watched = [(one.process.name, one.seen.progress) for one in tuple(self._memory.watches.values())]
        return text(
            replace(
                from_store(self._store),
                world=world,
                wanted=_wanted(services, world) if world is not None else {},
                failing=None if plan is None else sum(answer.blocking for answer in plan.answers),
                cache_used={
                    name: progress.cache_used
                    for name, progress in watched
                    if progress is not None and progress.cache_used is not None
                },
                held=self._held(world),
                gateway_now=self._gateway_now(),
                utilization=self._busy(world),
            )
        )

    def availability(self) -> dict[str, Any]:
        """Service → window → what was measured, at most some seconds old (`monitoring.usage.availabilities`)."""
        with self._counting:
            if time.monotonic() - self._counted_at >= AVAILABILITY_EVERY_S:
                self._availability = plain(availabilities(self._store, time.time()))
                self._counted_at = time.monotonic()
            return self._availability

    def queue(self) -> dict[str, Any] | None:
        """The queue in a few numbers, at most a second old (`tasks.summary.Summary`); None: it cannot be read."""
        with self._counting:
            if time.monotonic() - self._queue_at >= QUEUE_EVERY_S:
                self._queue = queue_of(self._store)
                self._queue_at = time.monotonic()
            return None if self._queue is None else asdict(self._queue)

    def _gateway_now(self) -> GatewayNow:
        transport = over(self._envoy)
        try:
            with httpx.Client(transport=transport, timeout=ENVOY_LIMIT_S) as client:
                answer = client.get("http://admin/stats", params={"format": "json", "filter": FILTER})
                return parse_gateway_now(answer.text)
        except httpx.HTTPError:
            return GatewayNow()

    def _held(self, world: World | None) -> dict[str, Held]:
        """By replica; empty where Valkey does not say."""
        seen = (world.replicas if world is not None else None) or ()
        replicas = [one for one in seen if one.url is None]  # what others run is not ours to fill
        revisions = {f"{one.name.service}/{one.name.revision}" for one in replicas}
        found = holdings(self._valkey, sorted(revisions)) if revisions else None
        if found is None:
            return {}
        return {
            str(one.name): found[f"{one.name.service}/{one.name.revision}"].get(f"{one.address}:{one.port}", Held())
            for one in replicas
        }

    def _busy(self, world: World | None) -> tuple[Utilization, ...]:
        host = world.host if world is not None else None
        if host is None or not host.accelerators:
            return ()
        with self._looking:
            if time.monotonic() - self._looked_at >= UTILIZATION_EVERY_S:
                self._utilization, self._looked_at = look_at_utilization(), time.monotonic()
            return self._utilization


def from_store(store: Store) -> Measured:
    """What is known without control."""
    keys = [key for key in store.keys() if key.revision is None and key.acts_for is None]  # noqa: SIM118 (not a dict)
    return Measured(
        version=gonogo.__version__,
        totals=store.usage(ALL_S, 0, 1),
        key_order=tuple(key.key_id for key in keys),
        key_names={key.key_id: key.name for key in keys},
        logs=store.logs(),
        chain_length=store.head().sequence,
        promised_s=_promised_s(store.services()),
        queue=queue_of(store),
    )


def queue_of(store: Store) -> Summary | None:
    """The queue beside this store."""
    return summary_of(store.path.parent / "tasks" / NAME, time.time())


def _promised_s(services: tuple[DesiredService, ...]) -> dict[str, float]:
    shown = [(one.serving or one.desired).spec for one in services if not one.removed]
    return {spec.service: spec.slo.ttft_ms / 1000 for spec in shown if spec.slo.ttft_ms is not None}


def _wanted(services: tuple[DesiredService, ...], world: World) -> dict[str, int]:
    """Replicas by service: of servers that others run all that the spec names."""
    shown = [one.serving or one.desired for one in services if not one.removed]
    return {one.service: len(one.spec.external) or replicas_wanted(one, world) for one in shown}
