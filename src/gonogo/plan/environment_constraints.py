"""What limits the choice of a release: the wish, the recipe, the host's driver, cards, Pythons and C library. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from gonogo.checks.environment_ranges import can_both_hold
from gonogo.facts.engine_build import Accelerator, BadKind, EngineBuild, Matrix
from gonogo.facts.environment import HostLimits
from gonogo.plan.environment import Constraint, Mend, python_for
from gonogo.spec.recipe import Recipe
from gonogo.spec.recipe_parts import Companion, EngineNeeds

MACHINES = ("x86_64", "aarch64")
DRIVER_BRANCHES = (535, 550, 570, 580)
"""Branches that distributions package; a driver of another branch is had by the next one."""
DNF = ("rhel", "rocky", "almalinux", "centos", "fedora", "amzn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asks for: an engine, a range of its versions (empty: any), a Python like 3.12 (None: any)."""

    engine: str
    versions: str = ""
    python: str | None = None


def constraints(wish: Wish, recipe: Recipe | None, host: HostLimits, known: Matrix) -> tuple[Constraint, ...]:
    """Everything that a release of the wished engine must satisfy here, what is easiest to change first.

    Raises ValueError (InvalidSpecifier) when the wished versions are no range.
    """
    made = [*_of_wish(wish)]
    if recipe is not None and wish.engine in recipe.engines:
        made.append(_of_recipe(recipe.name, wish.engine, recipe.engines[wish.engine]))
    made += [*_of_host(host), _not_refused(known)]
    return tuple(made)


def _of_wish(wish: Wish) -> Iterator[Constraint]:
    if wish.versions:
        wanted = SpecifierSet(wish.versions, prereleases=True)
        yield Constraint(
            name="wish",
            allows=lambda build: wanted.contains(Version(build.version)),
            has=wish.versions,
            needs=lambda build: f"{build.package}=={build.version}",
            mend=lambda build: Mend(kind="wish", values={"version": build.version, "engine": build.engine}),
            price=1,
        )


def _of_recipe(name: str, engine: str, needs: EngineNeeds) -> Constraint:
    """All that a recipe asks of an engine, as one: its range, what is known to go wrong, what must stand beside it."""
    parts = [f"{engine}{needs.versions}"] if needs.versions is not None else []
    parts += [f"{companion.package}{companion.versions}" for companion in needs.companions]
    return Constraint(
        name="recipe",
        allows=lambda build: _recipe_refuses(needs, build) is None,
        has=f"{name}: {', '.join(parts) or engine}",
        needs=lambda build: _recipe_refuses(needs, build) or f"{build.package}=={build.version}",
    )


def _recipe_refuses(needs: EngineNeeds, build: EngineBuild) -> str | None:
    """What of a release the recipe does not allow, in its own terms; None: it allows it."""
    bad = needs.known_bad_at(build.counted_as)
    if bad is not None:
        return f"{build.package}=={build.version} ({bad.link})"
    if needs.supports(build.counted_as) is False:
        return f"{build.package}=={build.version}"
    for companion in needs.companions:
        if not _companion_fits(companion, build):
            return f"{companion.package}{build.versions_of(companion.package)}"
    return None


def _companion_fits(companion: Companion, build: EngineBuild) -> bool:
    beside = build.versions_of(companion.package)
    return beside is None or can_both_hold(companion.versions, beside)


