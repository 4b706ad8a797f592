"""Reads what programs say of their version, and the versions that a lock file pins."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_ERROR = 300
_PIN = r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)[ \t]*;?[ \t]*([^\\\n#]*)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One line of a lock: this version of this package, where the environment marker holds (None: everywhere)."""

    name: str
    version: str
    marker: str | None


def parse_envoy_version(text: str) -> str | None:
    """`1.40.0` of `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`."""
    found = re.search(r"version: [0-9a-f]+/([0-9][\w.+-]*)/", text)
    return found.group(1) if found else None


def parse_version_line(text: str) -> str | None:
    """The version that stands alone on the last line."""
    lines = text.strip().splitlines()
    found = re.fullmatch(r"\d+(\.[\w+]+)*", lines[-1].strip()) if lines else None
    return found.group() if found else None


def parse_lock(text: str) -> tuple[Pin, ...]:
    """The pins of a requirements lock; a package may have several, for different Pythons."""
    return tuple(
        Pin(name=normalised(name), version=version, marker=marker.strip() or None)
        for name, version, marker in re.findall(_PIN, text, re.MULTILINE)
    )


def normalised(name: str) -> str:
    """A package name as the index compares it: lower case, runs of `-_.` as one `-`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def last_words(text: str) -> str:
    """The last line of a failed program's output, cut to a length that fits a report."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-LONGEST_ERROR:] if lines else "it printed nothing"
