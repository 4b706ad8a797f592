"""Reads what describes Python environments: requirements files, conda's files, the metadata of installed packages."""

from __future__ import annotations

import json
import re
from typing import Any, Iterable

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from gonogo.facts.environment import Environment, Package
from gonogo.facts.parse_programs import normalised

MOST_LINES = 20_000
CONDA_NAMES = {"pytorch": "torch", "nccl": "nvidia-nccl-cu12"}
"""Packages that conda calls by another name than the package index."""


class EnvironmentUnreadable(ValueError):
    """The text is not what it is read as. `line` counts from 1; None: the whole text."""

    def __init__(self, words: str, line: int | None = None) -> None:
        super().__init__(words)
        self.words, self.line = words, line


def parse_requirements(text: str, source: str) -> Environment:
    """A requirements file, a lock with hashes included. Raises EnvironmentUnreadable at a line that it cannot read."""
    packages = []
    for number, line in _logical_lines(text):
        package = _requirement(line, number)
        if package is not None:
            packages.append(package)
    return Environment(source=source, python=None, packages=tuple(packages))


def parse_conda_file(text: str, source: str) -> Environment:
    """An `environment.yml`: conda's own dependencies, and pip's below them. Raises EnvironmentUnreadable."""
    try:
        told = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise EnvironmentUnreadable("not YAML", mark.line + 1 if mark is not None else None) from None
    listed = told.get("dependencies") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise EnvironmentUnreadable("no list `dependencies`")
    packages: list[Package] = []
    for entry in listed[:MOST_LINES]:
        if isinstance(entry, str):
            packages.append(_conda_requirement(entry))
        elif isinstance(entry, dict) and isinstance(entry.get("pip"), list):
            found = (_requirement(str(line), None) for line in entry["pip"])
            packages += [package for package in found if package is not None]
    python = next((one for one in packages if one.name == "python"), None)
    left = tuple(one for one in packages if one.name != "python")
    return Environment(source=source, python=_version_of(python), packages=left, conda=True)


def parse_conda_meta(texts: Iterable[str]) -> tuple[Package, ...]:
    """The packages of a conda environment, from its `conda-meta/*.json`. What is no such record is left out."""
    found = (_conda_record(text) for text in texts)
    return tuple(one for one in found if one is not None)


def parse_metadata(text: str) -> Package | None:
    """The package of one `METADATA` file; None: it names none."""
    head = text.split("\n\n", 1)[0]
    named = dict(re.findall(r"^(Name|Version):[ \t]*(\S+)", head, re.MULTILINE))
    if "Name" not in named or "Version" not in named:
        return None
    return Package(name=normalised(named["Name"]), version=named["Version"])


def parse_record(text: str) -> tuple[tuple[str, str | None], ...]:
    """The files of a package and the hash that `RECORD` has for each (`sha256=…`, urlsafe base64; None: no hash)."""
    import csv

    rows = csv.reader(text.splitlines()[: MOST_LINES * 10])
    return tuple((row[0], row[1] if len(row) > 1 and row[1] else None) for row in rows if row)


def _logical_lines(text: str) -> Iterable[tuple[int, str]]:
    """Lines with their continuations, without comments and options."""
    gathered, began = "", 0
    for number, raw in enumerate(text.splitlines()[:MOST_LINES], start=1):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        began = began or number
        gathered += " " + line.removesuffix("\\").strip()
        if line.endswith("\\"):
            continue
        yield began, gathered.strip()
        gathered, began = "", 0
    if gathered:
        yield began, gathered.strip()


def _requirement(line: str, number: int | None) -> Package | None:
    words = re.split(r"\s+--hash[= ]", line.strip())[0].strip()
    if not words or words.startswith("-"):
        return None
    try:
        read = Requirement(words)
    except InvalidRequirement:
        raise EnvironmentUnreadable(words[:200], number) from None
    ranges = str(read.specifier)
    exact = re.fullmatch(r"={2,3}([^*,]+)", ranges)
    version = exact.group(1) if exact else None
    return Package(name=normalised(read.name), version=version, versions=ranges)


def _conda_requirement(entry: str) -> Package:
    """`numpy=1.26`, `conda-forge::pytorch>=2.0`, `python 3.10.*`: conda's `=` means "begins with"."""
    found = re.match(r"(?:[\w.-]+::)?([\w.-]+)\s*(.*)$", entry.strip())
    name, rest = (found.group(1), found.group(2).split(" ")[0]) if found else (entry, "")
    single = re.fullmatch(r"={0,2}([0-9][\w.]*?)(?:\.\*)?(?:=[\w.*]+)?", rest)
    ranges = f"=={single.group(1)}{'' if rest.startswith('==') else '.*'}" if single else rest
    try:
        ranges = str(SpecifierSet(ranges))
    except InvalidSpecifier:
        ranges = ""
    exact = re.fullmatch(r"==([^*]+)", ranges)
    named = CONDA_NAMES.get(name.lower(), normalised(name))
    return Package(name=named, version=exact.group(1) if exact else None, versions=ranges, origin="conda")


def _conda_record(text: str) -> Package | None:
    try:
        record: Any = json.loads(text)
        name, version = str(record["name"]), str(record["version"])
    except (ValueError, KeyError, TypeError):
        return None
    return Package(name=CONDA_NAMES.get(name, normalised(name)), version=version, origin="conda")


def _version_of(python: Package | None) -> str | None:
    if python is None:
        return None
    found = re.search(r"\d+\.\d+(\.\d+)?", python.version or python.versions)
    return found.group() if found else None
