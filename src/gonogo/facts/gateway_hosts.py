"""What Envoy says of the hosts that it sends requests to: its own health checks, and the requests under way there.

Read from its admin interface (`GET /clusters?format=json`), which answers also while control is dead. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

CLUSTERS_PATH = "/clusters?format=json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayHost:
    """One host of a cluster. `hostname` is a replica's name, of an external one its authority (`host:port`).

    `healthy` None: Envoy has not checked it yet. `requests_active`: under way there now.
    """

    hostname: str
    address: str
    healthy: bool | None
    requests_active: int


def parse_clusters(text: str) -> Mapping[str, tuple[GatewayHost, ...]] | None:
    """By cluster its hosts with a network address, in Envoy's order; a cluster may have none. None: no such answer."""
    try:
        content = json.loads(text)
        return {str(cluster["name"]): tuple(_hosts(cluster)) for cluster in content.get("cluster_statuses", ())}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _hosts(cluster: Any) -> Iterator[GatewayHost]:
    for host in cluster.get("host_statuses", ()):
        address = host["address"].get("socket_address")
        if address is None:  # a unix socket: a part, no replica
            continue
        yield GatewayHost(
            hostname=str(host.get("hostname", "")),
            address=f"{address['address']}:{address['port_value']}",
            healthy=_healthy(host.get("health_status", {})),
            requests_active=_gauge(host, "rq_active"),
        )


def _healthy(status: Any) -> bool | None:
    """Protobuf leaves out what is false. A host that was just added counts as failed until its first check is over."""
    if status.get("pending_active_hc"):
        return None
    failed = ("failed_active_health_check", "failed_outlier_check", "pending_dynamic_removal")
    return not any(status.get(flag) for flag in failed)


def _gauge(host: Any, name: str) -> int:
    return next((int(stat.get("value", 0)) for stat in host.get("stats", ()) if stat.get("name") == name), 0)
