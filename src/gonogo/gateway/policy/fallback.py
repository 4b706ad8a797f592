"""When a hosted API answers in place of a revision's replicas: none of them is well, and the spec allows it.

It is decided by what Envoy says of the replicas (`replicas`), as everything here; while that is not known, nothing is
sent out of the house. A probe is never answered by somebody else: it asks whether this revision works. Nor is what may
wait (batch keys, `service_tier` flex): a replica will come back. Not here: what is told of it (`away`), and the way out
(`gonogo.gateway.resources.fallback`).
"""

from __future__ import annotations

from typing import Callable, Sequence

from gonogo.gateway.policy.away import FALLBACK_PATHS
from gonogo.gateway.policy.deny import SERVER_ERROR, Deny
from gonogo.gateway.policy.gate import Admitted, Gate, may_wait
from gonogo.gateway.policy.replicas import ReplicaSeen
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.rules import FallbackRules, ServiceRules
from gonogo.security.keys import KeyRow

QUERY = "the query behind the path"


def away(
    request: Request, key: KeyRow, rules: ServiceRules | None, seen: Sequence[ReplicaSeen] | None
) -> FallbackRules | Deny | None:
    """Where the request falls back to; a refusal, where it would if it did not ask for too much; None: it does not."""
    if rules is None or rules.fallback is None or key.revision is not None or request.path not in FALLBACK_PATHS:
        return None
    if may_wait(request, key) or seen is None or any(each.healthy for each in seen):
        return None
    if request.has_query:
        return _too_much(QUERY, None)
    others = sorted(set(request.fields) - set(rules.fallback.parameters))
    return _too_much(f"the field {others[0]}", others[0]) if others else rules.fallback


class FallbackGate:
    """A `Gate` before the one that knows of room: where a request falls back, that one is not asked.

    `replicas` gives what Envoy says of a revision's replicas, None: nothing; `rules` a revision's rules.
    """

    def __init__(
        self,
        inner: Gate,
        replicas: Callable[[str], Sequence[ReplicaSeen] | None],
        rules: Callable[[str], ServiceRules | None],
    ) -> None:
        self._inner = inner
        self._replicas = replicas
        self._rules = rules

    async def admit(self, request: Request, key: KeyRow, revision: str) -> Admitted | Deny:
        """As `Gate.admit`. Looked at again behind the other gate: the last replica may die while a request waits."""
        answer = self._away(request, key, revision)
        if answer is None:
            admitted = await self._inner.admit(request, key, revision)
            answer = self._away(request, key, revision) if isinstance(admitted, Admitted) else None
            return admitted if answer is None else answer
        return answer

    def _away(self, request: Request, key: KeyRow, revision: str) -> Admitted | Deny | None:
        found = away(request, key, self._rules(revision), self._replicas(revision))
        return Admitted(fallback=found) if isinstance(found, FallbackRules) else found


def _too_much(what: str, param: str | None) -> Deny:
    return Deny(
        status=503,
        code="no_healthy_replica",
        message="No replica of this service is healthy right now, and its fallback, a hosted API, may not be given "
        f"{what}. Try again, or leave it out.",
        type=SERVER_ERROR,
        param=param,
        headers=(("retry-after", "1"),),
    )
