"""The inner listener: the relays' way to the engines, a unix socket that only this user can reach. Pure.

No policy and no words for clients here: whoever gets this far was let in at the front, and what engines answer goes
back raw, so that the front's own filters word it. Balancing, health and retries are those of the front's clusters.
"""

from __future__ import annotations

from typing import Sequence

from gonogo.actions.model import ClusterPlan
from gonogo.gateway import replies
from gonogo.gateway.envelope import REQUEST_ID
from gonogo.gateway.resources.clusters import ADS
from gonogo.gateway.resources.convert import METADATA, Json
from gonogo.gateway.resources.routes import to_cluster, to_fallback

INNER = "inner"
"""The name of the listener, and of its route configuration."""
INNER_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/apply-template",
    "/tokenize",
    "/detokenize",
    "/completion",
)
"""What a relay may ask of an engine; the last four are on no other listener."""

_TYPE = "type.googleapis.com/envoy.extensions"
_REPLICA = {
    "header": {"key": "x-gonogo-replica", "value": f"%UPSTREAM_METADATA({METADATA}:replica)%"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}


def inner_listener(socket: str, log_path: str) -> Json:
    """The listener on `socket`, mode 0600, with an access log of its own."""
    return {
        "name": INNER,
        "address": {"pipe": {"path": socket, "mode": 0o600}},
        "filter_chains": [{"filters": [_connection_manager(log_path)]}],
    }


def inner_routes(clusters: Sequence[ClusterPlan]) -> Json:
    """Each path of a relay, to the revision that its header names."""
    return {
        "name": INNER,
        "virtual_hosts": [
            {
                "name": INNER,
                "domains": ["*"],
                "routes": [_named(route) for path in INNER_PATHS for plan in clusters for route in _ways(path, plan)],
            }
        ],
    }


def _ways(path: str, plan: ClusterPlan) -> list[Json]:
    return [*to_fallback(path, "POST", plan), to_cluster(path, "POST", plan)]


def _named(route: Json) -> Json:
    """The relay must know which replica answers: it is in its record, and its health tells hung from slow."""
    return {**route, "response_headers_to_add": [_REPLICA]}


def _connection_manager(log_path: str) -> Json:
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": INNER,
        "rds": {"route_config_name": INNER, "config_source": ADS},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router", "suppress_envoy_headers": True},
            }
        ],
        # The front's id, so that the logs can be joined.
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "local_reply_config": replies.local_reply_config(),
        # By default Envoy keeps a connection for another second after an answer on it broke off: a second of the stall.
        "delayed_close_timeout": "0s",
        "stream_idle_timeout": "900s",
        "common_http_protocol_options": {"idle_timeout": "900s"},
        "access_log": [_access_log(log_path)],
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _access_log(path: str) -> Json:
    """One JSON line per request of a relay; the front's line of the same id says whose it was."""
    fields = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "request_id": REQUEST_ID,
        "path": "%PATH(NQ:PATH)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration_ms": "%DURATION%",
        "first_byte_ms": "%RESPONSE_DURATION%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "upstream": "%UPSTREAM_HOST%",
        "revision": "%UPSTREAM_CLUSTER%",
        "replica": f"%UPSTREAM_METADATA({METADATA}:replica)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": fields, "json_format_options": {"sort_properties": False}},
        },
    }
