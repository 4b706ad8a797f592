"""`gonogo env check`: what is here against what is needed, and whether an environment is still what was installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

from gonogo.checks.environment import Wanted, blocks, judge
from gonogo.checks.finding import Finding, Verdict
from gonogo.cli.env_choice import Order, choice_for, refusal_of, wished
from gonogo.cli.env_page import plain_finding, print_findings
from gonogo.cli.refusal import BLOCKED, DONE, WRONG_INPUT, Outcome, Refusal
from gonogo.facts.matrix import matrix
from gonogo.runtimes.environment_host import look_at_limits
from gonogo.runtimes.environment_locking import read_lock
from gonogo.runtimes.environment_look import look_at_file, look_at_prefix
from gonogo.runtimes.uv import EnvironmentFault
from gonogo.spec.recipes import recipes
from gonogo.words import nearest

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.facts.environment import HostLimits
    from gonogo.runtimes.environments import EnvironmentStore, Made
    from gonogo.spec.recipe import Recipe

GUIDE = "guide"


def judge_given(session: Session, prefix: str | None, file: str | None, against: str | None) -> Outcome:
    """An environment that somebody else made, or a file that describes one. Raises Refusal, EnvironmentFault."""
    wanted = _wanted(against)
    host = look_at_limits()
    seen = look_at_prefix(Path(prefix).absolute()) if prefix is not None else look_at_file(Path(file or ""))
    findings = judge(seen, wanted, host, matrix())
    return _told(session, findings, {"source": seen.source, "python": seen.python, "packages": len(seen.packages)})


def check_here(session: Session, store: EnvironmentStore, order: Order) -> Outcome:
    """Which release each engine would get on this host, and how the environments that are here are."""
    host, target = look_at_limits(), order.target
    session.say("env.host", **_host_values(session, host))
    targets = [target] if target is not None else list(matrix().builds)
    plans = []
    for one in targets:
        wish, recipe = wished(one, order)
        plans.append(_plan(session, one, choice_for(wish, recipe, host), recipe))
    engine = wished(target, order)[0].engine if target is not None else None
    findings: list[Finding] = []
    for made in store.all() if engine is None else store.of_engine(engine):
        recipe = recipes().get(target) if target is not None else None
        findings += _judged(store, made, host, recipe)
    told = {"host": _plain_host(host), "engines": plans}
    fails = target is not None and plans[0]["version"] is None
    return _told(session, findings, told, fails)


def _plan(session: Session, target: str, choice: Any, recipe: Recipe | None) -> dict[str, Any]:
    """One engine on this host, told and as a plain object."""
    if choice.build is not None:
        python = choice.python.version if choice.python is not None else None
        values = {"target": target, "engine": choice.build.title, "version": choice.build.version, "python": python}
        session.line(session.told("env.would_be", **values))
        return {**values, "clash": None, "recipe": recipe.name if recipe is not None else None}
    refused = refusal_of(session, target, choice)
    words = refused.values.get("sides") or refused.values.get("unseen")
    session.line(session.told("env.would_not", target=target, words=words))
    if refused.values.get("mend"):
        session.line(f"    → {refused.values['mend']}")
    return {"target": target, "version": None, "reason": refused.reason, "clash": dict(refused.values)}


def _judged(store: EnvironmentStore, made: Made, host: HostLimits, recipe: Recipe | None) -> Sequence[Finding]:
    known = matrix()
    try:
        lock = read_lock(store.lock_path(made.lock), known)
    except EnvironmentFault as fault:
        values = {name: str(value) for name, value in fault.values.items()}
        return (Finding(reason=fault.reason, verdict=Verdict.UNKNOWN, subject=made.name, values=values),)
    return judge(look_at_prefix(made.path, against=lock), Wanted(recipe=recipe), host, known)


def _told(session: Session, findings: Sequence[Finding], more: dict[str, Any], fails: bool = False) -> Outcome:
    print_findings(session, findings)
    blocked = fails or any(blocks(one) for one in findings)
    result = {**more, "findings": [plain_finding(session, one) for one in findings], "blocked": blocked}
    return Outcome(exit_code=BLOCKED if blocked else DONE, result=result)


def _wanted(against: str | None) -> Wanted:
    if against is None:
        return Wanted()
    if against == GUIDE:
        return Wanted(guide=matrix().guide)
    recipe = recipes().get(against)
    if recipe is None:
        near = nearest(against, (GUIDE, *recipes()))
        values = {"asked": against, "nearest": ", ".join(near) or None, "known": [GUIDE, *recipes()]}
        raise Refusal("EngineNotInMatrix", WRONG_INPUT, values)
    return Wanted(recipe=recipe)


def _host_values(session: Session, host: HostLimits) -> dict[str, Any]:
    unknown = session.told("env.unknown")
    cards = unknown if host.accelerators is None else str(host.accelerators)
    return {
        "machine": host.machine or unknown,
        "glibc": host.glibc or unknown,
        "pythons": ", ".join(one.version for one in host.pythons) or "-",
        "cards": cards,
        "capabilities": ", ".join(host.capabilities or ()) or None,
        "driver": host.driver,
    }


def _plain_host(host: HostLimits) -> dict[str, Any]:
    return {
        "accelerators": host.accelerators,
        "driver": host.driver,
        "capabilities": list(host.capabilities) if host.capabilities is not None else None,
        "pythons": [one.version for one in host.pythons],
        "glibc": host.glibc,
        "machine": host.machine,
    }
