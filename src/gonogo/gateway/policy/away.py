"""What policy tells of a request that falls back to a hosted API, and to whom. Pure. When it does: `fallback`."""

from __future__ import annotations

from typing import Mapping

from gonogo.gateway.policy.fields import CHAT, COMPLETIONS
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.rules import EXTERNAL, FallbackRules

FALLBACK_HEADER = "x-gonogo-fallback"
"""On a request: the gateway's routes send it to the hosted API. On an answer: which one that was."""
FALLBACK_TOLD = "fallback"
"""The field of policy's answer that the gateway makes that header of."""
FALLBACK_PATHS = (CHAT, COMPLETIONS)
"""Not embeddings: vectors of another model are of no use beside those of the service's own."""


def headers_for_fallback(request: Request, fallback: FallbackRules) -> Mapping[str, str]:
    """What those behind policy are told: its stream is passed on as an external server's, never continued."""
    headers = {FALLBACK_HEADER: fallback.authority, "x-gonogo-engine": EXTERNAL, "x-gonogo-continue": "no"}
    return {**headers, "x-gonogo-relay": "1"} if request.stream else headers
