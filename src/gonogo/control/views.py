"""What control tells its callers, as plain JSON values. Reads only."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any, Mapping, Sequence

from gonogo.checks.finding import Answer, Stage
from gonogo.engines.asked import cards_of_replica, engine_name
from gonogo.engines.size import replicas_wanted
from gonogo.engines.table import memory_of
from gonogo.facts.part import PARTS
from gonogo.facts.replica import ReplicaFacts
from gonogo.facts.world import World
from gonogo.plan.model import DesiredService, Plan
from gonogo.runtimes.local import Process
from gonogo.security.chain import Event
from gonogo.spec import Revision, Spec
from gonogo.store.records import KeptAnswer

Json = Any


def plain(value: object) -> Json:
    """Dataclasses, enums, tuples and mappings as JSON values."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list, frozenset)):
        return [plain(item) for item in value]
    return value


def answer(given: Answer, at: float | None = None) -> Json:
    """One answer of a check, with the finding's fields beside the check's."""
    return {
        "service": given.service,
        "revision": given.revision,
        "check": given.check,
        "condition": given.condition.value,
        "stage": given.stage.value,
        "blocks": given.blocks,
        "reason": given.finding.reason,
        "verdict": given.finding.verdict.value,
        "subject": given.finding.subject,
        "values": plain(given.finding.values),
        "at": at,
    }


def kept(given: KeptAnswer) -> Json:
    """An answer as it is known: since when."""
    return answer(dataclasses.replace(given.answer, service=given.service, revision=given.revision), given.since)


def event(given: Event) -> Json:
    """An event as it is chained (`at_ms` is part of its hash), with its time in Unix seconds beside."""
    return {**plain(given), "at": given.at_ms / 1000}


def plan(given: Plan) -> Json:
    """A plan: the observation it was made from, its actions and answers."""
    return {
        "observation": given.observation,
        "actions": [{"action": type(action).__name__, **plain(action)} for action in given.actions],
        "answers": [answer(one) for one in given.answers],
        "blocked": bool(given.blocked),
    }


def phase(service: DesiredService, probing: bool) -> str:
    """Where a service stands: removing, rejected, proven, proving or starting."""
    if service.removed:
        return "removing"
    if service.serving == service.desired:
        return "proven"
    if service.rejected is not None:
        return "rejected"
    return "proving" if probing else "starting"


def replica(seen: ReplicaFacts, planned: Mapping[str, int], pid: int | None) -> Json:
    """One replica, planned memory beside measured."""
    return {
        "id": str(seen.name),
        "host": seen.host,
        "address": seen.address,
        "port": seen.port,
        "pid": pid,
        "url": seen.url,
        "health": seen.health.value if seen.health else None,
        "restarts": seen.restarts,
        "age_s": round(seen.age_s, 1),
        "requests_running": seen.requests_running,
        "tokens_generated": seen.tokens_generated,
        "memory": plain(seen.memory),
        "planned": dict(planned),
    }


def engine(spec: Spec, world: World | None) -> Json:
    """What serves a spec: engine, version, environment, the digest of its lock, and the cards of each replica.

    None for what the spec does not fix, and for an environment that was not seen.
    """
    choice = spec.engine
    name = choice.environment if choice is not None else None
    made = ((world.environments if world else None) or {}).get(name or "")
    return {
        "name": engine_name(spec),
        "version": choice.version if choice is not None else None,
        "environment": name,
        "lock": made.lock if made is not None else None,
        "cards": cards_of_replica(spec),
    }


def memory_plan(revision: Revision, world: World) -> Json:
    """The memory plan of one replica as an addition; None while the model was not read."""
    model = world.model_of(revision.spec)
    if model is None or model.problem is not None:
        return None
    try:
        made = memory_of(revision.spec, model, world.host, replicas_wanted(revision, world))
    except ValueError:  # the cards are not to be seen now: what runs there runs on
        return None
    return {"terms": plain(made.terms), "total_bytes": made.total_bytes}


def processes(found: Sequence[Process]) -> Json:
    """Role → pids."""
    roles: dict[str, list[int]] = {role: [] for role in ("keeper", "control", "gateway", *PARTS, "replica")}
    for process in found:
        roles.setdefault(process.role, []).append(process.pid)
    return {role: sorted(pids) for role, pids in roles.items()}


def stage_order(given: Sequence[Json]) -> list[Json]:
    """Answers by stage, in the order in which stages come."""
    order = {stage.value: index for index, stage in enumerate(Stage)}
    return sorted(given, key=lambda one: order[one["stage"]])