def _of_host(host: HostLimits) -> Iterator[Constraint]:
    yield Constraint(
        name="python",
        allows=lambda build: python_for(build, host) is not None,
        has=", ".join(sorted({one.minor for one in host.pythons}, key=Version)) or "-",
        needs=lambda build: str(build.pythons),
        mend=lambda build: Mend(kind="python", values=_python_command(build, host)),
        price=2,
    )
    yield Constraint(
        name="accelerator",
        allows=lambda build: build.accelerator is not Accelerator.NVIDIA or _has_card(host),
        has=", ".join(host.others) or str(host.accelerators if host.accelerators is not None else "?"),
        needs=lambda build: build.accelerator.value,
        mend=lambda build: Mend(kind="accelerator", values={"engine": build.title}),
        price=9,
    )
    yield Constraint(
        name="driver",
        allows=lambda build: _driver_runs(build, host),
        has=host.driver or "?",
        needs=lambda build: f">={build.driver_least}" if build.driver_least else "-",
        mend=lambda build: Mend(kind="driver", values=_driver_command(build, host)),
        price=3,
    )
    yield Constraint(
        name="capability",
        allows=lambda build: _cards_run(build, host),
        has=", ".join(dict.fromkeys(host.capabilities or ("?",))),
        needs=_capabilities,
        mend=lambda build: Mend(kind="capability", values={"engine": build.title, "needs": _capabilities(build)}),
        price=9,
    )
    yield Constraint(
        name="glibc",
        allows=lambda build: None if host.glibc is None else Version(host.glibc) >= Version(build.glibc),
        has=host.glibc or "?",
        needs=lambda build: f">={build.glibc}",
        mend=lambda build: Mend(kind="glibc", values={"glibc": build.glibc}),
        price=7,
    )
    yield Constraint(
        name="machine",
        allows=lambda _: None if host.machine is None else host.machine in MACHINES,
        has=host.machine or "?",
        needs=lambda _: " | ".join(MACHINES),
    )


def _not_refused(known: Matrix) -> Constraint:
    def allows(build: EngineBuild) -> bool:
        bad = known.bad_release(build.package, build.version)
        return bad is None or bad.kind is BadKind.HOLES

    return Constraint(
        name="refused",
        allows=allows,
        has=", ".join(f"{bad.package}{bad.versions}" for bad in known.bad if bad.kind is not BadKind.HOLES),
        needs=lambda build: f"{build.package}=={build.version}",
    )


def _has_card(host: HostLimits) -> bool | None:
    return None if host.accelerators is None else host.accelerators > 0


def _driver_runs(build: EngineBuild, host: HostLimits) -> bool | None:
    if build.driver_least is None or host.accelerators == 0:
        return True  # no card at all is another constraint's to say
    return None if host.driver is None else Version(host.driver) >= Version(build.driver_least)


def _cards_run(build: EngineBuild, host: HostLimits) -> bool | None:
    if build.capability_least is None:
        return True
    if host.capabilities is None:
        return None
    return all(build.runs_on(one) for one in host.capabilities)


def _capabilities(build: EngineBuild) -> str:
    if build.capability_least is None or build.torch is None:
        return "-"
    least = Version(build.capability_least)
    held = [one for one in build.torch.capabilities if Version(one) >= least]
    return ", ".join(held) + ("+" if build.torch.ptx else "")


def _python_command(build: EngineBuild, host: HostLimits) -> dict[str, str]:
    liked = build.python_liked if build.pythons.contains(f"{build.python_liked}.0") else "3.12"
    command = f"uv python install {liked}"
    if host.os_id is not None and host.os_id[0] in DNF:
        command = f"sudo dnf install python{liked}"
    return {"python": str(build.pythons), "command": command}


def _driver_command(build: EngineBuild, host: HostLimits) -> dict[str, str]:
    """A driver that is new enough, by the package manager of this system; empty where that is not known."""
    least = build.driver_least or "0"
    branch = next((one for one in DRIVER_BRANCHES if one >= Version(least).major), DRIVER_BRANCHES[-1])
    system = host.os_id[0] if host.os_id is not None else ""
    command = ""
    if system == "ubuntu":
        command = f"sudo apt-get install nvidia-driver-{branch}-server"
    elif system in DNF:
        command = f"sudo dnf module install nvidia-driver:{branch}-dkms"
    cuda = build.cuda.cuda if build.cuda is not None else ""
    return {"driver": least, "cuda": cuda, "command": command, "compat": f"cuda-compat-{cuda.replace('.', '-')}"}
