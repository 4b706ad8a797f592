"""RDS: which path goes where: an allow-list of exact paths, and a revision by the header that policy sets. Pure."""

from __future__ import annotations

from typing import Sequence

from gonogo.actions.model import ClusterPlan
from gonogo.gateway.policy.away import FALLBACK_HEADER, FALLBACK_PATHS
from gonogo.gateway.policy.body import MAX_BODY_BYTES
from gonogo.gateway.policy.decide import METHODS, QUEUE_PATHS
from gonogo.gateway.policy.fields import EMBEDDINGS
from gonogo.gateway.policy.gate import REPLY_HEADERS
from gonogo.gateway.policy.renaming import SERVED_AS, SPAN
from gonogo.gateway.resources.asking import asked_nothing
from gonogo.gateway.resources.convert import Json
from gonogo.gateway.resources.fallback import fallback_route
from gonogo.gateway.resources.hints import hints
from gonogo.gateway.resources.relay import relay_route
from gonogo.gateway.resources.renaming import renamed

ROUTE_CONFIG = "gateway"
REVISION_HEADER = "x-gonogo-revision"
PATHS = METHODS

NO_REVISION = "No revision of this service is ready to serve."
UNKNOWN_PATH = "unknown_path"
"""The code of a 404 for a path that is not in `PATHS`: `replies` adds what was asked, and the base URL."""
HTTPS_WANTED = "https_wanted"
"""The code of the answer to plain HTTP; `replies` adds the base URL."""

USAGE = "envoy.filters.http.json_to_metadata"

# What must never reach an engine: whose key it was, and what policy decided. The engine needs none of it. The replicas
# that policy picked are taken away by the cluster (`clusters`): here it would be before a host is chosen.
_REMOVED_FOR_ENGINES = [
    "authorization",
    "api-key",
    "x-api-key",
    "cookie",
    "x-forwarded-for",
    "x-envoy-external-address",
    "x-gonogo-key-id",
    "x-gonogo-engine",
    "x-gonogo-continue",
    "x-gonogo-relay",
    SERVED_AS,
    SPAN,
    FALLBACK_HEADER,
    REVISION_HEADER,
]

# A relay needs what policy decided, and not the client's secrets.
_REMOVED_FOR_RELAYS = ["authorization", "api-key", "x-api-key", "cookie", "x-forwarded-for", "x-envoy-external-address"]
RELAYED_PATHS = ("/v1/chat/completions", "/v1/completions")
"""Where an answer can be streamed."""

# What the gateway itself says in its answers (`replies`, and the limits); an engine must not be able to say it.
_REMOVED_FROM_ENGINES = [
    "x-gonogo-code",
    "x-gonogo-type",
    "x-gonogo-hop",
    "x-gonogo-param",
    "x-gonogo-wrapped",
    *REPLY_HEADERS,
]


def routes(clusters: Sequence[ClusterPlan], others: Sequence[Json] = (), *, relayed: bool = False) -> Json:
    """The route configuration of every listener. `others`: routes of what is not served by engines themselves;
    `relayed`: there are relays for streamed requests.
    """
    return {
        "name": ROUTE_CONFIG,
        "virtual_hosts": [
            {
                "name": "gateway",
                "domains": ["*"],
                "routes": [
                    *_health(),
                    *others,
                    *(route for path in PATHS for route in _allowed(path, clusters, relayed=relayed)),
                    *_hints(),
                ],
            }
        ],
    }


def plain_http_routes() -> Json:
    """What a connection without TLS gets, whatever it asks: one answer, and nothing behind it."""
    message = (
        "This port speaks HTTPS, and plain HTTP was sent. The request went no further; a key in it was sent in clear "
        "text: if others can listen on the way, revoke it (gonogo keys revoke)."
    )
    return {
        "name": "plain-http",
        "virtual_hosts": [
            {"name": "plain", "domains": ["*"], "routes": [_refusal({"prefix": "/"}, 400, HTTPS_WANTED, message)]}
        ],
    }


def _health() -> list[Json]:
    path = {"path": "/healthz"}
    ok: Json = {
        "match": {**path, "headers": [_method("^(GET|HEAD)$")]},
        "direct_response": {"status": 200, "body": {"inline_string": '{"status":"ok"}\n'}},
        "response_headers_to_add": [_set("content-type", "application/json")],
        "typed_per_filter_config": asked_nothing(),
    }
    return [ok, _wrong_method(path, "GET, HEAD", "Use GET for /healthz.", asked_nothing())]


def _allowed(path: str, clusters: Sequence[ClusterPlan], *, relayed: bool) -> list[Json]:
    method = PATHS[path]
    wrong = {"path": path, "headers": [{**_method(f"^{method}$"), "invert_match": True}]}
    return [
        *(_to_relay(path, method, cluster) for cluster in clusters if relayed and path in RELAYED_PATHS),
        *(route for cluster in clusters for route in to_fallback(path, method, cluster)),
        *(to_cluster(path, method, cluster) for cluster in clusters),
        # Both run policy first, so that nothing is told to a client without a key.
        _wrong_method(wrong, method, f"Use {method} for {path}."),
        # Envoy chooses the filters by this route: policy has not named the revision yet.
        {**_refusal({"path": path}, 503, "no_revision", NO_REVISION), **_unread(path)},
    ]


