"""What was seen of Python environments, and what a host sets limits with. `None`: not observed.

Not here: how it is looked for (`gonogo.runtimes.environment_look`) or judged (`gonogo.checks.environment`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonAtHand:
    """One interpreter of this host: its full version, and where it lies."""

    version: str
    path: str

    @property
    def minor(self) -> str:
        """`3.12` of 3.12.1."""
        return ".".join(self.version.split(".")[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """What a host can run. `accelerators` counts NVIDIA cards, 0 is none; `capabilities` has one entry a card.

    `others` names cards of other makers. `os_id` is like ("ubuntu", "22.04"). `nvcc`: whether a CUDA compiler is there.
    """

    accelerators: int | None = None
    driver: str | None = None
    capabilities: tuple[str, ...] | None = None
    others: tuple[str, ...] = ()
    pythons: tuple[PythonAtHand, ...] = ()
    glibc: str | None = None
    machine: str | None = None
    os_id: tuple[str, str] | None = None
    nvcc: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentMade:
    """One whole environment of an engine on this host. `answered`: the version that the engine itself gave.

    `lock` is the lock's content address, `python` the path of the interpreter in it. `made_at`, and `used_at` when it
    was last asked for or seen in use: Unix seconds.
    """

    name: str
    engine: str
    version: str
    answered: str
    lock: str
    python: str
    made_at: float | None = None
    used_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package of an environment, or one requirement of a file. `version` None: any, or a range (`versions`).

    `name` as the index compares names. `origin`: pip or conda.
    """

    name: str
    version: str | None
    versions: str = ""
    origin: str = "pip"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedFile:
    """Something that is not as it was installed. `how`: changed, missing, added (a package that the lock has not)."""

    package: str
    path: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupFile:
    """A file that Python reads at every start: `*.pth`, `sitecustomize.py`.

    `owner`: the package that brought it, None: nobody. `code`: its lines that run something.
    """

    name: str
    owner: str | None
    code: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One environment, or the file that describes one. `source` is its path; `python` None: it does not say.

    `startup_files` and `changed` are None where they were not looked at, like in a file that describes an environment.
    """

    source: str
    python: str | None
    packages: tuple[Package, ...]
    startup_files: tuple[StartupFile, ...] | None = None
    changed: tuple[ChangedFile, ...] | None = None
    conda: bool = False

    def package(self, name: str) -> Package | None:
        return next((one for one in self.packages if one.name == name), None)
