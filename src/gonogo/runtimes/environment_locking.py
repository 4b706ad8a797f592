"""Makes the lock of an environment: asks uv which packages a release needs, and writes them down with their hashes.

Only wheels: nothing is compiled, so nothing of a package runs while it is locked.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from packaging.tags import Tag

from gonogo.checks.environment import judge_lock
from gonogo.facts.engine_build import EngineBuild, Matrix
from gonogo.facts.environment import HostLimits, PythonAtHand
from gonogo.facts.environment_lock import (
    LARGEST_BYTES,
    ChosenWheel,
    Lock,
    LockedPackage,
    LockUnreadable,
    parse_compiled,
    parse_environment_lock,
    parse_wheels,
    wheel_tags,
)
from gonogo.runtimes.package_sources import PackageSources
from gonogo.runtimes.uv import EnvironmentFault, Uv

LONGEST_RESOLVE_S = 900.0
PLATFORMS = ("2.17", "2.28", *(f"2.{minor}" for minor in range(31, 41)))
"""The C libraries that uv knows as platforms. Wheels are chosen for the newest that this host has."""
NEVER = "python_version < '0'"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockOrder:
    """What is to be locked. `requirements` are a recipe's; `overrides` go over what the packages themselves ask for."""

    build: EngineBuild
    python: PythonAtHand
    host: HostLimits
    requirements: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def make_lock(uv: Uv, order: LockOrder, sources: PackageSources, known: Matrix) -> Lock:
    """Resolve one release. Raises EnvironmentFault: why not, or a release in it that is refused."""
    build = order.build
    with tempfile.TemporaryDirectory(prefix="gonogo-lock-") as folder:
        wanted, over = Path(folder) / "wanted.in", Path(folder) / "overrides.in"
        named = (f"{build.package}=={build.version}", *build.beside, *order.requirements)
        wanted.write_text("\n".join(named) + "\n", encoding="utf-8")
        left_out = [f"{name}; {NEVER}" for name in build.left_out]
        over.write_text("\n".join((*order.overrides, *left_out)) + "\n", encoding="utf-8")
        words = [
            "pip", "compile", str(wanted), "--override", str(over), "--only-binary", ":all:", "--no-header",
            "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--python", order.python.path,
            "--python-platform", _platform(order.host), *sources.words(),
        ]  # fmt: skip
        if build.prereleases:
            words += ["--prerelease", "allow"]
        locked, measured = Path(folder) / "lock.txt", Path(folder) / "pylock.toml"
        uv.run([*words, "--generate-hashes", "-o", str(locked), "--quiet"], LONGEST_RESOLVE_S)
        uv.run([*words, "--format", "pylock.toml", "-o", str(measured), "--quiet"], LONGEST_RESOLVE_S)
        compiled = parse_compiled(locked.read_text(encoding="utf-8"))
        wheels = parse_wheels(measured.read_text(encoding="utf-8"))
    tags = wheel_tags(order.python.version, order.host.machine or "x86_64", _newest_platform(order.host))
    packages = tuple(_narrowed(one, wheels, tags) for one in compiled)
    lock = Lock(
        engine=build.engine,
        package=build.package,
        version=build.version,
        python=order.python.minor,
        machine=order.host.machine or "x86_64",
        glibc=_glibc(build, packages, wheels),
        packages=packages,
        overridden=order.overrides,
        left_out=build.left_out,
        ask=build.ask,
    )
    refuse_bad(lock, known)
    return lock


def read_lock(path: Path, known: Matrix) -> Lock:
    """A lock from a file, with the question that its engine is asked. Raises EnvironmentFault."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise LockUnreadable("too-large")
        lock = parse_environment_lock(content.decode("utf-8"))
        builds = known.builds.get(lock.engine)
        if builds is None:
            raise LockUnreadable(f"engine:{lock.engine}")
    except OSError as error:
        values = {"path": str(path), "words": error.strerror or str(error)}
        raise EnvironmentFault("LockUnreadable", values) from None
    except (LockUnreadable, UnicodeDecodeError) as error:
        words = error.words if isinstance(error, LockUnreadable) else "not-text"
        raise EnvironmentFault("LockUnreadable", {"path": str(path), "words": words}) from None
    asked = parse_environment_lock(content.decode("utf-8"), ask=builds[-1].ask)
    refuse_bad(asked, known)
    return asked


def refuse_bad(lock: Lock, known: Matrix) -> None:
    """Raises EnvironmentFault when a release in it must not be installed."""
    for finding in judge_lock(lock.as_packages(), known):
        raise EnvironmentFault(finding.reason, dict(finding.values))


def refuse_misfit(lock: Lock, host: HostLimits) -> None:
    """Raises EnvironmentFault when the lock is for another kind of machine, C library or Python."""
    misfit = lock.misfits(host)
    if misfit is not None:
        part, wanted, here = misfit
        raise EnvironmentFault("LockForeign", {"part": part, "wanted": wanted, "here": here, "engine": lock.engine})


def _narrowed(one: LockedPackage, wheels: Mapping[str, ChosenWheel], tags: Mapping[Tag, int]) -> LockedPackage:
    """Only the file that fits best here, where it is known which that is."""
    ranked = [(wheels[digest].rank(tags), digest) for digest in one.hashes if digest in wheels]
    fitting = sorted((rank, digest) for rank, digest in ranked if rank is not None)
    if not fitting:
        return one
    chosen = fitting[0][1]
    return LockedPackage(name=one.name, version=one.version, hashes=(chosen,), size_bytes=wheels[chosen].size_bytes)


def _glibc(build: EngineBuild, compiled: Sequence[LockedPackage], wheels: Mapping[str, ChosenWheel]) -> str:
    """The oldest C library that all chosen files run with."""
    digests = [digest for one in compiled for digest in one.hashes]
    asked = [wheels[digest].glibc or build.glibc for digest in digests if digest in wheels]
    return max([build.glibc, *asked], key=_pair)


def _newest_platform(host: HostLimits) -> str:
    return max((one for one in PLATFORMS if _pair(one) <= _pair(host.glibc or "2.28")), key=_pair, default="2.17")


def _platform(host: HostLimits) -> str:
    newest = _newest_platform(host)
    tag = "manylinux2014" if newest == "2.17" else f"manylinux_{newest.replace('.', '_')}"
    return f"{host.machine or 'x86_64'}-{tag}"


def _pair(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor.split(".")[0] or 0)


def companions_of(companions: Sequence[tuple[str, str]], build: EngineBuild) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A recipe's companions as requirements, and as overrides where the release's own packages may pin another.

    One for another CUDA than the release's (`nvidia-cudnn-cu12` beside CUDA 13) does not concern it.
    """
    requirements: list[str] = []
    overrides: list[str] = []
    for package, versions in companions:
        suffix = package.rpartition("-cu")[2]
        major = build.cuda.cuda.split(".", maxsplit=1)[0] if build.cuda is not None else ""
        if "-cu" in package and suffix.isdigit() and suffix != major:
            continue
        known = build.versions_of(package) is not None
        (requirements if known else overrides).append(f"{package}{versions}")
    return tuple(requirements), tuple(overrides)
