"""The engine of a spec that names one: its cards, its environment, and the doors that it leaves to policy. Pure."""

from __future__ import annotations

from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.checks.room import away, others
from gonogo.engines.asked import LLAMACPP, SGLANG, cards_of_replica, engine_name, settings_of
from gonogo.engines.capacity import Capacity, Fit, Question
from gonogo.engines.cards import cards_for, free_cards
from gonogo.engines.hardware import HardwareError, hardware_here
from gonogo.engines.model import Placement
from gonogo.engines.settings import Limits, Refused
from gonogo.engines.sglang import SGLang
from gonogo.engines.size import replicas_wanted
from gonogo.engines.table import capacity_on, cards_here
from gonogo.engines.vllm import Vllm
from gonogo.facts.environment import EnvironmentMade
from gonogo.facts.model import ModelFacts
from gonogo.facts.numbers import ConfigError
from gonogo.facts.replica import ReplicaName
from gonogo.facts.world import World
from gonogo.spec import Revision

GIB = 1024**3


def cards_fit(revision: Revision, world: World) -> Iterator[Finding]:
    """Are there enough free cards for all replicas, and does one replica fit on its own?"""
    spec, subject = revision.spec, f"service/{revision.service}"
    each = cards_of_replica(spec)
    if not each:
        yield _not_asked(subject, "EngineOnProcessor")
        return
    if world.host is None or world.host.accelerators is None:
        yield Finding(reason="CardsUnseen", verdict=Verdict.UNKNOWN, subject=subject)
        return
    replicas = replicas_wanted(revision, world)
    free = free_cards(revision.service, world, revision.number)
    values: dict[str, Value] = {
        "needed": each * replicas,
        "each": each,
        "replicas": replicas,
        "free": len(free),
        "seen": len(world.host.accelerators),
        "engine": engine_name(spec),
    }
    if len(free) < each * replicas:
        vacated = len(free_cards(revision.service, world))
        reason = "CardsTooFew"
        if vacated >= each * replicas:
            reason = "NoCardsBeside"
            values |= {"held": vacated - len(free), **away(others(revision, world))}
        yield Finding(reason=reason, verdict=Verdict.FAIL, subject=subject, values=values)
        return
    yield from _fits(revision, world, subject, values)


