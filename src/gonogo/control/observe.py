"""Observe: look at everything once and number it. The only place that makes a `World`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Callable, Iterable, Sequence

from gonogo.control.deployment import Deployment
from gonogo.control.learn import learn
from gonogo.control.parts import PartsWatch
from gonogo.control.sight import CertificateSight, HostSight, StateSight, given_certificates
from gonogo.control.sight_door import DoorSight
from gonogo.control.sight_fallback import fallen_back, key_files_of
from gonogo.control.sight_models import EnvironmentSight, ModelSight, ProjectorSight
from gonogo.control.sight_queue import QueueSight, queues_of
from gonogo.control.sight_servers import AskedSpecs, ExternalSight, ServerSight, keys_of
from gonogo.control.watch import Birth, ReplicaWatch
from gonogo.engines.exits import ends_in_error
from gonogo.engines.table import engine_for, load_limit_s
from gonogo.facts.gateway import ResourceStatus
from gonogo.facts.host import HostFacts
from gonogo.facts.replica import (
    FAILED_TO_START,
    LOADS_TOO_LONG,
    Deaths,
    Health,
    MemoryMeasured,
    ReplicaFacts,
    ReplicaName,
)
from gonogo.facts.world import World
from gonogo.plan.health import SEEING_STUCK_S, STUCK_S
from gonogo.plan.model import DesiredService
from gonogo.runtimes.local import Process, tail
from gonogo.runtimes.look_key_files import look_at_key_files
from gonogo.spec import Gateway, Revision
from gonogo.store.faults import UnknownRevision

DEATHS_WINDOW_S = 300.0
SCAN_EVERY_S = 10.0
ADOPTED_AGE_S = 2.0
READY_EVENTS_READ = 100
LOG_TAIL_LINES = 20
LOG_LINES_READ, LOG_BYTES_READ = 2000, 512 * 1024
"""The cause stands hundreds of lines above an engine's last words."""


