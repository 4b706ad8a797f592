"""What a queue's server of other people said when it was asked: is it there, does it let us in?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """`trouble` None: it answers, and lets us in; else a code that has words, with `detail` what was seen."""

    trouble: str | None = None
    detail: str | None = None
