"""Looks at an environment that is there: its packages, what Python runs at its start, what changed since then.

Reads files and runs nothing of it. A file that describes an environment is read here too.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from typing import Iterator

from gonogo.facts.environment import ChangedFile, Environment, Package, StartupFile
from gonogo.facts.environment_lock import Lock
from gonogo.facts.parse_environment import (
    EnvironmentUnreadable,
    parse_conda_file,
    parse_conda_meta,
    parse_metadata,
    parse_record,
    parse_requirements,
)
from gonogo.runtimes.uv import EnvironmentFault

LARGEST_TEXT_BYTES, LARGEST_RECORD_BYTES = 4_000_000, 64_000_000
MOST_PACKAGES = 5_000
PIECE_BYTES = 1 << 20
IN_PLACE_OF_PACKAGES = ("sitecustomize.py", "usercustomize.py")


def look_at_file(path: Path) -> Environment:
    """An `environment.yml`, or a requirements file. Raises EnvironmentFault."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_TEXT_BYTES).decode("utf-8")
    except OSError as error:
        raise EnvironmentFault("EnvironmentNotRead", {"path": str(path), "words": error.strerror or ""}) from None
    except UnicodeDecodeError:
        raise EnvironmentFault("EnvironmentNotRead", {"path": str(path), "words": "UTF-8"}) from None
    parse = parse_conda_file if path.suffix in (".yml", ".yaml") else parse_requirements
    try:
        return parse(text, str(path))
    except EnvironmentUnreadable as error:
        place = f"{path}:{error.line}" if error.line is not None else str(path)
        raise EnvironmentFault("EnvironmentNotRead", {"path": place, "words": error.words}) from None


def look_at_prefix(prefix: Path, against: Lock | None = None, files: bool = True) -> Environment:
    """A virtual environment or conda's, by its folder. `files`: compare each with the hash of its installation.

    With a lock, packages that are not as it says count as changed too. Raises EnvironmentFault: no environment.
    """
    folders = _package_folders(prefix)
    if not folders and not (prefix / "conda-meta").is_dir():
        raise EnvironmentFault("EnvironmentNotRead", {"path": str(prefix), "words": "lib/python3.*/site-packages"})
    conda = parse_conda_meta(_conda_texts(prefix))
    packages: dict[str, Package] = {one.name: one for one in conda}
    changed: list[ChangedFile] = []
    owners: dict[str, str] = {}
    for folder in folders:
        for info in _dist_infos(folder):
            package = parse_metadata(_text(info / "METADATA", LARGEST_TEXT_BYTES))
            if package is None:
                continue
            packages[package.name] = package
            for path, digest in parse_record(_text(info / "RECORD", LARGEST_RECORD_BYTES)):
                owners[os.path.normpath(folder / path)] = package.name
                if files:
                    changed += _compared(folder, package.name, path, digest)
    if against is not None:
        changed += _against(against, packages)
    return Environment(
        source=str(prefix),
        python=_python_of(prefix, conda),
        packages=tuple(sorted((one for one in packages.values() if one.name != "python"), key=lambda one: one.name)),
        startup_files=tuple(one for folder in folders for one in _startup_files(folder, owners)),
        changed=tuple(changed) if files else None,
        conda=bool(conda),
    )


def _package_folders(prefix: Path) -> list[Path]:
    return sorted(found for found in prefix.glob("lib/python3.*/site-packages") if found.is_dir())


def _dist_infos(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.dist-info"))[:MOST_PACKAGES]


def _conda_texts(prefix: Path) -> Iterator[str]:
    for file in sorted(prefix.glob("conda-meta/*.json"))[:MOST_PACKAGES]:
        yield _text(file, LARGEST_TEXT_BYTES)


def _text(path: Path, largest_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            return file.read(largest_bytes).decode("utf-8", "replace")
    except OSError:
        return ""


def _compared(folder: Path, package: str, path: str, digest: str | None) -> Iterator[ChangedFile]:
    """Whether one file is still the one that was installed. Compiled Python is made anew and does not count."""
    algorithm, _, wanted = (digest or "").partition("=")
    if algorithm != "sha256" or path.endswith(".pyc"):
        return
    try:
        found = _digest(folder / path)
    except OSError:
        yield ChangedFile(package=package, path=path, how="missing")
        return
    if found != wanted:
        yield ChangedFile(package=package, path=path, how="changed")


def _digest(path: Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            hashed.update(piece)
    return base64.urlsafe_b64encode(hashed.digest()).rstrip(b"=").decode()


def _against(lock: Lock, packages: dict[str, Package]) -> Iterator[ChangedFile]:
    locked = {one.name: one.version for one in lock.packages}
    for name, version in locked.items():
        found = packages.get(name)
        if found is None:
            yield ChangedFile(package=name, path=f"{name}=={version}", how="missing")
        elif found.version != version:
            yield ChangedFile(package=name, path=f"{name}=={found.version} ≠ {version}", how="changed")
    for name in sorted(packages.keys() - locked.keys()):
        yield ChangedFile(package=name, path=f"{name}=={packages[name].version}", how="added")


def _startup_files(folder: Path, owners: dict[str, str]) -> Iterator[StartupFile]:
    named = [*sorted(folder.glob("*.pth")), *(folder / name for name in IN_PLACE_OF_PACKAGES)]
    for file in named:
        if not file.is_file():
            continue
        lines = _text(file, LARGEST_TEXT_BYTES).splitlines()
        code = [line.strip() for line in lines if file.suffix == ".py" or re.match(r"import[ \t]", line)]
        yield StartupFile(name=file.name, owner=owners.get(os.path.normpath(file)), code=tuple(filter(None, code)))


def _python_of(prefix: Path, conda: tuple[Package, ...]) -> str | None:
    python = next((one.version for one in conda if one.name == "python"), None)
    if python is not None:
        return python
    told = _text(prefix / "pyvenv.cfg", LARGEST_TEXT_BYTES)
    found = re.search(r"^(?:version|version_info) *= *(\d+\.\d+\.\d+)", told, re.MULTILINE)
    if found is not None:
        return found.group(1)
    folders = _package_folders(prefix)
    return f"{folders[-1].parent.name.removeprefix('python')}.0" if folders else None
