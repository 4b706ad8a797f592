"""LDS: where the gateway listens and through which filters a request goes. Pure.

The order of the filters is the order of the laws: foreign headers go before anything looks at them, then policy is
asked (`asking`), and only what it let through goes on.
"""

from __future__ import annotations

from gonogo.actions.model import ListenerPlan
from gonogo.gateway import engine_replies, replies
from gonogo.gateway.resources import asking
from gonogo.gateway.resources.clusters import ADS
from gonogo.gateway.resources.convert import Json
from gonogo.gateway.resources.fallback import told_by_fallback
from gonogo.gateway.resources.relay import ending_filter
from gonogo.gateway.resources.renaming import renaming_filter
from gonogo.gateway.resources.routes import ROUTE_CONFIG, plain_http_routes
from gonogo.gateway.resources.rpc import rpc_replies
from gonogo.gateway.resources.secrets import downstream_tls
from gonogo.gateway.resources.usage import LOG_FIELDS, identity_filter, usage_filter

_TYPE = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_TYPE}.filters.http"

# Headers by which a client could steer Envoy or pretend to be policy; and its own request id, which we make.
_FOREIGN_PREFIXES = ("x-gateway-", "x-gonogo-", "x-envoy-")


def listener_name(plan: ListenerPlan) -> str:
    """The name of the listener's resource."""
    return f"gateway/{plan.address}:{plan.port}"


def listener(plan: ListenerPlan, access_log_path: str) -> Json:
    """One address and port: TLS 1.3, HTTP/1.1 and h2."""
    return {
        "name": listener_name(plan),
        "address": {"socket_address": {"address": plan.address, "port_value": plan.port}},
        # With port reuse a second Envoy would silently take half of the connections; without it the port is refused.
        "enable_reuse_port": False,
        "connection_balance_config": {"exact_balance": {}},
        # Tells TLS from plain HTTP by the first bytes: the latter gets an answer instead of a closed connection.
        "listener_filters": [
            _filter("envoy.filters.listener.tls_inspector", f"{_TYPE}.filters.listener.tls_inspector.v3.TlsInspector")
        ],
        "listener_filters_timeout": "10s",
        "filter_chains": [
            {
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": downstream_tls(),
                "transport_socket_connect_timeout": "10s",
                "filters": [connection_manager(access_log_path, gateway())],
            },
            {"name": "plain-http", "filters": [connection_manager(access_log_path, _plain_http())]},
        ],
    }


def gateway() -> Json:
    """What the connection manager of a way in to the engines is for."""
    rds = {"route_config_name": ROUTE_CONFIG, "config_source": ADS}
    return {"stat_prefix": "gateway", "rds": rds, "http_filters": _filters()}


def _plain_http() -> Json:
    """No policy, no body, no engine: the router only ever finds the one answer."""
    return {"stat_prefix": "plain_http", "route_config": plain_http_routes(), "http_filters": [_ROUTER]}


def connection_manager(access_log_path: str, purpose: Json, identity: Json | None = None) -> Json:
    """The HTTP connection manager, as a network filter. `identity`: who requests are from, where not on a TCP port."""
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **purpose,
        "local_reply_config": replies.local_reply_config(rpc_replies()),
        "access_log": [_access_log(access_log_path)],
        **_identity(),
        **(identity or {}),
        **_limits(),
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _identity() -> Json:
    """Who the request is from, what it is called, and what its path means."""
    return {
        "early_header_mutation_extensions": foreign_removed({"remove": "x-request-id"}),
        "use_remote_address": True,
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
    }


def foreign_removed(*others: Json) -> list[Json]:
    """Before anything looks at a request: headers by which a client could steer Envoy, and `others`, are taken away."""
    return [
        {
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": f"{_TYPE}.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                "mutations": [*_removals(), *others],
            },
        }
    ]


def _limits() -> Json:
    return {
        "max_request_headers_kb": 60,
        "request_headers_timeout": "10s",
        "request_timeout": "300s",
        "stream_idle_timeout": "900s",
        "common_http_protocol_options": {
            "max_headers_count": 100,
            "idle_timeout": "900s",
            # An engine's framework may read x_gonogo_revision as x-gonogo-revision. Refusing the whole request would
            # reset it on h2, without an answer.
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 1024 * 1024,
            "initial_connection_window_size": 4 * 1024 * 1024,
        },
    }


def _filters() -> list[Json]:
    """First to last for requests, last to first for answers."""
    return [
        _filter(
            "envoy.filters.http.header_mutation",
            f"{_HTTP}.header_mutation.v3.HeaderMutation",
            {"mutations": {"response_mutations": [*_removals(), {"remove": "server"}, {"append": told_by_fallback()}]}},
        ),
        _filter(
            "envoy.filters.http.custom_response",
            f"{_HTTP}.custom_response.v3.CustomResponse",
            {"custom_response_matcher": engine_replies.engine_errors()},
        ),
        ending_filter(),
        *asking.filters(),
        renaming_filter(),
        identity_filter(),
        usage_filter(),
        _ROUTER,
    ]


def _access_log(path: str) -> Json:
    """One JSON line per request (`usage.LOG_FIELDS`)."""
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {
                "json_format": LOG_FIELDS,
                "json_format_options": {"sort_properties": False},
            },
        },
    }


def _removals() -> list[Json]:
    return [
        {"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}} for prefix in _FOREIGN_PREFIXES
    ]


def _filter(name: str, type_url: str, content: Json | None = None) -> Json:
    return {"name": name, "typed_config": {"@type": type_url, **(content or {})}}


_ROUTER = _filter("envoy.filters.http.router", f"{_HTTP}.router.v3.Router", {"suppress_envoy_headers": True})
