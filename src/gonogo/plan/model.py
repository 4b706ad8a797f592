"""Desired state as the store holds it, and the `Plan` made from it and one observation."""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.actions.model import Action
from gonogo.checks.finding import Answer
from gonogo.spec import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredService:
    """One service: `desired` is asked for, `serving` gets the traffic (None: nothing yet).

    `rejected` holds why `desired` will not serve (its reason code), None while it may. `removed`: to be taken down.
    `serving_since` (Unix seconds): when `serving` was promoted, or the removal asked for. `in_place_since`: when
    `desired` was asked for, where no two revisions have room side by side and downtime was allowed; None: side by side.
    """

    name: str
    desired: Revision
    serving: Revision | None
    rejected: str | None
    removed: bool
    serving_since: float | None = None
    in_place_since: float | None = None

    @property
    def leaving(self) -> Revision | None:
        """The serving revision while it makes room for the desired one: it gets no requests, drains and ends."""
        if self.in_place_since is None or self.removed or self.rejected is not None or self.serving == self.desired:
            return None
        return self.serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ordered actions made from `observation`. With `blocked` not empty there are no actions for that service."""

    observation: int
    actions: tuple[Action, ...]
    answers: tuple[Answer, ...]

    @property
    def blocked(self) -> tuple[Answer, ...]:
        return tuple(answer for answer in self.answers if answer.blocking)
