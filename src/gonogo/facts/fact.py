"""`Fact`: how to look at one thing and how to read what came back. It never looks: that is `gonogo.runtimes.look`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Generic, TypeVar

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact(Generic[Seen]):
    """One thing to see: a command to run or a file to read, and the pure reader of its text.

    `parse` never raises: it gives None for what it cannot read, since that was not observed.
    """

    name: str
    parse: Callable[[str], Seen]
    command: tuple[str, ...] = ()
    path: str | None = None
    timeout_s: float = 5.0
