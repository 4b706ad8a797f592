"""gRPC on the gateway's port: which methods there are, the server behind them, errors as gRPC clients see them. Pure.

A call is let in by its headers alone, so that nobody without a key makes the server read a message; what it asks comes
back to the local front as HTTP (`local_front`), where limits, balancing and metering are, once, as for everybody.
"""

from __future__ import annotations

from gonogo.facts.request_record import RPC
from gonogo.gateway.replies import Reply, cel, replacement
from gonogo.gateway.resources.asking import asked_by_headers, asked_nothing
from gonogo.gateway.resources.clusters import PROTOCOL_OPTIONS
from gonogo.gateway.resources.convert import Json

INFERENCE = "/gonogo.v1.Inference/"
REFLECTION = r"/grpc\.reflection\.v1(alpha)?\.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/"

_IS_GRPC = "'content-type' in request.headers && request.headers['content-type'].startsWith('application/grpc')"

# What policy set for this call, and what the server has no use for.
_REMOVED = ["x-gonogo-key-id", "x-gonogo-revision", "api-key", "x-api-key", "cookie"]


def rpc_routes() -> list[Json]:
    """To the gRPC server. Health's Check is open as /healthz is: who asks for it is a load balancer, without a key.
    Its Watch holds a stream, and reflection tells what there is: both want a key.
    """
    with_a_key: tuple[Json, ...] = ({"prefix": HEALTH}, {"prefix": INFERENCE}, {"safe_regex": {"regex": REFLECTION}})
    return [
        _route({"path": f"{HEALTH}Check"}, asked_nothing()),
        *(_route(match, asked_by_headers()) for match in with_a_key),
    ]


def rpc_cluster(socket: str) -> Json:
    """The gRPC server on its unix socket, over HTTP/2."""
    host = {"endpoint": {"address": {"pipe": {"path": socket}}}}
    return {
        "name": RPC,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {"cluster_name": RPC, "endpoints": [{"lb_endpoints": [host]}]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 4096, "max_retries": 1000}
            ]
        },
        "typed_extension_protocol_options": {
            PROTOCOL_OPTIONS: {
                "@type": f"type.googleapis.com/{PROTOCOL_OPTIONS}",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        # A server that hangs answers no PING: its calls end, instead of hanging too.
                        "connection_keepalive": {"interval": "1s", "timeout": "2s"},
                        "initial_stream_window_size": 1024 * 1024,
                        "initial_connection_window_size": 16 * 1024 * 1024,
                    }
                },
            }
        },
    }


def rpc_replies() -> list[Json]:
    """Mappers for `local_reply_config`: Envoy makes a gRPC status of what it says itself, and the text its message.

    Envoy chooses the status by the HTTP one (a policy server gives its own with its refusal); the text is ours.
    """
    named = f"{_IS_GRPC} && response.code >= 400 && 'x-gonogo-code' in response.headers"
    return [
        {"filter": cel(named), "body_format_override": _plain("%LOCAL_REPLY_BODY%")},
        *(replacement(reply, f"{_IS_GRPC} && response.code >= 400", _plain(reply.message)) for reply in _REPLIES),
    ]


_REPLIES = (
    Reply(
        when="response.code_details.startsWith('ext_authz_error')",
        status=503,
        code="policy_unavailable",
        hop="policy",
        message="The server that checks keys did not answer, so nobody is let in. Try again.",
        retry_after_s=1,
    ),
    Reply(
        when="response.code == 504 || response.code_details.contains('timeout')",
        status=504,
        code="rpc_timeout",
        hop="gateway",
        message="Nothing came for so long that the gateway gave the call up.",
    ),
    Reply(
        when="response.code >= 500 || response.code == 429",
        status=503,
        code="rpc_unavailable",
        hop="gateway",
        message="The gRPC server did not take the call, or went away before it answered. Try again.",
        retry_after_s=1,
    ),
    Reply(
        when="true",
        code="bad_request",
        hop="gateway",
        message="The request is no gRPC call as this gateway accepts it (a malformed header, length or path).",
    ),
)


def _plain(text: str) -> Json:
    return {"text_format_source": {"inline_string": text}, "content_type": "text/plain"}


def _route(match: Json, filters: Json) -> Json:
    return {
        "match": {**match, "grpc": {}, "headers": [{"name": ":method", "string_match": {"exact": "POST"}}]},
        "route": {
            "cluster": RPC,
            # A stream may take long; what bounds it is the stream's idle timeout, and the call's own deadline.
            "timeout": "0s",
            # Only what never reached the server: while it is started again its socket refuses.
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream",
                "num_retries": 5,
                "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
            },
        },
        "request_headers_to_remove": _REMOVED,
        "typed_per_filter_config": filters,
    }
