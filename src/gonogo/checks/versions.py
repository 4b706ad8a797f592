"""Are the versions on this host those that a profile wishes? One finding for each wish. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.checks.profile import nothing_wished
from gonogo.facts.host import HostFacts, Installed, Tools
from gonogo.facts.world import World
from gonogo.spec import Revision
from gonogo.spec.profile import OsWish, Profile, VersionRange, numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One thing with a version. `absent`: looked for, and not there; `problem`: why its version is not known."""

    version: str | None = None
    absent: bool = False
    problem: str | None = None


def versions_as_asked(profile: Profile, _: Revision, world: World) -> Iterator[Finding]:
    """Is each version inside its range? What is not there, or silent, is no version."""
    wishes = profile.software
    asked = [name for name in type(wishes).model_fields if getattr(wishes, name) is not None]
    if not asked:
        yield nothing_wished()
        return
    for name in asked:
        wish: OsWish | VersionRange = getattr(wishes, name)
        yield _os(wish, world.host) if isinstance(wish, OsWish) else _one(name, wish, seen_of(name, world.host))


def seen_of(name: str, host: HostFacts | None) -> Seen:
    """What was seen of one field of `SoftwareWishes`."""
    if host is None:
        return Seen()
    plain = {"kernel": host.kernel, "glibc": host.glibc, "python": host.python}
    if name in plain:
        return Seen(version=plain[name])
    if name in ("nvidia_driver", "cuda"):
        return _driver(name, host)
    return _tool(name, host.tools) if host.tools is not None else Seen()


def _driver(name: str, host: HostFacts) -> Seen:
    driver = host.driver
    if driver is None:
        return Seen(absent=host.accelerators == ())
    if driver.trouble == "no_tool":
        return Seen(absent=True)
    return Seen(version=driver.version if name == "nvidia_driver" else driver.cuda_version, problem=driver.words)


def _tool(name: str, tools: Tools) -> Seen:
    if name == "docker":
        engine = tools.container_engine
        if engine is None or engine.name != "docker":
            return Seen(absent=True)
        return Seen(version=engine.server_version, problem=engine.words)
    found: Installed | None = getattr(tools, name)
    return Seen(absent=True) if found is None else Seen(version=found.version, problem=found.error)


def _one(name: str, wish: VersionRange, seen: Seen) -> Finding:
    bounded = wish.min is not None or wish.max is not None
    values: dict[str, Value] = {
        "terms": name,
        "seen": seen.version,
        "wanted": str(wish) if bounded else None,
        "why": f"install_{name}",
    }
    if seen.absent:
        reason, verdict = "NotInstalled", Verdict.FAIL
    elif seen.version is None:
        reason, verdict = "VersionUnknown", Verdict.UNKNOWN
        values["error"] = seen.problem
    elif wish.holds(seen.version):
        reason, verdict = "VersionAsAsked", Verdict.PASS
    else:
        reason, verdict = "VersionNotAsAsked", Verdict.FAIL
    return Finding(reason=reason, verdict=verdict, subject=f"software/{name}", values=values)


def _os(wish: OsWish, host: HostFacts | None) -> Finding:
    seen = host.os_id if host is not None else None
    values: dict[str, Value] = {"terms": "os", "seen": None, "wanted": f"{wish.id} {wish.version}", "why": "install_os"}
    if seen is None:
        values["error"] = host.os_name if host is not None else None
        return Finding(reason="VersionUnknown", verdict=Verdict.UNKNOWN, subject="software/os", values=values)
    values["seen"] = " ".join(seen)
    same = seen[0] == wish.id and numbers(seen[1])[: len(numbers(wish.version))] == numbers(wish.version)
    return Finding(
        reason="VersionAsAsked" if same else "VersionNotAsAsked",
        verdict=Verdict.PASS if same else Verdict.FAIL,
        subject="software/os",
        values=values,
    )


def versions_check(profile: Profile) -> Check:
    """The check that asks this profile's wishes of the installed versions."""
    return Check(
        name="versions_as_asked",
        condition=Condition.SOFTWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("VersionAsAsked", "VersionNotAsAsked", "NotInstalled", "VersionUnknown"),
        ask=partial(versions_as_asked, profile),
    )
