"""What a probe through the front door saw. The judgement is a check's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Union

Value = Union[str, int, float, bool, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFacts:
    """One probe of one revision: its name, whether it could be asked at all (`error`), and what came back.

    `seen` holds the numbers and texts that the check of the same name reads; its keys are documented there.
    """

    name: str
    service: str
    revision: int
    at: float
    error: str | None = None
    seen: Mapping[str, Value] = field(default_factory=dict)
