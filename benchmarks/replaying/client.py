"""One streamed request, and what came of it and when."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Mapping

import aiohttp

from replaying.result import Outcome
from replaying.trace import Arrival

ANSWER_LIMIT_S = 240.0


@dataclass(frozen=True)
class Target:
    """Where requests go. `keys`: API key of each of the trace's keys; empty: none is asked for."""

    base_url: str
    model: str
    keys: Mapping[str, str]
    trust: ssl.SSLContext | None = None


class Client:
    """Sends requests; `began` is the moment (monotonic seconds) that arrivals count from."""

    def __init__(self, session: aiohttp.ClientSession, began: float) -> None:
        self._session = session
        self.began = began

    async def send(self, target: Target, arrival: Arrival) -> Outcome:
        """Now; never raises for what goes wrong with the request."""
        outcome = Outcome(arrival=arrival, status=0)
        with suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError):
            outcome = await asyncio.wait_for(self._send(target, arrival), ANSWER_LIMIT_S)
        return replace(outcome, ended_s=self._since(arrival))

    async def _send(self, target: Target, arrival: Arrival) -> Outcome:
        key = target.keys.get(arrival.key)
        async with self._session.post(
            f"{target.base_url}/v1/completions",
            json=_body(target, arrival),
            headers={} if key is None else {"authorization": f"Bearer {key}"},
            ssl=target.trust if target.trust is not None else False,
        ) as response:
            if response.status != 200:
                await response.read()
                return Outcome(arrival=arrival, status=response.status)
            return await self._read(arrival, response)

    async def _read(self, arrival: Arrival, response: aiohttp.ClientResponse) -> Outcome:
        moments: list[float] = []
        usage: dict[str, Any] = {}
        ended = False
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                ended = True
                continue
            piece = json.loads(data)
            usage = piece.get("usage") or usage
            if any(choice.get("text") for choice in piece.get("choices", ())):
                moments.append(self._since(arrival))
        tokens = int(usage.get("completion_tokens", len(moments)))
        details = usage.get("prompt_tokens_details") or {}
        return Outcome(
            arrival=arrival,
            status=200,
            ttft_s=moments[0] if moments else self._since(arrival),
            gaps_s=tuple(later - earlier for earlier, later in pairwise(moments)),
            tokens=tokens,
            done=ended and tokens == arrival.answer_tokens,
            prompt_tokens=usage.get("prompt_tokens"),
            cached_tokens=details.get("cached_tokens"),
        )

    def _since(self, arrival: Arrival) -> float:
        return time.monotonic() - self.began - arrival.at_s


def _body(target: Target, arrival: Arrival) -> Mapping[str, Any]:
    return {
        "model": target.model,
        "prompt": arrival.prompt,
        "max_tokens": arrival.answer_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
