"""What the store gives back beside the nouns of the other packages. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from gonogo.checks.finding import Answer
from gonogo.security.chain import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who may change things. `epoch` is the fencing token: it grows by one with each holder."""

    epoch: int
    holder: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """An answer as it is known: given since `since` (observation `observation`), and until `until`.

    `until` None: it is the current one. `asked_at`: when its stage was last asked, within a minute.
    """

    service: str
    revision: int
    observation: int
    since: float
    until: float | None
    asked_at: float | None
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a revision does not serve: a reason code and what its words need."""

    reason: str
    detail: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAction:
    """An action that was started and neither finished nor failed: its process died, or is at it."""

    action: str
    service: str | None
    revision: int | None
    detail: Mapping[str, Json]
    epoch: int
    since: float
    sequence: int
