"""Record: what changed since the last round becomes events and kept answers. Changes only the store."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from gonogo.actions.model import EnsureReplica, ProbeRevision, Promote
from gonogo.checks.finding import Answer, Stage
from gonogo.control.deployment import Deployment
from gonogo.facts.replica import LOADS_TOO_LONG, Deaths, Health, ReplicaName
from gonogo.facts.world import World
from gonogo.plan.model import Plan
from gonogo.runtimes.tell import tell
from gonogo.spec import Revision
from gonogo.store.faults import StoreError

KEEP_NUMBERS_EVERY_S = 60.0


class Recorder:
    """Turns differences between rounds into events in the past tense, and answers into what was known, when."""

    def __init__(self, deployment: Deployment) -> None:
        self._change = deployment.change
        self._store = deployment.store
        self._ready: set[str] = set()
        self._well: dict[str, bool] = {}
        self._away: dict[str, bool] = {}
        self._acked = False
        self._marks: dict[str, dict[str, float]] = {}
        self._kept: dict[tuple[str, int, Stage], tuple[tuple[tuple[str, str, str], ...], float]] = {}

    def begin(self, revision: Revision, started_at: float | None) -> None:
        """A revision was asked for; `started_at` (Unix seconds) is when the user's command began."""
        self._marks[revision.name] = {"asked": started_at if started_at is not None else time.time()}

    def mark(self, revision: str, moment: str, at: float) -> None:
        """A stage of this revision is reached; the first time counts."""
        self._marks.get(revision, {}).setdefault(moment, at)

    def proven(self, revision: Revision, at: float) -> None:
        """The revision was promoted: write how long each stage took from the command to here."""
        marks = self._marks.pop(revision.name, None)
        if marks is None:
            return
        marks["proven"] = at
        times = sorted(marks.items(), key=lambda item: item[1])
        stages = [{"name": name, "seconds": round(then - before, 3)} for (_, before), (name, then) in pairwise(times)]
        with self._change() as change:
            change.event(
                "ServiceProven",
                service=revision.service,
                revision=revision.number,
                seconds_to_proven=round(at - marks["asked"], 3),
                stages=stages,
            )

    def timing(self, revision: Revision) -> dict[str, Any]:
        """`stages` and `seconds_to_proven` of a revision; empty and None while it is not proven."""
        for event in reversed(self._store.latest_events(50, kind="ServiceProven", service=revision.service)):
            if event.revision == revision.number:
                return {
                    "stages": event.detail["stages"],
                    "seconds_to_proven": event.detail["seconds_to_proven"],
                }
        return {"stages": [], "seconds_to_proven": None}

    def died(self, name: ReplicaName, deaths: Deaths) -> None:
        """A replica ended unasked, or hangs and is about to be ended.

        Where the store takes nothing the log alone says so, and control goes on: the next one could not begin, because
        it writes down first that it does.
        """
        kind = "ReplicaHung" if deaths.why in ("hung", LOADS_TOO_LONG) else "ReplicaDied"
        detail = {"replica": str(name), "count": deaths.count, "why": deaths.why}
        lines = list(deaths.last_log_lines[-5:])
        try:
            with self._change() as change:
                change.event(kind, service=name.service, revision=name.revision, **detail, last_log_lines=lines)
        except StoreError as error:
            tell(f"{kind} {detail} was not recorded: {error}")

    def record(self, plan: Plan, world: World) -> None:
        """Write what is new."""
        self._replicas(world)
        self._fallbacks(world)
        self._gateway(world)
        self._progress(plan, world)
        stages: dict[tuple[str, int, Stage], list[Answer]] = {}
        for answer in plan.answers:
            stages.setdefault((answer.service, answer.revision, answer.stage), []).append(answer)
        for (service, revision, stage), answers in stages.items():
            self.keep(stage, service, revision, world.observation, tuple(answers))

    def keep(self, stage: Stage, service: str, revision: int, observation: int, answers: tuple[Answer, ...]) -> None:
        """Keep the answers of a stage when a verdict or reason changed, and their numbers once a minute."""
        key, now = (service, revision, stage), time.monotonic()
        verdicts = tuple((one.check, one.finding.subject, one.finding.reason) for one in answers)
        known, at = self._kept.get(key, ((), 0.0))
        if not answers or (verdicts == known and now - at < KEEP_NUMBERS_EVERY_S):
            return
        with self._change() as change:
            change.add_answers(stage, service, revision, observation, answers)
        self._kept[key] = (verdicts, now)

    def _progress(self, plan: Plan, world: World) -> None:
        for action in plan.actions:
            if isinstance(action, EnsureReplica):
                name = action.placement.name
                self.mark(f"{name.service}/{name.revision}", "planned", world.at)
            elif isinstance(action, ProbeRevision):
                self.mark(f"{action.service}/{action.revision}", "acknowledged", world.at)
            elif isinstance(action, Promote):
                self.mark(f"{action.service}/{action.revision}", "probed", world.at)
                self.proven(self._store.revision(action.service, action.revision), time.time())

    def _replicas(self, world: World) -> None:
        self._servers(world)
        ours = [one for one in world.replicas or () if one.url is None]
        ready = {f"{one.name} {one.handle}" for one in ours if one.health is Health.READY}
        for mark in sorted(ready - self._ready):
            self.mark(mark.rpartition("/")[0], "replicas ready", world.at)
            name = ReplicaName.parse(mark.split(" ")[0])
            one = next(one for one in ours if f"{one.name} {one.handle}" == mark)
            with self._change() as change:
                change.event(
                    "ReplicaReady",
                    service=name.service,
                    revision=name.revision,
                    replica=str(name),
                    age_s=round(one.age_s, 2),
                    handle=one.handle,
                    ready_after_s=None if one.ready_after_s is None else round(one.ready_after_s, 2),
                )
        self._ready = ready

    def _servers(self, world: World) -> None:
        """External replicas have no first token of ours and no death: they are well, or silent."""
        for one in world.replicas or ():
            well = {Health.READY: True, Health.DEAD: False}.get(one.health) if one.health else None
            if one.url is None or well is None or self._well.get(str(one.name), False) is well:
                continue
            name = one.name
            self._well[str(name)] = well
            if well:
                self.mark(f"{name.service}/{name.revision}", "replicas ready", world.at)
            with self._change() as change:
                change.event(
                    "ServerRecovered" if well else "ServerFailed",
                    service=name.service,
                    revision=name.revision,
                    replica=str(name),
                    url=one.url,
                )

    def _fallbacks(self, world: World) -> None:
        """When requests begin to leave the house, and when they stay again."""
        for name, away in world.fallen_back.items():
            service, _, number = name.rpartition("/")
            if name not in self._away:
                self._away[name] = self._was_away(service, int(number))
            if self._away[name] is away:
                continue
            self._away[name] = away
            fallback = self._store.revision(service, int(number)).spec.fallback
            with self._change() as change:
                change.event(
                    "FallbackBegun" if away else "FallbackEnded",
                    service=service,
                    revision=int(number),
                    url=None if fallback is None else fallback.url,
                )

    def _was_away(self, service: str, revision: int) -> bool:
        """As an earlier control process wrote it down last."""
        told = [
            (event.sequence, kind)
            for kind in ("FallbackBegun", "FallbackEnded")
            for event in self._store.latest_events(1, kind=kind, service=service)
            if event.revision == revision
        ]
        return max(told, default=(0, ""))[1] == "FallbackBegun"

    def _gateway(self, world: World) -> None:
        gateway = world.gateway
        acked = gateway is not None and gateway.acked and gateway.published is not None
        if acked and not self._acked:
            with self._change() as change:
                change.event("SnapshotAcknowledged", published=(gateway.published or "")[:16] if gateway else "")
        self._acked = acked
