"""The last question before a request goes on: may it now, and to which replicas? A protocol, and a gate that is open.

Asked once per request, after `decide` and `request` have nothing against it and its revision is known. An answer may
take its time (a request may wait for room, `MOST_WAIT_S` at most): Envoy holds the request meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Protocol

from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.rules import FallbackRules
from gonogo.security.keys import BATCH, KeyRow

MOST_WAIT_S = 60.0
"""The longest that `admit` may take; Envoy's timeouts are made for it."""
REPLY_HEADERS = (
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
)
"""The headers that a gate may set on the client's answer, whoever makes that answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """It may go on. `endpoints`: `ip:port`, best first; none: Envoy balances. `reply_headers`: of `REPLY_HEADERS`.
    `fallback`: the hosted API that it goes to in place of any replica.
    """

    endpoints: tuple[str, ...] = ()
    reply_headers: Mapping[str, str] = field(default_factory=dict)
    fallback: FallbackRules | None = None


class Gate(Protocol):
    """Limits, admission and picking."""

    async def admit(self, request: Request, key: KeyRow, revision: str) -> Admitted | Deny:
        """Whether the request may go on to this revision (`service/number`), on behalf of this key.

        Cancelled when the client goes away while it waits.
        """
        ...


def may_wait(request: Request, key: KeyRow) -> bool:
    """Whether the request goes behind those that somebody waits for."""
    return BATCH in (key.priority, _PRIORITY_OF_TIER.get(request.service_tier or ""))


_PRIORITY_OF_TIER = {"flex": BATCH}
"""OpenAI's word for a request that may take its time."""


class OpenGate:
    """Everything may, and Envoy balances."""

    async def admit(self, _request: Request, _key: KeyRow, _revision: str) -> Admitted | Deny:
        return Admitted()
