"""The one file that Envoy reads from disk: who it is and where its configuration comes from. Pure.

Everything else comes over ADS (`translate`). Not here: starting the process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from envoy.config.bootstrap.v3 import bootstrap_pb2

from gonogo.gateway.resources.convert import Json, to_json, to_message

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MONITORS = "type.googleapis.com/envoy.extensions.resource_monitors"

FLUSH_MS = 10
"""The access log on disk is at most this far behind, and a killed Envoy loses so much of it; the default is 10 s.

Policy learns from the log that a request ended. With 1000 Envoy took as much of a core (0.6 % idle, 560 µs a request).
"""
MAX_CONNECTIONS, MAX_HEAP_BYTES = 2000, 2 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """Sockets are absolute paths of at most 100 bytes. `max_connections` bounds clients, `max_heap_bytes` memory:
    at 95 % of it new requests get 503."""

    node_id: str
    xds_socket: str
    admin_socket: str
    max_connections: int = MAX_CONNECTIONS
    max_heap_bytes: int = MAX_HEAP_BYTES


def bootstrap_json(given: Bootstrap) -> str:
    """The file's text. Equal input, equal text."""
    message = to_message(_content(given), bootstrap_pb2.Bootstrap())
    return json.dumps(to_json(message), indent=2, sort_keys=True) + "\n"


def command(binary: str, bootstrap_path: str, concurrency: int, log_path: str) -> tuple[str, ...]:
    """How Envoy is started: with `concurrency` worker threads, and no hot restart, so that two never share memory."""
    return (
        binary,
        "--config-path",
        bootstrap_path,
        "--concurrency",
        str(concurrency),
        "--log-path",
        log_path,
        "--log-level",
        "warning",
        # Else each listener update repeats a page about fields that are "work in progress".
        "--component-log-level",
        "misc:error",
        "--disable-hot-restart",
        "--file-flush-interval-msec",
        str(FLUSH_MS),
        "--drain-time-s",
        "5",
        "--parent-shutdown-time-s",
        "10",
    )


def _content(given: Bootstrap) -> Json:
    return {
        "node": {"id": given.node_id, "cluster": "gonogo"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": "xds",
                            # With the default a control process that was away for 45 s was met again after 14 s.
                            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
                        }
                    }
                ],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [_xds_cluster(given.xds_socket)]},
        "admin": {"address": {"pipe": {"path": given.admin_socket, "mode": 0o600}}},
        **of_process(given.max_connections, given.max_heap_bytes),
    }


def of_process(max_connections: int = MAX_CONNECTIONS, max_heap_bytes: int = MAX_HEAP_BYTES) -> Json:
    """What the process as a whole has and is bounded by, wherever its listeners and clusters come from."""
    return {
        # For the listener that asks policy servers (`resources.asking`).
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
                },
            }
        ],
        "overload_manager": _overload(max_connections, max_heap_bytes),
        "layered_runtime": {
            "layers": [
                {"name": "static", "static_layer": {"re2.max_program_size.error_level": 1000}},
            ]
        },
    }


def _xds_cluster(socket: str) -> Json:
    return {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": socket}}}}]}],
        },
        "typed_extension_protocol_options": {
            _OPTIONS: {
                "@type": f"type.googleapis.com/{_OPTIONS}",
                "explicit_http_config": {
                    # A control process that hangs holds its socket open; only a PING tells.
                    "http2_protocol_options": {"connection_keepalive": {"interval": "5s", "timeout": "5s"}}
                },
            }
        },
    }


def _overload(max_connections: int, max_heap_bytes: int) -> Json:
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{_MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": max_connections,
                },
            },
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": {
                    "@type": f"{_MONITORS}.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": max_heap_bytes,
                },
            },
        ],
        "actions": [
            {"name": "envoy.overload_actions.shrink_heap", "triggers": [_above(0.9)]},
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": [_above(0.95)]},
        ],
    }


def _above(share: float) -> Json:
    return {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}}
