"""How Envoy asks policy servers about a request, so that none is lost when one of them dies. Pure.

A filter each for three questions, of which a request is asked one or two, by its content-length:
- `SMALL`: headers and body in one question, where the body is small. It is here as soon as the headers.
- `HEAD`: the headers alone, where a body is large or of unknown size. Who may not is refused before it is read.
- `WHOLE`: after that, headers and body in one question, when all of the body is here.

The answer is small and says everything, so that a server either answered or can be replaced: nothing of the body comes
back. A filter's own client keeps 64 KiB of a question for another try, and a screenshot is 1.3 MB: asked directly, 158
of 657 such requests were lost while policy servers were killed. So large ones go through a listener inside Envoy, whose
router keeps all of a question. Small ones do not: it costs 100 µs of a core.

Who skips a filter skips nothing: only an answer to a whole question names the revision, without which no route leads to
an engine.
"""

from __future__ import annotations

from gonogo.gateway.policy.body import MAX_BODY_BYTES
from gonogo.gateway.policy.gate import MOST_WAIT_S
from gonogo.gateway.policy.question import HEAD, SMALL, STAGE, WHOLE
from gonogo.gateway.resources.convert import Json

POLICY_CLUSTER, ASKING = "policy", "asking-policy"
"""The cluster of policy servers; the listener inside Envoy that asks them, and the cluster that is it."""
SPARE_S = 15.0
"""For a question that nobody lets wait; beyond the longest wait for the other one."""
_TYPE = "type.googleapis.com/envoy.extensions"
_SEEN = ("authorization", "content-length", "x-request-id")
"""The headers that policy is shown."""
_SETTABLE = "^(x-gonogo-.*|x-gateway-destination-endpoint)$"
"""The headers that policy may set on a request."""
_SMALL_BODY = "^[0-9]{1,4}$"
"""A content-length that is read before anybody is asked: it came with the headers, or is about to."""


def filters() -> list[Json]:
    """All three, in their order."""
    small = _length(_SMALL_BODY)
    large: Json = {"not_matcher": small}
    return [
        _skipped(SMALL, large, _ask(WHOLE, MOST_WAIT_S + SPARE_S, _directly())),
        _skipped(HEAD, small, _ask(HEAD, SPARE_S, _directly())),
        _skipped(WHOLE, small, _ask(WHOLE, MOST_WAIT_S + SPARE_S, _by_the_listener())),
    ]


def asked_nothing() -> Json:
    """For a route whose answer needs no key: policy is not asked, and so no body is waited for."""
    matched = {**_PER_ROUTE, "xds_matcher": {"on_no_match": _SKIP}}
    return dict.fromkeys((SMALL, HEAD, WHOLE), matched)


def asked_by_headers() -> Json:
    """For a route whose messages are nobody's JSON, and come when they come: the headers alone are asked about.

    Whatever length they tell: a filter that is skipped for a small body would let anybody past who says there is one.
    """
    always: Json = {"matcher_list": {"matchers": [{"predicate": _length("^never$"), "on_match": _SKIP}]}}
    return {**asked_nothing(), HEAD: {**_PER_ROUTE, "xds_matcher": always}}


def listener() -> Json:
    """Inside Envoy only: nobody else can reach it."""
    return {
        "name": ASKING,
        "internal_listener": {},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
                            "stat_prefix": "asking_policy",
                            "codec_type": "HTTP2",
                            "route_config": _to_policy(),
                            "stream_idle_timeout": "0s",
                            "generate_request_id": False,
                            "skip_xff_append": True,
                            "http_filters": [
                                {
                                    "name": "envoy.filters.http.router",
                                    "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
                                }
                            ],
                        },
                    }
                ]
            }
        ],
    }


def cluster() -> Json:
    """The way to that listener."""
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    address: Json = {"envoy_internal_address": {"server_listener_name": ASKING}}
    return {
        "name": ASKING,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": ASKING,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "circuit_breakers": {"thresholds": [{"max_pending_requests": 10000, "max_requests": 10000}]},
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _directly() -> Json:
    """The client takes its longest back-off for the time of each try too: with 100 ms, 2 of 285 requests were lost on a
    busy machine, to a server that was only slow. So it is longer than any answer may take; five tries are no longer
    apart than 10 ms, doubled each time."""
    retries = _retries()
    longest = {**retries["retry_back_off"], "max_interval": f"{MOST_WAIT_S + 2 * SPARE_S:.0f}s"}
    return _client(POLICY_CLUSTER, {**retries, "retry_back_off": longest})


def _by_the_listener() -> Json:
    return _client(ASKING, None)


def _client(cluster_name: str, retries: Json | None) -> Json:
    client: Json = {
        "envoy_grpc": {"cluster_name": cluster_name, "authority": POLICY_CLUSTER, "skip_envoy_headers": True}
    }
    return client if retries is None else {**client, "retry_policy": retries}


def _ask(stage: str, timeout_s: float, client: Json) -> Json:
    service = {**client, "timeout": f"{timeout_s:.0f}s", "initial_metadata": [{"key": STAGE, "value": stage}]}
    ask: Json = {
        "@type": f"{_TYPE}.filters.http.ext_authz.v3.ExtAuthz",
        "grpc_service": service,
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "allowed_headers": {"patterns": [{"exact": name} for name in _SEEN]},
        "decoder_header_mutation_rules": {
            "disallow_all": True,
            "allow_expression": {"regex": _SETTABLE},
            "disallow_is_error": True,
        },
        "validate_mutations": True,
    }
    if stage == HEAD:
        return ask
    body = {"max_request_bytes": MAX_BODY_BYTES, "allow_partial_message": False, "pack_as_bytes": True}
    # The revision's route is found by the header that policy has just set.
    return {**ask, "with_request_body": body, "clear_route_cache": True}


_SKIP: Json = {
    "action": {
        "name": "skip",
        "typed_config": {"@type": f"{_TYPE}.filters.common.matcher.action.v3.SkipFilter"},
    }
}


_PER_ROUTE: Json = {"@type": f"{_TYPE}.common.matching.v3.ExtensionWithMatcherPerRoute"}


def _skipped(name: str, where: Json, ask: Json) -> Json:
    """The filter of that name, but not for requests of that kind."""
    return {
        "name": name,
        "typed_config": {
            "@type": f"{_TYPE}.common.matching.v3.ExtensionWithMatcher",
            "extension_config": {"name": name, "typed_config": ask},
            "xds_matcher": {"matcher_list": {"matchers": [{"predicate": where, "on_match": _SKIP}]}},
        },
    }


def _length(pattern: str) -> Json:
    """Whether the content-length is so."""
    length: Json = {
        "name": "content-length",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": "content-length",
        },
    }
    return {"single_predicate": {"input": length, "value_match": {"safe_regex": {"google_re2": {}, "regex": pattern}}}}


def _to_policy() -> Json:
    route: Json = {
        "match": {"prefix": "/"},
        "route": {"cluster": POLICY_CLUSTER, "timeout": "0s", "retry_policy": _retries()},
        # All of the largest question, with what its headers take.
        "request_body_buffer_limit": MAX_BODY_BYTES + 1024 * 1024,
    }
    return {"name": ASKING, "virtual_hosts": [{"name": ASKING, "domains": ["*"], "routes": [route]}]}


def _retries() -> Json:
    """On another server, until one has begun to answer."""
    return {
        "retry_on": "reset,unavailable,connect-failure,refused-stream",
        "num_retries": 5,
        "retry_back_off": {"base_interval": "0.010s", "max_interval": "0.100s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{_TYPE}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
