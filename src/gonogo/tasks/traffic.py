"""What the replicas do, as Envoy's own admin socket tells it: true also while control is dead."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Mapping, Sequence

import aiohttp

from gonogo.facts.gateway_hosts import CLUSTERS_PATH, GatewayHost, parse_clusters
from gonogo.tasks import pace

LIMIT_S = 1.0
PARTS = 4
"""While others ask, we have one of so many parts of the requests that a replica takes at once, and one at least."""


class Traffic:
    """Looks at the clusters of services. `async with`. `sequences`: as `traffic_of` has it."""

    def __init__(self, admin_socket: Path, sequences: Mapping[str, int]) -> None:
        self._socket = admin_socket
        self._sequences = sequences
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Traffic:
        connector = aiohttp.UnixConnector(path=str(self._socket))
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=LIMIT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def look(self) -> pace.Traffic | None:
        """None where Envoy does not answer."""
        assert self._session is not None
        try:
            async with self._session.get(f"http://admin{CLUSTERS_PATH}") as response:
                clusters = parse_clusters(await response.text())
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, UnicodeDecodeError):
            return None
        return None if clusters is None else traffic_of(clusters, self._sequences)


def traffic_of(clusters: Mapping[str, Sequence[GatewayHost]], sequences: Mapping[str, int]) -> pace.Traffic:
    """At the hosts of all revisions together: their clusters are called `service/number`, and what they fall
    back to `service/number/fallback`, which nothing that can wait is sent to.

    `sequences`: requests that one replica of a revision takes at once, by the revision's name; absent: not known.
    """
    revisions = {name: hosts for name, hosts in clusters.items() if name.count("/") == 1}
    beside = sum(
        max(1, sequences.get(name, 1) // PARTS)
        for name, hosts in revisions.items()
        for host in hosts
        if host.healthy is not False
    )
    return pace.Traffic(
        active=sum(host.requests_active for hosts in revisions.values() for host in hosts), beside=beside
    )
