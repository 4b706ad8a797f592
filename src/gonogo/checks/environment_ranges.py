"""Whether two ranges of versions have one in common, which decides whether two packages can stand side by side."""

from __future__ import annotations

import re
from typing import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import Version


def can_both_hold(first: str, second: str) -> bool:
    """Whether some version lies in both ranges: tried at every bound of either, just beside it, and far beyond."""
    both = SpecifierSet(f"{first},{second}" if first and second else first or second, prereleases=True)
    return any(both.contains(version) for version in _around(f"{first},{second}"))


def _around(ranges: str) -> Iterator[Version]:
    yield from (Version("0"), Version("99999"))
    for text in re.findall(r"\d[\w.+]*", ranges):
        base = Version(text.rstrip("."))
        yield base
        release = [*base.release, 0, 0][:3]
        yield Version(".".join(map(str, [*release, 1])))
        for place in range(3):
            after = [*release[: place + 1]]
            after[place] += 1
            yield Version(".".join(map(str, after)))
        yield Version(f"{base.base_version}.post1")
        before = _before(release)
        if before is not None:
            yield before


def _before(release: list[int]) -> Version | None:
    for place in (2, 1, 0):
        if release[place] > 0:
            less = [*release[:place], release[place] - 1, *[9999] * (2 - place)]
            return Version(".".join(map(str, less)))
    return None
