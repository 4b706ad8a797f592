"""Looks at what of this host limits environments: cards and their driver, Pythons, the C library, the system."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Iterator

from packaging.version import Version

from gonogo.facts.environment import HostLimits, PythonAtHand
from gonogo.runtimes.look_accelerators import AcceleratorsSeen, look_at_accelerators

LONGEST_LOOK_S = 15.0
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
MOST_PYTHONS = 32
PLACES = ("~/.local/share/uv/python/*/bin/python3", "~/.pyenv/versions/*/bin/python3", "~/.local/bin/python3.1?")
_SAYS = "import platform, sys; print('{}.{}.{}'.format(*sys.version_info[:3]), platform.python_implementation())"


def look_at_limits() -> HostLimits:
    """Everything at once; what could not be seen is None. Bounded: each question has a time limit."""
    seen = look_at_accelerators()
    return HostLimits(
        accelerators=len(seen.accelerators) if seen.accelerators is not None else None,
        driver=seen.driver.version if seen.driver is not None else None,
        capabilities=capabilities_of(seen),
        others=tuple(one.maker for one in seen.others or ()),
        pythons=look_at_pythons(),
        glibc=_glibc(),
        machine=platform.machine() or None,
        os_id=_os_id(),
        nvcc=_has_compiler(),
    )


def look_at_pythons() -> tuple[PythonAtHand, ...]:
    """CPythons that start, one of each version: on the path, beside ours, of uv, of pyenv. Newest first."""
    found: dict[str, PythonAtHand] = {}
    for path in list(_candidates())[:MOST_PYTHONS]:
        version = _version(path)
        if version is not None and version not in found:
            found[version] = PythonAtHand(version=version, path=path)
    return tuple(sorted(found.values(), key=lambda one: Version(one.version), reverse=True))


def _candidates() -> Iterator[str]:
    seen = set()
    own = getattr(sys, "_base_executable", sys.executable)
    places: list[str] = [own, *filter(None, (shutil.which(f"python{version}") for version in PYTHONS))]
    places += [str(found) for pattern in PLACES for found in _globbed(pattern)]
    for place in places:
        real = os.path.realpath(place)
        if real not in seen:
            seen.add(real)
            # pyenv's shims are one script under many names: the path as it was found says which version is meant
            yield place if "shims" in place else real


def _globbed(pattern: str) -> list[Path]:
    base = Path(os.path.expanduser("~"))
    return sorted(base.glob(pattern.removeprefix("~/")))


def _version(path: str) -> str | None:
    try:
        return _asked(path, os.stat(path).st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _asked(path: str, changed_ns: int) -> str | None:
    """`changed_ns` is only here to ask again when the interpreter was replaced."""
    del changed_ns
    said = _said((path, "-I", "-S", "-c", _SAYS))
    found = re.fullmatch(r"(3\.(?:9|1\d)\.\d+) CPython", (said or "").strip())
    return found.group(1) if found else None


def capabilities_of(seen: AcceleratorsSeen) -> tuple[str, ...] | None:
    """Of each NVIDIA card; None where one of them does not say it, and so cannot be judged."""
    found = [card.compute_capability for card in seen.accelerators or ()]
    if seen.accelerators is None or None in found:
        return None
    return tuple(one for one in found if one is not None)


def _said(command: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
            timeout=LONGEST_LOOK_S, check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:65_536].decode("utf-8", "replace") if done.returncode == 0 else None


def _glibc() -> str | None:
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return None
    found = re.fullmatch(r"glibc (\d+\.\d+)", told)
    return found.group(1) if found else None


def _os_id() -> tuple[str, str] | None:
    try:
        told = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    except OSError:
        return None
    return (told["ID"], told.get("VERSION_ID", "")) if "ID" in told else None


def _has_compiler() -> bool:
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return shutil.which("nvcc") is not None or os.path.exists(os.path.join(home, "bin", "nvcc"))
