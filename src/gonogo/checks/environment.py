"""Judges Python environments: the one of an engine, one that somebody else made, or a file that only describes one.

Pure: an environment and what is known of versions, to findings. Not here: which release is chosen
(`gonogo.plan.environment`), and the checks of a deployment (`software.py`), which ask about gonogo's own environment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterator, Sequence

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from gonogo.checks.environment_ranges import can_both_hold
from gonogo.checks.finding import Finding, Value, Verdict
from gonogo.facts.engine_build import BadKind, EngineBuild, GuideSet, Matrix, TorchBuild
from gonogo.facts.environment import Environment, HostLimits, Package, StartupFile
from gonogo.spec.recipe import Recipe

STARTUP_FILES_KNOWN = {
    "distutils-precedence.pth": "setuptools",
    "a1_coverage.pth": "coverage",
    "_virtualenv.pth": "virtualenv",
    "nvidia_cutlass_dsl.pth": "nvidia-cutlass-dsl",
    "_numba_cuda_redirector.pth": "numba-cuda",
}
"""Files that run code at every start and are known, by the package that brings them."""
OF_UV = ("_virtualenv.pth", ("import _virtualenv",))
"""The one that uv and virtualenv put into an environment themselves: its name and all of its code."""
ADVISES = ("PackageHasHoles", "CudaCompilerMissing", "NcclUnused")
"""Reasons that are told and stop nothing."""
MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an environment is judged by besides what is always wrong: the guide's set, or a recipe."""

    guide: GuideSet | None = None
    recipe: Recipe | None = None


def judge(environment: Environment, wanted: Wanted, host: HostLimits, known: Matrix) -> tuple[Finding, ...]:
    """Everything that is wrong with it, worst first; one finding that says so where nothing is."""
    found = [
        *_bad_releases(environment, known),
        *_startup_files(environment),
        *_changed(environment),
        *_between_packages(environment, known),
        *_torch_on_host(environment, host, known),
        *(_by_guide(environment, wanted.guide, known) if wanted.guide is not None else ()),
        *(_by_recipe(environment, wanted.recipe) if wanted.recipe is not None else ()),
    ]
    order = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS)
    found = [replace(one, subject=environment.source) for one in found]
    if not any(blocks(one) for one in found):
        values: dict[str, Value] = {"packages": len(environment.packages)}
        found.append(
            Finding(reason="EnvironmentSound", verdict=Verdict.PASS, subject=environment.source, values=values)
        )
    return tuple(sorted(found, key=lambda one: order.index(one.verdict)))


def blocks(finding: Finding) -> bool:
    """Whether an environment with this finding must not be used: failed or not known, and no mere advice."""
    return finding.verdict in (Verdict.FAIL, Verdict.UNKNOWN) and finding.reason not in ADVISES


def judge_lock(packages: Sequence[Package], known: Matrix) -> tuple[Finding, ...]:
    """What forbids installing a lock: poisoned releases and ones that never existed. Nothing: ()."""
    lock = Environment(source="lock", python=None, packages=tuple(packages))
    return tuple(one for one in _bad_releases(lock, known) if one.reason in ("PackagePoisoned", "ReleaseNotThere"))


def _bad_releases(environment: Environment, known: Matrix) -> Iterator[Finding]:
    for package in environment.packages:
        version = _version(package)
        bad = known.bad_release(package.name, str(version)) if version is not None else None
        if bad is None:
            continue
        values: dict[str, Value] = {"package": package.name, "version": package.version, "clean": bad.clean}
        values |= {"what_en": bad.what["en"], "what_zh": bad.what["zh"], "link": bad.link}
        reason = {
            BadKind.POISONED: "PackagePoisoned",
            BadKind.HOLES: "PackageHasHoles",
            BadKind.BROKEN: "ReleaseNotThere",
        }[bad.kind]
        yield _finding(reason, values)


def _startup_files(environment: Environment) -> Iterator[Finding]:
    unknown = [one.name for one in environment.startup_files or () if not _startup_file_known(one)]
    if unknown:
        yield _finding("StartupFileUnknown", {"files": ", ".join(unknown[:MOST_NAMED]), "count": len(unknown)})


