"""The queue behind the gateway: its paths, and the process that answers them. Pure.

Let in by the headers alone, so that an upload of gigabytes is not waited for; whose key it is stands in a header that
policy sets. The process is `gonogo.tasks.main`, on a unix socket.
"""

from __future__ import annotations

from gonogo.facts.part import TASKS
from gonogo.gateway.policy.decide import QUEUE_PATHS
from gonogo.gateway.resources.asking import asked_by_headers
from gonogo.gateway.resources.convert import Json
from gonogo.gateway.resources.routes import USAGE

# Whose key it was is for the queue to know, the key itself is not.
_REMOVED = ["authorization", "api-key", "x-api-key", "cookie", "x-forwarded-for", "x-envoy-external-address"]


# Its answers are no engine's: there is no usage to find in them, and a downloaded file would be held for it.
_UNREAD: Json = {USAGE: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}


def queue_routes() -> list[Json]:
    """To the queue. Which method a path has, it says itself."""
    return [_route(path) for path in QUEUE_PATHS]


def queue_cluster(socket: str) -> Json:
    """The queue's process on its unix socket."""
    host = {"endpoint": {"address": {"pipe": {"path": socket}}}}
    return {
        "name": TASKS,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {"cluster_name": TASKS, "endpoints": [{"lb_endpoints": [host]}]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 256, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 100}
            ]
        },
    }


def _route(path: str) -> Json:
    return {
        "match": {"path_separated_prefix": path},
        "route": {
            "cluster": TASKS,
            # A long poll and a large download take their time; what bounds them is the stream's idle timeout.
            "timeout": "0s",
            # Only what never reached it: while it is started again its socket refuses.
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream",
                "num_retries": 5,
                "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"},
            },
        },
        "request_headers_to_remove": _REMOVED,
        "typed_per_filter_config": {**asked_by_headers(), **_UNREAD},
    }
