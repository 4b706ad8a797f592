"""The gate that keeps the limits of keys, before another one that knows of replicas.

What that other one refuses gives back its tokens and its place. The request itself stays counted, as OpenAI has it: who
asks again and again is slowed down too. Not here: counting (`counters`, `shared`), the arithmetic and the words
(`limits`), the end of a request (`ends`).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gonogo.gateway.policy.counters import Counters, End, Taken, Taking
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.gate import Admitted, Gate
from gonogo.gateway.policy.limits import CONCURRENT, amount_of, refusal, reply_headers
from gonogo.gateway.policy.request import Request
from gonogo.security.keys import KeyRow


class LimitsGate:
    """A `Gate`: first the limits of the key, then `inner`."""

    def __init__(self, counters: Counters, inner: Gate) -> None:
        self._counters = counters
        self._inner = inner
        self._giving_back: set[asyncio.Task[None]] = set()

    async def admit(self, request: Request, key: KeyRow, revision: str) -> Admitted | Deny:
        """As `Gate.admit`."""
        if not key.limits:
            return await self._inner.admit(request, key, revision)
        tokens = request.prompt_tokens + request.expected_tokens
        taking = Taking(request_id=request.request_id, key_id=key.key_id, limits=key.limits, tokens=tokens)
        try:
            taken = await self._counters.take(taking)
            if not taken.admitted:
                return refusal(taken.standings, tokens)
            answer = await self._inner.admit(request, key, revision)
        except BaseException:  # cancelled as the client went away, or an error of ours: in any case nothing was used
            self._give_back(taking)
            raise
        if isinstance(answer, Deny):
            self._give_back(taking)
            told = reply_headers(_without(taken, tokens).standings)
            return replace(answer, headers=(*answer.headers, *told.items()))
        return replace(answer, reply_headers={**answer.reply_headers, **reply_headers(taken.standings)})

    def _give_back(self, taking: Taking) -> None:
        """In a task of its own, which a cancellation of the request does not reach."""
        end = End(request_id=taking.request_id, tokens=0)
        task = asyncio.get_running_loop().create_task(self._counters.finish([end]))
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)


def _without(taken: Taken, tokens: int) -> Taken:
    """How the key stands when the request has given back what it does."""
    back = {one.name: 0 if one.name.startswith("requests") else amount_of(one.name, tokens) for one in taken.standings}
    assert CONCURRENT not in back or back[CONCURRENT] == 1
    standings = tuple(replace(one, used=one.used - back[one.name]) for one in taken.standings)
    return replace(taken, standings=standings)
