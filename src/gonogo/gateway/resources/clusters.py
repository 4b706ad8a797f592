"""CDS and EDS: one cluster per service and revision, its replicas, and the cluster of policy servers. Pure.

The numbers were found by killing things under load: docs/decisions/0006-what-the-gateway-was-taught.md.
"""

from __future__ import annotations

from gonogo.actions.model import ClusterPlan, EndpointPlan
from gonogo.facts.server import HEALTH
from gonogo.gateway.resources import external
from gonogo.gateway.resources.asking import POLICY_CLUSTER
from gonogo.gateway.resources.convert import METADATA, Json
from gonogo.spec.gateway import Balancing

DESTINATION_HEADER = "x-gateway-destination-endpoint"
"""Which replicas policy or a relay picked: `ip:port`, best first, with commas between."""

ADS: Json = {"ads": {}, "resource_api_version": "V3"}
_POLICIES = "envoy.load_balancing_policies"
PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# Ejection looks only at what we saw ourselves (resets, refused connections): an engine that answers 500 to one
# client's bad request must not be taken away from all the others.
_OUTLIERS: Json = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 3,
    "enforcing_consecutive_local_origin_failure": 100,
    "enforcing_local_origin_success_rate": 0,
    "enforcing_consecutive_5xx": 0,
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "1s",
    "max_ejection_time": "5s",
    "max_ejection_percent": 100,
}


_BALANCING = {
    Balancing.TOKEN_AWARE: ("least_request", "least_request.v3.LeastRequest"),
    Balancing.LEAST_REQUEST: ("least_request", "least_request.v3.LeastRequest"),
    Balancing.ROUND_ROBIN: ("round_robin", "round_robin.v3.RoundRobin"),
    Balancing.RANDOM: ("random", "random.v3.Random"),
}


def cluster(plan: ClusterPlan, system_ca_file: str) -> Json:
    """The cluster of one revision. Its endpoints come over EDS under the same name; external ones stand in it."""
    if plan.external is None:
        where: Json = {"type": "EDS", "eds_cluster_config": {"eds_config": ADS}}
    else:
        where = external.members(plan.name, plan.external, system_ca_file)
    return {
        "name": plan.name,
        **where,
        "connect_timeout": f"{plan.connect_timeout_s:g}s",
        **_balancing(plan.balancing),
        "common_lb_config": {
            # With half of two replicas down Envoy would otherwise "panic" and send requests to the dead one too.
            "healthy_panic_threshold": {"value": 0},
            # By default workers hear of a second change of health within 1 s only at the end of that second: a replica
            # that died just after another one had come back went on getting requests, and failed 30 of 6,000.
            "update_merge_window": "0s",
        },
        # Without it a replica that is still healthy stays after EDS has removed it: it could never be drained.
        "ignore_health_on_host_removal": True,
        "circuit_breakers": {
            # The default of 3 concurrent retries lost 6,888 of 7,060 requests when a replica was killed.
            "thresholds": [
                {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 1000}
            ]
        },
        "outlier_detection": _OUTLIERS,
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                "no_traffic_interval": "0.5s",
                "unhealthy_interval": "0.5s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                # By default the Host header is the cluster's name, and a strict server refuses one with a slash.
                "http_health_check": {
                    "path": HEALTH if plan.external is None else plan.external.health_path,
                    "host": "localhost",
                },
            }
        ],
        "typed_extension_protocol_options": {
            PROTOCOL_OPTIONS: {
                "@type": f"type.googleapis.com/{PROTOCOL_OPTIONS}",
                # Engines close an idle connection after 5 s; a request sent into that moment would be lost.
                "common_http_protocol_options": {"idle_timeout": "4s"},
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": _after_picking(),
            }
        },
    }


def endpoints(plan: ClusterPlan) -> Json:
    """The replicas of one revision."""
    return {
        "cluster_name": plan.name,
        "endpoints": [{"lb_endpoints": [_endpoint(endpoint) for endpoint in plan.endpoints]}],
    }


def policy_cluster(sockets: tuple[str, ...]) -> Json:
    """The policy servers, each on a unix socket.

    No ejection: a server that was killed is ejected for seconds, and when the other one is restarted meanwhile there is
    none left (771 of 14,580 requests refused). A dead socket refuses at once, and the retry goes to the other.
    """
    hosts = [{"endpoint": {"address": {"pipe": {"path": path}}}} for path in sockets]
    return {
        "name": POLICY_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": POLICY_CLUSTER, "endpoints": [{"lb_endpoints": hosts}]},
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 1024, "max_pending_requests": 10000, "max_requests": 10000, "max_retries": 1000}
            ]
        },
        "typed_extension_protocol_options": {
            PROTOCOL_OPTIONS: {
                "@type": f"type.googleapis.com/{PROTOCOL_OPTIONS}",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        # A policy server that hangs answers no PING: its questions are reset, and asked of another
                        # server. Nothing else finds it: an answer may take a minute (`asking`).
                        "connection_keepalive": {"interval": "0.5s", "timeout": "0.5s"}
                    }
                },
            }
        },
    }


def _balancing(asked: Balancing) -> Json:
    """Policy picks by tokens, a relay any but the replica that it lost; on a retry the next of their list is taken.
    Where they said nothing, or nothing that is there: the asked way, and instead of tokens the fewest requests."""
    fallback = _policy_of(*_BALANCING[asked], {})
    picked = {"override_host_sources": [{"header": DESTINATION_HEADER}], "fallback_policy": fallback}
    return {"load_balancing_policy": _policy_of("override_host", "override_host.v3.OverrideHost", picked)}


def _after_picking() -> list[Json]:
    """Takes the picked replicas away from the engine's sight. The route cannot: it does so before a host is chosen."""
    removal = {"mutations": {"request_mutations": [{"remove": DESTINATION_HEADER}]}}
    filters = "type.googleapis.com/envoy.extensions.filters.http"
    return [
        {
            "name": "envoy.filters.http.header_mutation",
            "typed_config": {"@type": f"{filters}.header_mutation.v3.HeaderMutation", **removal},
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {"@type": f"{filters}.upstream_codec.v3.UpstreamCodec"},
        },
    ]


def _policy_of(name: str, kind: str, content: Json) -> Json:
    typed = {"@type": f"type.googleapis.com/envoy.extensions.load_balancing_policies.{kind}", **content}
    return {"policies": [{"typed_extension_config": {"name": f"{_POLICIES}.{name}", "typed_config": typed}}]}


def _endpoint(endpoint: EndpointPlan) -> Json:
    return {
        "endpoint": {
            "address": {"socket_address": {"address": endpoint.address, "port_value": endpoint.port}},
            "hostname": str(endpoint.name),
        },
        "metadata": {"filter_metadata": {METADATA: {"replica": str(endpoint.name)}}},
    }