def _startup_file_known(one: StartupFile) -> bool:
    if (one.name, one.code) == OF_UV:
        return True
    if one.owner is None:
        return False
    return not one.code or STARTUP_FILES_KNOWN.get(one.name) == one.owner


def _changed(environment: Environment) -> Iterator[Finding]:
    changed = environment.changed or ()
    if changed:
        shown = ", ".join(f"{one.path} ({one.how})" for one in changed[:MOST_NAMED])
        packages = ", ".join(sorted({one.package for one in changed})[:MOST_NAMED])
        yield _finding("EnvironmentChanged", {"count": len(changed), "files": shown, "packages": packages})


def _between_packages(environment: Environment, known: Matrix) -> Iterator[Finding]:
    """Engines and agents in it, against the packages beside them and against one another."""
    held = [(one, build) for one in environment.packages for build in _builds_of(one, known)]
    for package, build in held:
        if environment.python is not None and not build.pythons.contains(environment.python):
            wants = f"Python {build.pythons}"
            yield _clash(f"{package.name} {build.version}", wants, f"Python {environment.python}")
        for name in ("torch", "transformers", "openai"):
            beside, needs = environment.package(name), build.versions_of(name)
            if beside is None or needs is None or beside.name == package.name or _holds(needs, beside):
                continue
            yield _clash(f"{package.name} {build.version}", f"{name}{needs}", _shown(beside))
    for index, (first, build) in enumerate(held):
        for second, other in held[index + 1 :]:
            if first.name == second.name or environment.package("openai") is not None:
                continue
            if build.openai is not None and other.openai is not None and not can_both_hold(build.openai, other.openai):
                wants = f"openai{build.openai}"
                yield _clash(f"{first.name} {build.version}", wants, f"{second.name}: openai{other.openai}")
    yield from _nccl_beside_torch(environment, known)


def _nccl_beside_torch(environment: Environment, known: Matrix) -> Iterator[Finding]:
    torch = _torch_of(environment, known)
    if torch is None or torch.nccl is None or torch.cuda is None:
        return
    major = torch.cuda.split(".", maxsplit=1)[0]
    for package in environment.packages:
        if not package.name.startswith("nvidia-nccl-cu"):
            continue
        if package.name != f"nvidia-nccl-cu{major}" or not _holds(f"=={torch.nccl}", package):
            values: dict[str, Value] = {"torch": torch.torch, "cuda": torch.cuda, "nccl": torch.nccl}
            yield _finding("NcclUnused", {**values, "package": _shown(package)})


def _torch_on_host(environment: Environment, host: HostLimits, known: Matrix) -> Iterator[Finding]:
    torch = _torch_of(environment, known)
    if torch is None or torch.cuda is None or not host.accelerators:
        return
    release = known.cuda[torch.cuda]
    values: dict[str, Value] = {"torch": torch.torch, "cuda": torch.cuda}
    if host.driver is None:
        yield _finding("DriverNotSeen", {**values, "needed": release.family_driver}, Verdict.UNKNOWN)
    elif Version(host.driver) < Version(release.family_driver):
        yield _finding("DriverTooOld", {**values, "driver": host.driver, "needed": release.family_driver})
    for capability in sorted({one for one in host.capabilities or () if not torch.runs_on(one)}):
        held = ", ".join(torch.capabilities)
        yield _finding("NoKernelsForCard", {**values, "capability": capability, "held": held})
    if host.nvcc is False and environment.package("flashinfer-python") is not None:
        yield _finding("CudaCompilerMissing", {"cuda": torch.cuda, "package": "flashinfer-python"})