def _to_relay(path: str, method: str, plan: ClusterPlan) -> Json:
    """For a revision that there is; what names another meets the same refusal as without relays."""
    revision = {"name": REVISION_HEADER, "string_match": {"exact": plan.name}}
    match = {"path": path, "headers": [_method(f"^{method}$"), revision]}
    return relay_route(match, _RETRIES_OF_RELAYS, MAX_BODY_BYTES + 1024 * 1024, _REMOVED_FOR_RELAYS)


def to_fallback(path: str, method: str, plan: ClusterPlan) -> list[Json]:
    """A path of one revision to the hosted API that it falls back to; none where it has none, or the path no answer."""
    if plan.fallback is None or path not in FALLBACK_PATHS:
        return []
    revision = {"name": REVISION_HEADER, "string_match": {"exact": plan.name}}
    match = {"path": path, "headers": [_method(f"^{method}$"), revision]}
    return [
        {
            **fallback_route(match, plan.name, plan.fallback),
            "request_headers_to_remove": _REMOVED_FOR_ENGINES,
            "response_headers_to_remove": [*_REMOVED_FROM_ENGINES, "set-cookie"],
            "request_body_buffer_limit": MAX_BODY_BYTES + 1024 * 1024,
        }
    ]


def to_cluster(path: str, method: str, plan: ClusterPlan) -> Json:
    """A path of one revision: to its replicas, with the retries that its kind of engine needs."""
    revision = {"name": REVISION_HEADER, "string_match": {"exact": plan.name}}
    return {
        "match": {"path": path, "headers": [_method(f"^{method}$"), revision]},
        "route": {
            "cluster": plan.name,
            # An answer may take long; what bounds it is the stream's idle timeout.
            "timeout": "0s",
            **({"auto_host_rewrite": True} if plan.external is not None else {}),
            "retry_policy": _RETRIES_OF_PARTS if plan.outlives_its_parts else _RETRIES,
        },
        "request_headers_to_remove": _REMOVED_FOR_ENGINES,
        "response_headers_to_remove": _REMOVED_FROM_ENGINES,
        # What the router may keep to send it again: more than the body limit, or a large request dies with its replica.
        "request_body_buffer_limit": MAX_BODY_BYTES + 1024 * 1024,
        **({"typed_per_filter_config": renamed()} if plan.external is not None else {}),
    }


def _unread(path: str) -> Json:
    """Embeddings are long lists of numbers: 768 KB of them held one of Envoy's threads for 14 ms while they were read
    for their usage, and every stream on it (1 MB of text: 5 ms)."""
    if path != EMBEDDINGS:
        return {}
    disabled = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    return {"typed_per_filter_config": {USAGE: disabled}}


# Only before the first byte of an answer, and on another replica. No retry on 5xx in general: the engine answered.
_RETRIES: Json = {
    "retry_on": "reset,connect-failure,refused-stream,retriable-status-codes",
    "retriable_status_codes": [503],
    "num_retries": 3,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    # A dead replica has the fewest requests, so that least-request prefers it. With 5 tries one retry in six chose it
    # again; a try costs nothing.
    "host_selection_retry_max_attempts": 64,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
}
# A relay that answered 503 has asked the replicas, more than once: its answer stands.
_RETRIES_OF_RELAYS: Json = {
    **_RETRIES,
    "retry_on": "reset,connect-failure,refused-stream",
    "retriable_status_codes": [],
}
# vLLM answers 500 at once to whatever is and comes in until it ends, 5 s after its engine process died.
_RETRIES_OF_PARTS: Json = {**_RETRIES, "retriable_status_codes": [500, 503]}


def _hints() -> list[Json]:
    listed = ", ".join((*(f"{method} {path}" for path, method in PATHS.items()), *QUEUE_PATHS))
    known = (_unknown({"safe_regex": {"regex": pattern}}, message) for pattern, message in hints(tuple(PATHS)))
    return [*known, _unknown({"prefix": "/"}, f"There are: {listed}, GET /healthz.")]


def _unknown(match: Json, message: str) -> Json:
    return _refusal(match, 404, UNKNOWN_PATH, message, asked_nothing())


def _wrong_method(match: Json, allowed: str, message: str, filters: Json | None = None) -> Json:
    route = _refusal(match, 405, "method_not_allowed", message, filters)
    route["response_headers_to_add"].append(_set("allow", allowed))
    return route


def _refusal(match: Json, status: int, code: str, message: str, filters: Json | None = None) -> Json:
    kind = "invalid_request_error" if status < 500 else "server_error"
    route: Json = {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": message}},
        "response_headers_to_add": [
            _set("x-gonogo-code", code),
            _set("x-gonogo-type", kind),
            _set("x-gonogo-hop", "gateway"),
        ],
    }
    return {**route, "typed_per_filter_config": filters} if filters else route


def _method(pattern: str) -> Json:
    return {"name": ":method", "string_match": {"safe_regex": {"regex": pattern}}}


def _set(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
