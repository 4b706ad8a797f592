"""Asks the gateway, like any client: HTTP through its local front, with a key. Nothing here knows of tasks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import aiohttp

from gonogo.tasks.judge import Answer, code_of

MOST_ANSWER_BYTES = 64 * 2**20
ANSWER_LIMIT_S = 900.0
CONNECT_LIMIT_S = 5.0
CONNECTIONS = 128


class Door:
    """A few connections to the gateway's unix socket. `async with`."""

    def __init__(self, front_socket: Path) -> None:
        self._socket = front_socket
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Door:
        connector = aiohttp.UnixConnector(path=str(self._socket), limit=CONNECTIONS)
        timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S, sock_connect=CONNECT_LIMIT_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: bytes, key: str) -> Answer:
        """The gateway's answer; a status of 0 where none came. Raises nothing but what cancels it."""
        assert self._session is not None
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        try:
            async with self._session.post(f"http://gateway{path}", data=body, headers=headers) as response:
                return await _read(response)
        except aiohttp.ClientConnectorError:
            return Answer(status=0, code="unreachable")
        except (asyncio.TimeoutError, TimeoutError):
            return Answer(status=0, code="timeout")
        except (aiohttp.ClientError, OSError):
            return Answer(status=0, code="no_answer")


async def _read(response: aiohttp.ClientResponse) -> Answer:
    body = bytearray()
    async for piece in response.content.iter_chunked(2**18):
        body += piece
        if len(body) > MOST_ANSWER_BYTES:
            response.close()
            return Answer(status=0, code="too_large")
    retry_after_s: float | None = None
    with suppress(ValueError):
        retry_after_s = float(response.headers["retry-after"]) if "retry-after" in response.headers else None
    return Answer(
        status=response.status,
        body=bytes(body),
        code=code_of(bytes(body)) if response.status >= 400 else None,
        request_id=response.headers.get("x-request-id"),
        retry_after_s=retry_after_s,
    )