class Observer:
    """Puts the pieces of the world together. `on_change` wakes the loop when a watched thing changes."""

    def __init__(
        self,
        deployment: Deployment,
        gateway_status: Callable[[], tuple[ResourceStatus, ...] | None],
        on_change: Callable[[], None],
    ) -> None:
        self._paths = deployment.paths
        self._runtime = deployment.runtime
        self._memory = deployment.memory
        self._store = deployment.store
        self._on_change = on_change
        self._number = 0
        self._scanned_at = 0.0
        self.host = HostSight(deployment.paths)
        self.models = ModelSight(deployment.paths)
        self.environments = EnvironmentSight(deployment.paths)
        self.projectors = ProjectorSight()
        self.asked = AskedSpecs(deployment.store)
        self.external = ExternalSight(deployment.paths, self.asked)
        self.servers = ServerSight()
        self.queue = QueueSight()
        self.parts = PartsWatch(deployment.paths, deployment.runtime, on_change)
        self._door = DoorSight(deployment, gateway_status, self.parts)
        self.state = StateSight(deployment.paths)
        self.certificate = CertificateSight(deployment.paths)
        self.on_death: Callable[[ReplicaName, Deaths], None] = lambda _name, _deaths: None

    async def observe(self, services: Sequence[DesiredService]) -> World:
        """One look. Slow parts (installed versions, models) come from caches that threads fill."""
        self._number += 1
        revisions = [revision for service in services for revision in _revisions(service)]
        projectors = {revision.spec.projector for revision in revisions if revision.spec.projector is not None}
        processes = self._processes()
        wanted_ports = {service.desired.spec.gateway.port for service in services}
        host = await asyncio.to_thread(self.host.look, frozenset(wanted_ports), [one.pid for one in processes])
        models = await asyncio.to_thread(self.models.look, sorted({one.spec.model for one in revisions if _ours(one)}))
        self._adopt(processes)
        self.parts.follow(processes)
        external = await self.external.look(services)
        replicas = (*self._replicas(host), *external)
        queues = queues_of(services)
        return World(
            observation=self._number,
            at=time.time(),
            host=host,
            models=models,
            environments=await asyncio.to_thread(self.environments.look),
            projectors=await asyncio.to_thread(self.projectors.look, projectors),
            replicas=replicas,
            gateway=self._door.gateway(processes, services),
            parts=self._door.parts(processes),
            certificate=await asyncio.to_thread(self.certificate.look, _gateways(services)),
            given_certificates=await asyncio.to_thread(
                given_certificates, self._paths, [one.desired.spec.gateway for one in services]
            ),
            state=await asyncio.to_thread(self.state.look),
            probes=tuple(probe for found in self._memory.probes.values() for probe in found),
            deaths=self._recent_deaths(),
            asked=self.asked.of_replicas(replicas),
            queues=queues,
            queue_servers=await asyncio.to_thread(self.queue.look, queues.values()),
            servers=await asyncio.to_thread(self.servers.look, keys_of(one.desired.spec for one in services)),
            key_files=await asyncio.to_thread(look_at_key_files, key_files_of(one.spec for one in revisions)),
            fallen_back=await fallen_back(self._paths, services),
        )

    def _processes(self) -> tuple[Process, ...]:
        now = time.monotonic()
        if now - self._scanned_at > SCAN_EVERY_S:
            self._scanned_at = now
            return self._runtime.scan()
        return self._runtime.processes()

    def _adopt(self, processes: Iterable[Process]) -> None:
        """Watch every replica process that is not watched yet; let go of those that ended."""
        alive = {process.handle: process for process in processes if process.role == "replica"}
        for handle, process in alive.items():
            if handle not in self._memory.watches:
                pulse = self._runtime.pulse(handle)
                self.watch(process, adopted=pulse is not None and pulse.age_s > ADOPTED_AGE_S)
        for handle, watch in tuple(self._memory.watches.items()):
            # one may have ended since the processes were counted: its log is read before another writes into it
            if handle not in alive or watch.verdict is Health.DEAD:
                self._bury(handle)

    def watch(self, process: Process, adopted: bool) -> None:
        """Watch a replica from now on. One that we start is watched at once: it may die before the next look."""
        spec = self.asked.of(process.name.rpartition("/")[0])  # None: of a revision that nobody knows any more
        engine = engine_for(spec)
        birth = Birth(
            load_limit_s=engine.load_limit_s if spec is None else load_limit_s(spec),
            stuck_s=SEEING_STUCK_S if spec is not None and spec.projector is not None else STUCK_S,
            adopted=adopted,
            ready_after_s=self._told_before(process) if adopted else None,
        )
        watch = ReplicaWatch(self._runtime, process, engine, self._on_change, birth)
        self._memory.watches[process.handle] = watch
        watch.begin()

    def _told_before(self, process: Process) -> float | None:
        """How long this very process took to its first token, as an earlier control process wrote it down."""
        service = ReplicaName.parse(process.name).service
        for event in reversed(self._store.latest_events(READY_EVENTS_READ, kind="ReplicaReady", service=service)):
            if event.detail.get("handle") == process.handle:
                told = event.detail.get("ready_after_s")
                return float(told) if isinstance(told, (int, float)) else None
        return None

    def _bury(self, handle: str) -> None:
        watch = self._memory.watches.pop(handle)
        watch.end()
        name = watch.process.name
        self._runtime.sweep("replica", name, (self._paths.log("replica", name),))
        self._memory.measured.pop(handle, None)
        if handle in self._memory.ending:
            self._memory.ending.discard(handle)
            return
        self.died(watch, hung=False)

    def died(self, watch: ReplicaWatch, hung: bool) -> None:
        """Remember an unasked end, or a hang that we are about to end."""
        name = ReplicaName.parse(watch.process.name)
        lines = tail(self._paths.log("replica", watch.process.name), LOG_LINES_READ, LOG_BYTES_READ)
        why = _why(watch, "\n".join(lines), hung)
        lines = lines[-LOG_TAIL_LINES:]
        lived_long = watch.ready_at is not None and time.monotonic() - watch.ready_at > 60.0
        past = [] if lived_long else self._memory.deaths.get(watch.process.name, [])
        death = Deaths(count=len(past) + 1, last_at=time.time(), why=why, last_log_lines=lines)
        self._memory.deaths[watch.process.name] = [*past, death][-20:]
        self.on_death(name, death)

    def _recent_deaths(self) -> dict[str, Deaths]:
        now, recent = time.time(), {}
        for name, deaths in tuple(self._memory.deaths.items()):
            kept = [death for death in deaths if now - death.last_at < DEATHS_WINDOW_S]
            if kept:
                last = kept[-1]
                recent[name] = Deaths(
                    count=len(kept), last_at=last.last_at, why=last.why, last_log_lines=last.last_log_lines
                )
            else:
                del self._memory.deaths[name]
        return recent

    def _replicas(self, host: HostFacts) -> tuple[ReplicaFacts, ...]:
        found = [self._replica(watch, host) for watch in self._memory.watches.values()]
        return tuple(sorted((one for one in found if one.health is not Health.DEAD), key=lambda one: str(one.name)))

    def _replica(self, watch: ReplicaWatch, host: HostFacts) -> ReplicaFacts:
        seen, process = watch.seen, watch.process
        progress, pulse = seen.progress, seen.pulse
        return ReplicaFacts(
            name=ReplicaName.parse(process.name),
            host=host.name,
            address="127.0.0.1",
            port=process.port or 0,
            handle=process.handle,
            health=watch.verdict,
            age_s=pulse.age_s if pulse else 0.0,
            restarts=len(self._memory.deaths.get(process.name, ())),
            requests_running=progress.requests_running if progress else None,
            requests_waiting=progress.requests_waiting if progress else None,
            tokens_generated=progress.tokens_generated if progress else None,
            last_log_lines=(),
            memory=self._measured(watch, host),
            listens_on=self.host.listens_on(process.pid) if watch.verdict is Health.READY else None,
            devices=process.devices,
            ready_after_s=watch.ready_after_s,
        )

    def _measured(self, watch: ReplicaWatch, host: HostFacts) -> MemoryMeasured:
        handle, pulse = watch.process.handle, watch.seen.pulse
        if handle not in self._memory.measured and watch.verdict is Health.READY:
            log = self._paths.log("replica", watch.process.name)
            text = "\n".join(tail(log, 4000, limit_bytes=2_000_000))
            self._memory.measured[handle] = watch.engine.measured(text)
            self._learn(ReplicaName.parse(watch.process.name), host, text)
        printed = self._memory.measured.get(handle, MemoryMeasured())
        return replace(printed, resident_bytes=pulse.resident_bytes if pulse else None)

    def _learn(self, name: ReplicaName, host: HostFacts, log_text: str) -> None:
        try:
            spec = self._store.revision(name.service, name.revision).spec
        except UnknownRevision:
            return
        learn(self._paths.root, spec, self.models.look((spec.model,))[spec.model], host, log_text)


def _why(watch: ReplicaWatch, log_text: str, hung: bool) -> str:
    """What a replica died of: as its log says, else by how it was found."""
    if watch.shared:
        return "EnginePortTaken"
    if hung and watch.loading:
        return LOADS_TOO_LONG
    if hung and not watch.broken:
        return "hung"
    found = watch.engine.explain_exit(log_text)
    if found is None and watch.loading and ends_in_error(log_text):
        return FAILED_TO_START
    return found or ("EngineChildDied" if watch.broken else "killed")


def _gateways(services: Sequence[DesiredService]) -> tuple[Gateway, ...]:
    return tuple(service.desired.spec.gateway for service in services if not service.removed)


def _ours(revision: Revision) -> bool:
    """Whether its model is on this host: external replicas have their own."""
    return not revision.spec.external


def _revisions(service: DesiredService) -> list[Revision]:
    return [revision for revision in (service.desired, service.serving) if revision is not None]
