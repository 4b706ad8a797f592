"""Which replicas there are, and which are well: Envoy's verdict, from its admin socket, asked when somebody wants it.

Not here: health checks (Envoy's), and when a silent replica is taken for hung (`silence`, `watch`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Collection, Iterator, Mapping

import aiohttp

IS_FRESH_S = 0.2
LIMIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wellness:
    """`healthy`: Envoy sends this replica requests; `elsewhere`: it has another one that it sends them to."""

    healthy: bool | None
    elsewhere: bool | None


UNKNOWN = Wellness(healthy=None, elsewhere=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One replica. `endpoint`: `ip:port`; `active`: requests that Envoy has under way there."""

    name: str
    revision: str
    endpoint: str
    healthy: bool
    active: int


class Replicas:
    """`async with`; no socket: nothing is known."""

    def __init__(self, socket: str | None) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._seen: Mapping[str, Seen] = {}
        self._sent: Counter[str] = Counter()  # since `_seen`, so that many streams of one dead replica do not all meet
        self._seen_at = float("-inf")
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Replicas:
        if self._socket is not None:
            timeout = aiohttp.ClientTimeout(total=LIMIT_S)
            connector = aiohttp.UnixConnector(path=self._socket, limit=2)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def of(self, replica: str | None) -> Wellness:
        """What Envoy thinks of this replica and of the others of its revision."""
        await self._look()
        return UNKNOWN if replica is None else wellness(self._seen, replica)

    async def at(self, endpoint: str) -> str | None:
        """The name of the replica there."""
        await self._look()
        return next((one.name for one in self._seen.values() if one.endpoint == endpoint), None)

    async def others(self, revision: str, than: Collection[str], rather_not: Collection[str]) -> tuple[str, ...]:
        """Endpoints of the well replicas of this revision without those of `than`; the fewest requests first, and those
        of `rather_not` last."""
        await self._look()
        well = [one for one in self._seen.values() if one.revision == revision and one.healthy and one.name not in than]
        well.sort(key=lambda one: (one.name in rather_not, one.active + self._sent[one.name], one.name))
        if well:
            self._sent[well[0].name] += 1
        return tuple(one.endpoint for one in well)

    async def _look(self) -> None:
        if self._session is None:
            return
        async with self._lock:
            if time.monotonic() - self._seen_at <= IS_FRESH_S:
                return
            try:
                async with self._session.get("http://admin/clusters?format=json") as answer:
                    self._seen = {one.name: one for one in seen_in(json.loads(await answer.read()))}
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError):
                self._seen = {}
            self._seen_at = time.monotonic()
            self._sent.clear()


def seen_in(clusters: Mapping[str, Any]) -> Iterator[Seen]:
    """The replicas in Envoy's `/clusters?format=json`."""
    for cluster in clusters.get("cluster_statuses", ()):
        for host in cluster.get("host_statuses", ()):
            if host.get("hostname"):
                where = host.get("address", {}).get("socket_address", {})
                yield Seen(
                    name=host["hostname"],
                    revision=str(cluster.get("name")),
                    endpoint=f"{where.get('address')}:{where.get('port_value')}",
                    healthy=not any(_failed(host)),
                    active=_active(host),
                )


def wellness(seen: Mapping[str, Seen], replica: str) -> Wellness:
    """This replica's, among those that were seen."""
    found = seen.get(replica)
    if found is None:
        return UNKNOWN
    others = (one for one in seen.values() if one.revision == found.revision and one.name != replica)
    return Wellness(healthy=found.healthy, elsewhere=any(one.healthy for one in others))


def _failed(host: Mapping[str, Any]) -> Iterator[bool]:
    return (value is True for key, value in host.get("health_status", {}).items() if key.startswith("failed_"))


def _active(host: Mapping[str, Any]) -> int:
    counted = (one.get("value") for one in host.get("stats", ()) if one.get("name") == "rq_active")
    return int(next(counted, None) or 0)
