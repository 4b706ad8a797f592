"""Which environments of engines nobody needs any more. Pure.

Kept are those of the revisions that serve, are asked for, or served just before (the way back), the newest of each
engine, agents' own, and what was made or used within the last seven days: somebody may be about to use it.
"""

from __future__ import annotations

from typing import Mapping, Sequence

from gonogo.facts.environment import EnvironmentMade
from gonogo.plan.model import DesiredService
from gonogo.spec import Revision

KEPT_S = 7 * 86_400.0
Uses = Mapping[str, tuple[str, ...]]
"""Environment → the revisions that name it, each with its part: `svc/3 serving`."""


def uses_of(services: Sequence[DesiredService], before: Mapping[str, Revision]) -> Uses:
    """Who needs which environment. `before`: by service, the revision that served before the one that serves."""
    found: dict[str, tuple[str, ...]] = {}
    for service in services:
        parts = (("serving", service.serving), ("desired", service.desired), ("before", before.get(service.name)))
        seen: set[int] = set()
        for part, revision in parts:
            name = _environment(revision)
            if revision is None or name is None or revision.number in seen:
                continue
            seen.add(revision.number)
            found[name] = (*found.get(name, ()), f"{revision.name} {part}")
    return found


def unused(environments: Sequence[EnvironmentMade], uses: Uses, agents: frozenset[str], now: float) -> tuple[str, ...]:
    """The names of those that may go, sorted. What is not known of one keeps it."""
    newest: dict[str, float] = {}
    for one in environments:
        newest[one.engine] = max(newest.get(one.engine, 0.0), one.made_at or 0.0)
    return tuple(
        sorted(
            one.name
            for one in environments
            if one.name not in uses
            and one.engine not in agents
            and one.made_at is not None
            and one.made_at < newest[one.engine]
            and one.used_at is not None
            and now - max(one.made_at, one.used_at) > KEPT_S
        )
    )


def _environment(revision: Revision | None) -> str | None:
    engine = revision.spec.engine if revision is not None else None
    return engine.environment if engine is not None else None
