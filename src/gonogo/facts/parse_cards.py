"""Reads what the driver's own tool says in one line a card: the driver, and the card's compute capability."""

from __future__ import annotations

import re
from dataclasses import dataclass

COMMAND = ("nvidia-smi", "--query-gpu=driver_version,compute_cap", "--format=csv,noheader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """What the driver's own tool says: None where it said nothing that can be read."""

    driver: str | None
    capabilities: tuple[str, ...] | None
    count: int | None


def parse_cards(text: str) -> Cards:
    """`575.57.08, 8.9` a line. A tool too old to know a card's capability makes it not known, and the driver stays."""
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines() if line.strip()]
    if "No devices were found" in text:
        return Cards(driver=None, capabilities=(), count=0)
    drivers = [row[0] for row in rows if re.fullmatch(r"\d{3}\.\d+(\.\d+)?", row[0])]
    if not drivers:
        return Cards(driver=None, capabilities=None, count=None)
    capabilities = [row[1] for row in rows if len(row) > 1 and re.fullmatch(r"\d{1,2}\.\d", row[1])]
    whole = len(capabilities) == len(drivers)
    return Cards(driver=drivers[0], capabilities=tuple(capabilities) if whole else None, count=len(drivers))
