"""What the relay asks of Envoy: its inner listener (requests to engines) and its admin socket (who is healthy).

Not here: which replica gets a request, retries before an answer, health checks: Envoy's.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Mapping

import aiohttp

from gonogo.engines.stream import Question

_ANSWER_LIMIT = aiohttp.ClientTimeout(total=4.0)
CONNECT_LIMIT_S = 2.0
HEALTH_IS_FRESH_S = 0.2
HEALTH_LIMIT_S = 0.5
REPLICA_HEADER = "x-gonogo-replica"


class NotAnswered(Exception):
    """A question got no answer, or a bad one. `refused`: the engine said no, so that asking again would not help."""

    def __init__(self, seen: str, *, refused: bool = False) -> None:
        super().__init__(seen)
        self.refused = refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Wellness:
    """`healthy`: Envoy sends this replica requests; `elsewhere`: it has another one that it sends them to."""

    healthy: bool | None
    elsewhere: bool | None


UNKNOWN = Wellness(healthy=None, elsewhere=None)


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


class Health:
    """Envoy's verdict on replicas, asked only when somebody wants it. `async with`; no socket: nothing is known."""

    def __init__(self, socket: str | None) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._seen: Mapping[str, Wellness] = {}
        self._seen_at = 0.0
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Health:
        if self._socket is not None:
            timeout = aiohttp.ClientTimeout(total=HEALTH_LIMIT_S)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=self._socket, limit=2), timeout=timeout
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def of(self, replica: str | None) -> Wellness:
        """What Envoy thinks of this replica and of the others of its revision."""
        if replica is None or self._session is None:
            return UNKNOWN
        async with self._lock:
            if time.monotonic() - self._seen_at > HEALTH_IS_FRESH_S:
                self._seen = await self._look(self._session)
                self._seen_at = time.monotonic()
        return self._seen.get(replica, UNKNOWN)

    async def _look(self, session: aiohttp.ClientSession) -> Mapping[str, Wellness]:
        try:
            async with session.get("http://admin/clusters?format=json") as answer:
                return health_of(json.loads(await answer.read()))
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError):
            return {}


def health_of(clusters: Mapping[str, Any]) -> Mapping[str, Wellness]:
    """Replica → what Envoy thinks of it, from `/clusters?format=json`."""
    found: dict[str, Wellness] = {}
    for cluster in clusters.get("cluster_statuses", ()):
        hosts = {one["hostname"]: one for one in cluster.get("host_statuses", ()) if one.get("hostname")}
        well = {name for name, host in hosts.items() if _well(host.get("health_status", {}))}
        found |= {name: Wellness(healthy=name in well, elsewhere=bool(well - {name})) for name in hosts}
    return found


def _well(status: Mapping[str, Any]) -> bool:
    return not any(value is True for key, value in status.items() if key.startswith("failed_"))
