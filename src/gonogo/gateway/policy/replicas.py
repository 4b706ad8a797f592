"""Which replicas there are, whether they are well, and how busy: as Envoy sees them, from its admin socket.

So it is known also while control is dead, and policy never picks a replica that Envoy would not send to. A pure parser
(`parse_clusters`) and a loop around it. Not here: what each one holds (`ledger`), which one is picked (`pick`).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Awaitable, Callable, Mapping

INTERVAL_S = 0.25
STALE_AFTER_S = 3.0
TIMEOUT_S = 2.0
MOST_BYTES = 16 * 1024 * 1024
_LOOKED_AT = b"GET /clusters?format=json HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n"
# Envoy's words for why it sends nothing to a host.
_FAILED = (
    "failed_active_health_check",
    "failed_outlier_check",
    "failed_active_degraded_check",
    "pending_dynamic_removal",
    "pending_active_hc",
    "excluded_via_immediate_hc_fail",
    "active_hc_timeout",
)
_WELL = ("HEALTHY", "UNKNOWN", "DEGRADED")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSeen:
    """One replica of a revision. `endpoint`: `ip:port`. `active`: requests that Envoy has on it.

    `waiting`, `cache_used`: what its engine says, as in `pick.ReplicaLoad`; 0 and None where that is not known.
    """

    endpoint: str
    healthy: bool
    active: int
    waiting: int = 0
    cache_used: float | None = None


Seen = Mapping[str, tuple[ReplicaSeen, ...]]
"""By the cluster's name, which is the revision's (`service/number`)."""


def parse_clusters(text: str | bytes) -> Seen:
    """What `/clusters?format=json` says of every cluster whose hosts have an IP address and a port.

    Raises ValueError for what is not that answer.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("cluster_statuses", []), list):
        raise ValueError("Envoy's answer has no list of clusters")
    return {
        str(cluster.get("name")): tuple(
            seen for host in cluster.get("host_statuses", ()) if (seen := _host(host)) is not None
        )
        for cluster in content.get("cluster_statuses", ())
    }


def _host(host: Mapping[str, Any]) -> ReplicaSeen | None:
    where = host.get("address", {}).get("socket_address")
    if where is None:
        return None
    address, port = str(where["address"]), int(where["port_value"])
    health = host.get("health_status", {})
    failed = any(health.get(flag) for flag in _FAILED) or health.get("eds_health_status", "HEALTHY") not in _WELL
    return ReplicaSeen(
        endpoint=f"[{address}]:{port}" if ":" in address else f"{address}:{port}",
        healthy=not failed,
        active=sum(int(stat.get("value", 0)) for stat in host.get("stats", ()) if stat.get("name") == "rq_active"),
    )


class ReplicaWatch:
    """Looks again and again; `of` gives what was seen last, while that is recent enough.

    `fetch` gives the text of Envoy's answer, and may raise OSError, ValueError or TimeoutError. `clock` is monotonic
    (seconds). `tell` gets one line when looking begins to fail and one when it works again.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[bytes]], clock: Callable[[], float], tell: Callable[[str], None]
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._tell = tell
        self._seen: Seen | None = None
        self._seen_at = 0.0
        self._failing = False

    def of(self, revision: str) -> tuple[ReplicaSeen, ...] | None:
        """The replicas of a revision; None: nothing is known, or not recently."""
        if self._seen is None or self._clock() - self._seen_at > STALE_AFTER_S:
            return None
        return self._seen.get(revision)

    def revisions(self) -> tuple[str, ...]:
        """Every revision that has a cluster."""
        return tuple(self._seen or ())

    async def look(self) -> None:
        """Look once. A failure leaves what was seen last to grow old."""
        began = self._clock()
        try:
            self._seen, self._seen_at = parse_clusters(await self._fetch()), began
        except (OSError, ValueError, TypeError, KeyError, AttributeError, asyncio.TimeoutError) as error:
            if not self._failing:
                self._tell(
                    f"Envoy does not say which replicas there are ({type(error).__name__}): {STALE_AFTER_S:.0f} s "
                    "after it last did, requests go where Envoy sends them"
                )
            self._failing = True
            return
        if self._failing:
            self._tell("Envoy says again which replicas there are")
        self._failing = False

    async def run(self) -> None:
        """Look every 0.25 s, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S)


async def fetch_clusters(admin_socket: Path) -> bytes:
    """Envoy's answer. Raises OSError, ValueError for another answer than 200, TimeoutError after 2 s."""
    return await asyncio.wait_for(_fetch(admin_socket), TIMEOUT_S)


async def _fetch(admin_socket: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(admin_socket), limit=MOST_BYTES)
    try:
        writer.write(_LOOKED_AT)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError("Envoy's admin interface refused")
        if b"transfer-encoding: chunked" not in head.lower():
            return await reader.read(MOST_BYTES)
        body = bytearray()
        while size := int(await reader.readuntil(b"\r\n"), 16):
            if len(body) + size > MOST_BYTES:
                raise ValueError("Envoy's answer is too long")
            body += (await reader.readexactly(size + 2))[:-2]
        return bytes(body)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ValueError("Envoy's answer was cut off") from error
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
