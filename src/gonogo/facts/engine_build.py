"""What is known of builds of engines: what each needs of a host and of the packages beside it, with its source.

The rows themselves are data (`gonogo.facts.matrix`). Not here: which one is chosen (`gonogo.plan.environment`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from packaging.specifiers import SpecifierSet
from packaging.version import Version


class Accelerator(str, Enum):
    """What a build computes on."""

    NVIDIA = "nvidia"
    NONE = "none"


class BadKind(str, Enum):
    """Why a release is on the list. Poisoned and broken ones are refused, known holes are advised."""

    POISONED = "poisoned"
    HOLES = "holes"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaRelease:
    """One CUDA release: the driver that came with it, and the oldest that starts builds of its major version."""

    cuda: str
    driver: str
    family_driver: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchBuild:
    """PyTorch as the package index gives it. `capabilities` it has code for; `ptx`: newer ones run too."""

    torch: str
    cuda: str | None
    nccl: str | None
    python: str
    capabilities: tuple[str, ...]
    ptx: bool
    source: str

    def runs_on(self, capability: str) -> bool:
        """Whether it has code for a card: compiled for the same major version, or PTX of an older one."""
        major, minor = _pair(capability)
        pairs = [_pair(one) for one in self.capabilities]
        if any(one == major and other <= minor for one, other in pairs):
            return True
        return self.ptx and bool(pairs) and max(pairs) < (major, minor)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBuild:
    """One release of an engine (or of an agent). `counted_as`: the version that recipes count by (llama.cpp builds).

    `beside` are further requirements of the environment, `left_out` packages that are kept out of it.
    `capability_least` and all of CUDA are None where it computes on the processor. `disk_mb`: measured, None where not.
    """

    engine: str
    title: str
    package: str
    version: str
    counted_as: str
    accelerator: Accelerator
    agent: bool
    python: str
    python_liked: str
    torch: TorchBuild | None
    cuda: CudaRelease | None
    needs_whole_driver: bool
    capability_least: str | None
    transformers: str | None
    openai: str | None
    glibc: str
    ask: str
    prereleases: bool
    beside: tuple[str, ...]
    left_out: tuple[str, ...]
    disk_mb: int | None
    source: str

    @property
    def pythons(self) -> SpecifierSet:
        """The Pythons that both the engine and its torch have."""
        wanted = SpecifierSet(self.python)
        return wanted & SpecifierSet(self.torch.python) if self.torch is not None else wanted

    @property
    def driver_least(self) -> str | None:
        """The oldest NVIDIA driver that runs it; None: it needs none."""
        if self.cuda is None:
            return None
        return self.cuda.driver if self.needs_whole_driver else self.cuda.family_driver

    def runs_on(self, capability: str) -> bool:
        """Whether engine and torch both have code for this card. A build for the processor runs beside any card."""
        if self.capability_least is None or self.torch is None:
            return True
        return _pair(capability) >= _pair(self.capability_least) and self.torch.runs_on(capability)

    def versions_of(self, package: str) -> str | None:
        """The range that this build allows of a package beside it; None: not described."""
        if package == "torch" and self.torch is not None:
            return f"=={self.torch.torch}"
        return {"transformers": self.transformers, "openai": self.openai, self.package: f"=={self.version}"}.get(
            package
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRelease:
    """Releases of one package that are refused or advised against, by language what is wrong, and what is clean."""

    package: str
    versions: str
    kind: BadKind
    what: dict[str, str]
    clean: str
    link: str

    def holds(self, version: Version) -> bool:
        return SpecifierSet(self.versions, prereleases=True).contains(version)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuideSet:
    """The guide's software set: ranges by package, of CUDA and NCCL, and models that its releases do not know."""

    python: str
    packages: dict[str, str]
    cuda: str
    nccl: str
    models_not_known: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Everything that is known of versions. `builds` by engine, oldest first."""

    builds: dict[str, tuple[EngineBuild, ...]]
    torch: dict[str, TorchBuild]
    cuda: dict[str, CudaRelease]
    bad: tuple[BadRelease, ...]
    guide: GuideSet

    def bad_release(self, package: str, version: str) -> BadRelease | None:
        """The worst entry that this release falls under; None: none that is known."""
        found = [one for one in self.bad if one.package == package and one.holds(Version(version))]
        return min(found, key=lambda one: list(BadKind).index(one.kind), default=None)


def _pair(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)