def _by_guide(environment: Environment, guide: GuideSet, known: Matrix) -> Iterator[Finding]:
    for name, needs in guide.packages.items():
        package = environment.package(name)
        if package is None:
            yield _finding("PackageNotThere", {"package": name, "needed": needs, "by": "guide"})
        elif not _holds(needs, package):
            yield _finding("PackageOutsideRange", {"package": _shown(package), "needed": needs, "by": "guide"})
    torch = _torch_of(environment, known)
    if torch is not None and torch.cuda is not None and Version(torch.cuda) not in SpecifierSet(guide.cuda):
        yield _finding("CudaIsTorchs", {"torch": torch.torch, "cuda": torch.cuda, "needed": guide.cuda})
    if torch is not None and torch.nccl is not None and Version(torch.nccl) not in SpecifierSet(guide.nccl):
        yield _finding("NcclIsTorchs", {"torch": torch.torch, "nccl": torch.nccl, "needed": guide.nccl})
    for name, too_old in guide.models_not_known.items():
        package = environment.package(name)
        version = _version(package) if package is not None else None
        if version is not None and version in SpecifierSet(too_old):
            yield _finding("ModelsNotKnown", {"package": name, "version": str(version), "first": too_old.lstrip("<")})


def _by_recipe(environment: Environment, recipe: Recipe) -> Iterator[Finding]:
    held = [
        (engine, package) for engine in recipe.engines for package in environment.packages if package.name == engine
    ]
    if not held:
        engines = ", ".join(recipe.engines) or recipe.engine
        yield _finding("PackageNotThere", {"package": engines, "needed": "", "by": recipe.name})
    for engine, package in held:
        needs = recipe.engines[engine]
        bad = needs.known_bad_at(package.version) if package.version is not None else None
        if bad is not None:
            values: dict[str, Value] = {"package": _shown(package), "recipe": recipe.name, "link": bad.link}
            yield _finding("EngineKnownBad", {**values, "what_en": bad.symptom.en, "what_zh": bad.symptom.zh})
        elif needs.versions is not None and not _holds(needs.versions, package):
            values = {"package": _shown(package), "needed": needs.versions, "by": recipe.name}
            yield _finding("PackageOutsideRange", values)
        for companion in needs.companions:
            beside = environment.package(companion.package)
            if beside is not None and not _holds(companion.versions, beside):
                values = {"package": _shown(beside), "needed": companion.versions, "by": recipe.name}
                yield _finding("PackageOutsideRange", values)


def _builds_of(package: Package, known: Matrix) -> Iterator[EngineBuild]:
    """The row for a package: its own release, else the newest older one; for a range the newest that it holds."""
    for builds in known.builds.values():
        if builds[0].package != package.name:
            continue
        version = _version(package)
        if version is not None:
            older = [build for build in builds if Version(build.version) <= version]
        else:
            older = [build for build in builds if SpecifierSet(package.versions).contains(build.version)]
        if older:
            yield replace(older[-1], version=package.version or older[-1].version)


def _torch_of(environment: Environment, known: Matrix) -> TorchBuild | None:
    package = environment.package("torch")
    if package is None:
        return None
    version = _version(package)
    if version is not None and str(version) in known.torch:
        return known.torch[str(version)]
    if version is not None:
        return next((row for row in known.torch.values() if Version(row.torch).release == version.release), None)
    fitting = [row for row in known.torch.values() if SpecifierSet(package.versions).contains(row.torch)]
    return max(fitting, key=lambda row: Version(row.torch), default=None) if package.versions else None


def _holds(needs: str, package: Package) -> bool:
    """Whether a package is, or by its range can be, a version that is needed."""
    version = _version(package)
    if version is not None:
        return SpecifierSet(needs, prereleases=True).contains(version)
    return can_both_hold(needs, package.versions)


def _version(package: Package) -> Version | None:
    try:
        return Version(package.version) if package.version is not None else None
    except InvalidVersion:
        return None


def _shown(package: Package) -> str:
    if package.version is not None:
        return f"{package.name} {package.version}"
    return f"{package.name}{package.versions}"


def _clash(who: str, needs: str, beside: str) -> Finding:
    return _finding("PackagesClash", {"who": who, "needs": needs, "beside": beside})


def _finding(reason: str, values: dict[str, Value], verdict: Verdict = Verdict.FAIL) -> Finding:
    return Finding(reason=reason, verdict=verdict, subject="", values=values)
