"""How the report writes sizes, times and counts. Pure; None is "not observed" and becomes a dash."""

from __future__ import annotations

from datetime import datetime, timezone

MIB, GIB = 1024**2, 1024**3
NOTHING = "–"


def size(size_bytes: float | None) -> str:
    """Bytes as MiB below 10 GiB, GiB above."""
    if size_bytes is None:
        return NOTHING
    if size_bytes >= 10 * GIB:
        return f"{size_bytes / GIB:,.1f} GiB"
    return f"{size_bytes / MIB:,.1f} MiB"


def moment(at: float | None) -> str:
    """Unix seconds as UTC, to the second."""
    if at is None:
        return NOTHING
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(at: float | None) -> str:
    """The time of day in UTC, to the second."""
    return NOTHING if at is None else datetime.fromtimestamp(at, timezone.utc).strftime("%m-%d %H:%M:%S")


def count(number: float | None) -> str:
    """1234567 → 1,234,567."""
    return NOTHING if number is None else f"{number:,}"


def magnitude(number: float | None) -> str:
    """134515008 → 134.5 M."""
    if number is None:
        return NOTHING
    for limit, sign in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= limit:
            return f"{number / limit:,.1f} {sign}"
    return f"{number:,}"


def seconds(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.1f} s"


def percent(part: float, whole: float) -> float:
    """0 to 100, one decimal; 0 when there is no whole."""
    return round(100 * part / whole, 1) if whole > 0 else 0.0
