"""The desk: what callers may ask of control and tell it. Neither HTTP nor words, only what is so."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import Any, Mapping

import gonogo
from gonogo.checks.catalogue import CHECKS
from gonogo.checks.finding import Answer, Stage
from gonogo.checks.room import only_room_is_missing, vacated
from gonogo.control import views
from gonogo.control.apply import Hands
from gonogo.control.deployment import Deployment
from gonogo.control.loop import Reconciler
from gonogo.control.metrics import Metrics
from gonogo.control.observe import Observer
from gonogo.control.record import Recorder
from gonogo.control.sight_servers import keys_of
from gonogo.engines.table import load_limit_s
from gonogo.facts.world import World
from gonogo.plan.decide import ask, decide
from gonogo.plan.model import DesiredService, Plan
from gonogo.spec import Revision, Spec
from gonogo.store.faults import StoreError

PROBE_LIMIT_S, BESIDE_LOADING_S = 300.0, 180.0


@dataclass
class Refused(Exception):
    """A request that was not carried out: HTTP status, reason code, its numbers, the CLI's exit code."""

    status: int
    reason: str
    values: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """On whose behalf a request came, and its id in the event log."""

    principal: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An apply that is not finished: who asked, for which service and digest, since when (Unix seconds), and until
    when nobody else may ask for something else.
    """

    holder: str
    service: str
    digest: str
    since: float
    until: float


class Desk:
    """One per control process."""

    def __init__(
        self, deployment: Deployment, observer: Observer, hands: Hands, reconciler: Reconciler, recorder: Recorder
    ) -> None:
        self._deployment = deployment
        self._paths = deployment.paths
        self._store = deployment.store
        self._runtime = deployment.runtime
        self._memory = deployment.memory
        self._observer = observer
        self._hands = hands
        self._reconciler = reconciler
        self._recorder = recorder
        self._metrics = Metrics(deployment)
        self._operations: dict[str, Operation] = {}
        self._submitting = asyncio.Lock()

    def healthz(self) -> Any:
        world = self._reconciler.world
        return {
            "version": gonogo.__version__,
            "pid": os.getpid(),
            "epoch": self._deployment.epoch,
            "observation": world.observation if world else None,
        }

    def status(self) -> Any:
        world = self._reconciler.world
        services = self._store.services()
        first = next((service for service in services if not service.removed), None)
        return {
            "state_dir": str(self._paths.root),
            "endpoint": _endpoint(first.desired.spec) if first else None,
            "ca_file": self._memory.ca_file or str(self._paths.ca_file),
            "epoch": self._deployment.epoch,
            "services": [self._service(service, world) for service in services],
            "processes": views.processes(self._runtime.processes()),
            "answers": self._answers(None),
            "availability": self._metrics.availability(),
            "queue": self._metrics.queue(),
            "store": _refused(self._reconciler.failure),
        }

    async def submit(self, spec: Spec, caller: Caller, started_at: float | None, allow_downtime: bool = False) -> Any:
        """Ask for a service. Blocked: nothing is stored. Raises `Refused` with the answers or the other holder.

        `allow_downtime`: where there is no room for old and new side by side, the old one ends first.
        """
        async with self._submitting:
            known = {service.name: service for service in self._store.services()}
            current = known.get(spec.service)
            self._require_no_other(spec, current)
            changed = current is None or current.desired.spec != spec or current.removed or current.rejected is not None
            if not changed and current is not None:
                return {"service": spec.service, "revision": current.desired.number, "changed": False}
            answers, in_place = await self._preflight(spec, current, allow_downtime)
            blocking = [answer for answer in answers if answer.blocking]
            if blocking:
                values = {"answers": [views.answer(answer) for answer in answers]}
                raise Refused(status=422, reason="Blocked", values=values)
            with self._deployment.change("api", caller.principal, caller.request_id) as change:
                revision = change.add_revision(spec, in_place)
                for index in [key for key in self._memory.probes if key == (revision.service, revision.number)]:
                    del self._memory.probes[index]
                self._forget_deaths(revision)
            self._recorder.keep(Stage.PREFLIGHT, revision.service, revision.number, self._observation(), answers)
            self._recorder.begin(revision, started_at)
            self._operations[spec.service] = Operation(
                holder=caller.principal,
                service=spec.service,
                digest=spec.digest(),
                since=time.time(),
                until=time.time() + load_limit_s(spec) + BESIDE_LOADING_S,
            )
            self._reconciler.wake()
            return {"service": revision.service, "revision": revision.number, "changed": True}

    async def plan(self, spec: Spec, allow_downtime: bool = False) -> Any:
        """What submitting this spec would do first; changes nothing."""
        known = {service.name: service for service in self._store.services()}
        current = known.get(spec.service)
        same = current is not None and current.desired.spec == spec
        number = current.desired.number + (0 if same else 1) if current else 1
        revision = Revision(number=number, spec=spec)
        answers, in_place = ((), False) if same else await self._preflight(spec, current, allow_downtime)
        if any(answer.blocking for answer in answers):
            made = Plan(observation=self._observation(), actions=(), answers=answers)
        else:
            wanted = DesiredService(
                name=spec.service,
                desired=revision,
                serving=current.serving if current else None,
                rejected=None,
                removed=False,
                serving_since=current.serving_since if current else None,
                in_place_since=time.time() if in_place else None,
            )
            services = (*(one for name, one in sorted(known.items()) if name != spec.service), wanted)
            world = await self._observer.observe(services)
            made = Plan(observation=world.observation, actions=decide(services, world).actions, answers=answers)
        return views.plan(made)

    def check(self, service: str | None) -> Any:
        return {"answers": self._answers(service)}

    async def check_live(self, name: str) -> Any:
        """Ask the serving revision through the front door now."""
        service = self._known(name)
        revision = service.serving
        if revision is None:
            raise Refused(status=409, reason="NotServing", values={"service": name}, exit_code=4)
        await asyncio.wait_for(asyncio.shield(self._hands.probe(revision)), timeout=PROBE_LIMIT_S)
        self._observer.state.forget()
        world = await self._observer.observe(self._store.services())
        answers = tuple(ask(CHECKS, Stage.LIVE, revision, world))
        self._recorder.keep(Stage.LIVE, revision.service, revision.number, world.observation, answers)
        return {"answers": [views.answer(answer, world.at) for answer in answers]}

    async def events(self, after: int, limit: int, wait_s: float) -> Any:
        deadline = time.monotonic() + wait_s
        while True:
            found = self._store.events(after=after, limit=limit)
            if found or time.monotonic() >= deadline:
                return {"events": [views.event(event) for event in found]}
            await asyncio.sleep(0.1)

    def metrics(self) -> str:
        """The metrics in Prometheus's text form. May be called from another thread."""
        return self._metrics.text(self._reconciler.world, self._reconciler.plan)

    def report(self, name: str | None) -> Any:
        services = [one for one in self._store.services() if not one.removed]
        service = self._known(name) if name else (services[0] if services else None)
        if service is None:
            raise Refused(status=404, reason="NoService", exit_code=2)
        world = self._reconciler.world
        revision = service.serving or service.desired
        model = world.model_of(revision.spec) if world else None
        facts = views.plain(model) if model else None
        if facts is not None:
            facts["tensors"] = len(facts["tensors"] or ())
        return {
            "generated_at": time.time(),
            "version": gonogo.__version__,
            "service": service.name,
            "status": self.status(),
            "spec": revision.spec.model_dump(mode="json"),
            "engine": views.engine(revision.spec, world),
            "host": views.plain(world.host) if world else None,
            "model": facts,
            "memory_plan": views.memory_plan(revision, world) if world else None,
            "measured": [
                {"replica": str(one.name), **(views.plain(one.memory) or {})}
                for one in (world.replicas if world else None) or ()
                if one.name.service == service.name
            ],
            "answers": self._answers(service.name),
            "events": [views.event(event) for event in self._last_events(service.name, 200)],
            **self._recorder.timing(revision),
        }

    def remove(self, name: str, caller: Caller) -> Any:
        self._known(name)
        with self._deployment.change("api", caller.principal, caller.request_id) as change:
            change.remove_service(name)
        self._operations.pop(name, None)
        self._reconciler.wake()
        return {"service": name, "removed": True}

    def _known(self, name: str) -> DesiredService:
        services = self._store.services()
        for service in services:
            if service.name == name:
                return service
        known = [service.name for service in services]
        raise Refused(status=404, reason="NoService", values={"service": name, "known": known}, exit_code=2)

    def _require_no_other(self, spec: Spec, current: DesiredService | None) -> None:
        """One apply at a time for a service: a second one with another spec is refused, with who holds it."""
        operation = self._operations.get(spec.service)
        if operation is None or current is None:
            return
        settled = current.serving == current.desired or current.rejected is not None or current.removed
        if settled or time.time() > operation.until or operation.digest == spec.digest():
            return
        values = {"service": spec.service, "holder": operation.holder, "since": operation.since}
        raise Refused(status=409, reason="ApplyInProgress", values=values)

    async def _preflight(
        self, spec: Spec, current: DesiredService | None, allow_downtime: bool
    ) -> tuple[tuple[Answer, ...], bool]:
        """The answers, and whether what serves must end before the new revision starts.

        Where it is ending for another change already, it need not come back before this one.
        """
        number = current.desired.number + 1 if current else 1
        revision = Revision(number=number, spec=spec)
        draft = DesiredService(name=spec.service, desired=revision, serving=None, rejected=None, removed=False)
        services = (*(one for one in self._store.services() if one.name != spec.service), draft)
        self._observer.state.forget()
        self._observer.environments.forget()  # one may have been made a moment ago
        self._observer.servers.forget(keys_of((spec,)))
        self._observer.queue.forget()
        world = await self._observer.observe(services)
        answers = tuple(ask(CHECKS, Stage.PREFLIGHT, revision, world))
        leaving = current is not None and current.leaving is not None
        if not leaving and not (allow_downtime and only_room_is_missing(answers)):
            return answers, False
        return tuple(ask(CHECKS, Stage.PREFLIGHT, revision, vacated(revision, world))), True

    def _forget_deaths(self, revision: Revision) -> None:
        prefix = f"{revision.name}/"
        for name in [name for name in self._memory.deaths if name.startswith(prefix)]:
            del self._memory.deaths[name]

    def _observation(self) -> int:
        world = self._reconciler.world
        return world.observation if world else 0

    def _service(self, service: DesiredService, world: World | None) -> Any:
        shown = service.serving or service.desired
        planned = views.memory_plan(shown, world) if world else None
        terms = {term["name"]: term["size_bytes"] for term in planned["terms"]} if planned else {}
        pids = {process.handle: process.pid for process in self._runtime.processes()}
        rejection = self._store.rejection(service.name, service.desired.number)
        return {
            "name": service.name,
            "endpoint": _endpoint(service.desired.spec),
            "model": service.desired.spec.model,
            "engine": views.engine(shown.spec, world),
            "desired": service.desired.number,
            "serving": service.serving.number if service.serving else None,
            "rejected": views.plain(rejection) if service.rejected is not None else None,
            "phase": views.phase(service, self._hands.probing(service.name, service.desired.number)),
            "replicas": [
                views.replica(one, terms, pids.get(one.handle or ""))
                for one in (world.replicas if world else None) or ()
                if one.name.service == service.name
            ],
            **self._recorder.timing(shown),
        }

    def _answers(self, name: str | None) -> list[Any]:
        found: list[Any] = []
        for service in self._store.services():
            if name is not None and service.name != name:
                continue
            for revision in {one.number for one in (service.desired, service.serving) if one is not None}:
                found.extend(views.kept(one) for one in self._store.answers(service.name, revision))
        return views.stage_order([*(one for one in found if not self._fresher(one)), *self._live(name)])

    def _live(self, name: str | None) -> list[Any]:
        """The live answers of the last round: also right when the store takes no more (a full disk)."""
        plan, world = self._reconciler.plan, self._reconciler.world
        answers = plan.answers if plan is not None else ()
        at = world.at if world is not None else None
        return [views.answer(one, at) for one in answers if one.stage is Stage.LIVE and name in (None, one.service)]

    def _fresher(self, kept: Mapping[str, Any]) -> bool:
        plan = self._reconciler.plan
        key = (kept["stage"], kept["service"], kept["revision"])
        live = [one for one in (plan.answers if plan else ()) if one.stage is Stage.LIVE]
        return any((one.stage.value, one.service, one.revision) == key for one in live)

    def _last_events(self, service: str, limit: int) -> list[Any]:
        found = self._store.latest_events(5 * limit)
        return [event for event in found if event.service in (None, service)][-limit:]


def _refused(failure: Exception | None) -> Any:
    """Why the store takes nothing now, as the last round met it; None when it does."""
    if not isinstance(failure, StoreError):
        return None
    reason, values = failure.refusal
    return {"reason": reason, "values": values}


def _endpoint(spec: Spec) -> str:
    gateway = spec.gateway
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(gateway.address, gateway.address)
    named = gateway.hostnames[0] if gateway.hostnames else host
    return f"https://{named}:{gateway.port}/v1"
