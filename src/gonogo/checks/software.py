"""Condition 2, software: the engine, the gateway, the locked environment, limits of the system. Pure."""

from __future__ import annotations

from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.engines.asked import LLAMACPP
from gonogo.facts.host import Installed
from gonogo.facts.world import World
from gonogo.spec import Revision

OPEN_FILES_NEEDED = 1024
ENGINE, GATEWAY = "engine", "gateway"
"""The names under which `HostFacts.installed` holds the two programs; other names are locked packages."""


def _installed(world: World, name: str) -> Installed | None:
    for item in (world.host.installed if world.host else None) or ():
        if item.name == name:
            return item
    return None


def engine_installed(revision: Revision, world: World) -> Iterator[Finding]:
    """Can the engine that came with gonogo be loaded, and which version is it?"""
    choice = revision.spec.engine
    if choice is not None and (choice.name != LLAMACPP or choice.environment is not None):
        why: dict[str, Value] = {"why": "engine_environment"}
        yield Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject="host/local", values=why)
        return
    found = _installed(world, ENGINE)
    if found is None:
        yield Finding(reason="EngineUnknown", verdict=Verdict.UNKNOWN, subject="host/local")
    elif found.version is None:
        values = {"engine": ENGINE, "error": found.error}
        yield Finding(reason="EngineBroken", verdict=Verdict.FAIL, subject="host/local", values=values)
    else:
        values = {"engine": ENGINE, "version": found.version}
        yield Finding(reason="EngineInstalled", verdict=Verdict.PASS, subject="host/local", values=values)


def gateway_installed(_: Revision, world: World) -> Iterator[Finding]:
    """Does the gateway's binary start and say its version?"""
    found = _installed(world, GATEWAY)
    if found is None:
        yield Finding(reason="GatewayUnknown", verdict=Verdict.UNKNOWN, subject="host/local")
    elif found.version is None:
        values = {"error": found.error}
        yield Finding(reason="GatewayBroken", verdict=Verdict.FAIL, subject="host/local", values=values)
    else:
        values = {"version": found.version}
        yield Finding(reason="GatewayInstalled", verdict=Verdict.PASS, subject="host/local", values=values)


def environment_locked(_: Revision, world: World) -> Iterator[Finding]:
    """Are the installed packages exactly those of the lock?"""
    packages = [item for item in (world.host.installed if world.host else None) or () if item.wanted is not None]
    if not packages:
        yield Finding(reason="EnvironmentUnknown", verdict=Verdict.UNKNOWN, subject="host/local")
        return
    drifted = [f"{item.name} {item.version or '–'} ≠ {item.wanted}" for item in packages if item.version != item.wanted]
    values: dict[str, Value] = {"checked": len(packages), "drifted": ", ".join(drifted)}
    yield Finding(
        reason="EnvironmentDrifted" if drifted else "EnvironmentLocked",
        verdict=Verdict.FAIL if drifted else Verdict.PASS,
        subject="host/local",
        values=values,
    )


def open_files(_: Revision, world: World) -> Iterator[Finding]:
    """May the gateway hold enough connections?"""
    limit = world.host.open_files_limit if world.host else None
    if limit is None:
        yield Finding(reason="OpenFilesUnknown", verdict=Verdict.UNKNOWN, subject="host/local")
        return
    enough = limit >= OPEN_FILES_NEEDED
    yield Finding(
        reason="OpenFilesEnough" if enough else "OpenFilesTooFew",
        verdict=Verdict.PASS if enough else Verdict.FAIL,
        subject="host/local",
        values={"limit": limit, "needed": OPEN_FILES_NEEDED},
    )


CHECKS = (
    Check(
        name="engine_installed",
        condition=Condition.SOFTWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("EngineInstalled", "EngineBroken", "EngineUnknown"),
        ask=engine_installed,
    ),
    Check(
        name="gateway_installed",
        condition=Condition.SOFTWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("GatewayInstalled", "GatewayBroken", "GatewayUnknown"),
        ask=gateway_installed,
    ),
    Check(
        name="environment_locked",
        condition=Condition.SOFTWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=False,
        reasons=("EnvironmentLocked", "EnvironmentDrifted", "EnvironmentUnknown"),
        ask=environment_locked,
    ),
    Check(
        name="open_files",
        condition=Condition.SOFTWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("OpenFilesEnough", "OpenFilesTooFew", "OpenFilesUnknown"),
        ask=open_files,
    ),
)
