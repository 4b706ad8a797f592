"""Envoy's inner listener: the relay's requests to engines.

Not here: which replicas are well (`replicas`); retries before an answer, health checks: Envoy's.
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Mapping

import aiohttp

from gonogo.engines.stream import Question

_ANSWER_LIMIT = aiohttp.ClientTimeout(total=4.0)
CONNECT_LIMIT_S = 2.0
REPLICA_HEADER = "x-gonogo-replica"


class NotAnswered(Exception):
    """A question got no answer, or a bad one. `refused`: the engine said no, so that asking again would not help."""

    def __init__(self, seen: str, *, refused: bool = False) -> None:
        super().__init__(seen)
        self.refused = refused


class Inner:
    """The inner listener: everything goes to the revision that the headers name. `async with`."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Inner:
        connector = aiohttp.UnixConnector(path=self._socket, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            # Long answers have no limit of their own; what bounds them is `silence`.
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_LIMIT_S, sock_read=None),
            skip_auto_headers=("accept-encoding", "user-agent"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def open(self, path: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send a request; returns when the answer's headers are there. Raises `aiohttp.ClientError`, `OSError`."""
        assert self._session is not None
        return await self._session.post(f"http://inner{path}", data=body, headers=headers)

    async def ask(self, question: Question, headers: Mapping[str, str]) -> Mapping[str, Any]:
        """The JSON object of the answer. Raises `NotAnswered`."""
        assert self._session is not None
        body = json.dumps(question.body, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            async with self._session.post(
                f"http://inner{question.path}", data=body, headers=headers, timeout=_ANSWER_LIMIT
            ) as answer:
                text = await answer.read()
                if answer.status != 200:
                    raise NotAnswered(f"status {answer.status}", refused=400 <= answer.status < 500)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise NotAnswered(type(error).__name__) from error
        try:
            value = json.loads(text)
        except ValueError as error:
            raise NotAnswered("not JSON") from error
        if not isinstance(value, dict):
            raise NotAnswered("no object")
        return value