def _fits(revision: Revision, world: World, subject: str, values: dict[str, Value]) -> Iterator[Finding]:
    model = world.models.get(revision.spec.model)
    if model is None or model.problem is not None:
        yield _not_asked(subject, "model_readable")
        return
    try:
        hardware = hardware_here(cards_for(revision.service, world))
    except HardwareError:
        yield Finding(reason="CardsUnseen", verdict=Verdict.UNKNOWN, subject=subject)
        return
    try:
        seen = capacity_on(revision.spec, model, hardware)
    except (ConfigError, ValueError) as error:
        values = {**values, "detail": str(error)}
        yield Finding(reason="CardsFitUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
        return
    values = {**values, **_numbers(seen), "card": hardware.card.name}
    verdict = {Fit.DOES_NOT_FIT: Verdict.FAIL, Fit.UNKNOWN: Verdict.UNKNOWN}.get(seen.fit, Verdict.PASS)
    reasons = {Verdict.FAIL: "CardMemoryTooSmall", Verdict.UNKNOWN: "CardsFitUnknown", Verdict.PASS: "CardsFit"}
    yield Finding(reason=reasons[verdict], verdict=verdict, subject=subject, values=values)


def _numbers(seen: Capacity) -> dict[str, Value]:
    failed, memory = seen.failed, seen.memory
    margin = seen.margin_bytes
    return {
        "margin_gib": None if margin is None else round(margin / GIB, 2),
        "requests": seen.requests,
        "tokens": seen.serving.context_tokens,
        "share": round(seen.share, 3),
        "why": (failed.question if failed is not None else Question.HOLDS_ONE).value,
        "terms": ""
        if memory is None
        else " + ".join(f"{term.name} {term.size_bytes / GIB:.2f}" for term in memory.tightest.terms),
        "detail": seen.model.architecture.oddity,
    }


def engine_environment(revision: Revision, world: World) -> Iterator[Finding]:
    """Is the locked environment that holds the engine there, whole, and of the engine and version that were asked?"""
    spec = revision.spec
    choice, subject = spec.engine, f"service/{revision.service}"
    if choice is None or (choice.name == LLAMACPP and choice.environment is None and choice.version is None):
        yield _not_asked(subject, "EngineCameWithGonogo")
        return
    values: dict[str, Value] = {
        "engine": choice.name,
        "version": choice.version,
        "environment": choice.environment,
        "model": spec.model,
    }
    if world.environments is None:
        yield Finding(reason="EngineEnvironmentUnseen", verdict=Verdict.UNKNOWN, subject=subject, values=values)
        return
    made = world.environments.get(choice.environment or "")
    if made is None:
        yield Finding(reason="EngineEnvironmentMissing", verdict=Verdict.FAIL, subject=subject, values=values)
    elif not _is(made, choice.name, choice.version):
        found: dict[str, Value] = {**values, "found": f"{made.engine} {made.answered}"}
        yield Finding(reason="EngineEnvironmentOther", verdict=Verdict.FAIL, subject=subject, values=found)
    else:
        ready: dict[str, Value] = {**values, "answered": made.answered, "lock": made.lock[:12]}
        yield Finding(reason="EngineEnvironmentReady", verdict=Verdict.PASS, subject=subject, values=ready)


def _is(made: EnvironmentMade, engine: str, version: str | None) -> bool:
    return made.engine == engine and version in (None, made.version)


def engine_doors(revision: Revision, world: World) -> Iterator[Finding]:
    """Would this version start right, and who bounds what a client may ask of it: files, URLs, number of answers?

    What an engine has no switch against, policy refuses for every engine (`gonogo.gateway.policy`).
    """
    spec, subject = revision.spec, f"service/{revision.service}"
    if engine_name(spec) == LLAMACPP:
        yield _not_asked(subject, "EngineIsLlamaCpp")
        return
    values: dict[str, Value] = {"engine": engine_name(spec), "version": spec.engine.version if spec.engine else None}
    try:
        limits = _trial(revision, world)
    except Refused as refused:
        words = ", ".join(f"{key} {value}" for key, value in refused.values.items())
        values = {**values, "why": refused.reason, "code": refused.reason, "words": words}
        yield Finding(reason="EngineStartRefused", verdict=Verdict.FAIL, subject=subject, values=values)
        return
    values["doors"] = ", ".join(sorted(limits.unfenced)) or None
    yield Finding(reason="EngineDoorsShut", verdict=Verdict.PASS, subject=subject, values=values)


def _trial(revision: Revision, world: World) -> Limits:
    """The limits of a start that is put together and not made. Raises Refused for one that cannot be right."""
    spec = revision.spec
    settings = settings_of(spec, None, cards_here(world.host))
    engine = SGLang("python", settings) if engine_name(spec) == SGLANG else Vllm("python", settings)
    model = world.models.get(spec.model)
    placement = Placement(
        name=ReplicaName(service=revision.service, revision=revision.number, index=0),
        host="local",
        address="127.0.0.1",
        port=1,
        threads=1,
        devices=tuple(map(str, range(cards_of_replica(spec)))),
    )
    engine.launch(
        spec, model if model is not None and model.path else ModelFacts(asked=spec.model, path="/"), placement
    )
    return engine.limits()


def _not_asked(subject: str, why: str) -> Finding:
    return Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values={"why": why})


CHECKS = (
    Check(
        name="cards_fit",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("CardsFit", "CardsTooFew", "NoCardsBeside", "CardMemoryTooSmall", "CardsFitUnknown", "CardsUnseen"),
        ask=cards_fit,
    ),
    Check(
        name="engine_environment",
        condition=Condition.SOFTWARE,
        stages=(Stage.PREFLIGHT, Stage.LIVE),
        blocks=True,
        reasons=(
            "EngineEnvironmentReady",
            "EngineEnvironmentMissing",
            "EngineEnvironmentOther",
            "EngineEnvironmentUnseen",
        ),
        ask=engine_environment,
    ),
    Check(
        name="engine_doors",
        condition=Condition.SECURITY,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("EngineDoorsShut", "EngineStartRefused"),
        ask=engine_doors,
    ),
)
