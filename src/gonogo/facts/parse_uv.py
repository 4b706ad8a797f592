"""Reads what uv says when it cannot do what it was asked: a kind of failure, and the words that matter of it.

The kinds are reason codes with words. Cases of recorded outputs: `tests/cases/facts/uv`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping

LONGEST_WORDS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class UvFailure:
    """Why uv ended: a reason code, and its values."""

    reason: str
    values: Mapping[str, str]


# The first that matches wins; groups become values.
_KINDS = (
    ("DiskFull", r"No space left on device|os error 28|Disk quota exceeded|os error 122"),
    ("WheelHashWrong", r"Hash mismatch for `(?P<package>[^`]+)`"),
    ("WheelHashWrong", r"Hash-checking is enabled, but no hashes were [\w ]+ for: `?(?P<package>[^`\s]+)`?"),
    ("IndexRefused", r"lack of valid authentication credentials \((?P<status>\d+)"),
    ("IndexRefused", r"HTTP status client error \((?P<status>401|403|407)[^)]*\)"),
    (
        "IndexUnreachable",
        r"(?:error sending request|Connection refused|dns error|operation timed out|timed out|tcp connect error"
        r"|HTTP status server error|Failed to fetch|Network connectivity is disabled|invalid peer certificate"
        r"|connection closed|Connection reset|incomplete message|decoding response body|client error \(Connect\))",
    ),
    ("VersionNotThere", r"Because there is no version of (?P<package>[\w.-]+?)(?P<versions>==[^\s,]+)"),
    ("VersionNotThere", r"Because (?P<package>[\w.-]+) was not found in the (?:package registry|provided|cache)"),
    ("NoWheelHere", r"Because (?:only )?(?P<package>[\w.-]+?)(?P<versions>[=<>]\S+) has no (?:usable )?wheels?"),
    ("NoWheelHere", r"Because all versions of (?P<package>[\w.-]+) have no (?:usable )?wheels?"),
    ("NoWheelHere", r"the requested Python version \([^)]*\) does not satisfy Python(?P<python>\S+)"),
    ("PythonNotThere", r"No interpreter found|No virtual environment found|Python interpreter not found"),
    ("RequirementsClash", r"No solution found when resolving"),
)  # fmt: skip


def parse_uv_failure(text: str) -> UvFailure:
    """The kind of a failure from what uv printed. What is not known is `UvFailed`, with its last words."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    flat = re.sub(r"\s+", " ", re.sub(r"\{[^{}]*\}", "", plain))
    words = _shown(flat)
    for reason, pattern in _KINDS:
        found = re.search(pattern, flat)
        if found is None:
            continue
        values = {name: value for name, value in found.groupdict().items() if value}
        return UvFailure(reason=reason, values={**values, "words": words})
    return UvFailure(reason="UvFailed", values={"words": words or "-"})


def parse_uv_downloads(text: str) -> tuple[str, ...]:
    """The large files that are being fetched, from what uv said so far; it does not name small ones."""
    begun = re.findall(r"^ *Downloading ([\w.-]+) \(", text, re.MULTILINE)
    done = set(re.findall(r"^ *Downloaded ([\w.-]+)$", text, re.MULTILINE))
    return tuple(name for name in dict.fromkeys(begun) if name not in done)


def without_secrets(text: str) -> str:
    """The text with user names and passwords of addresses taken out."""
    return re.sub(r"(?<=://)[^/@\s]+@", "•••@", text)


def _shown(flat: str) -> str:
    """From the first complaint on, cut to a length that fits a line or three."""
    found = re.search(r"(?:error:|× )(.*?)(?: hint:|$)", flat)
    shown = (found.group(1) if found else flat).strip()
    return without_secrets(shown)[:LONGEST_WORDS]
