"""Errors as clients see them: OpenAI's envelope (`envelope`), exactly once. Pure.

Three kinds of error pass here. What a route or policy refused says so itself: a plain message as the body, and the
headers x-gonogo-code, -type and -hop; the first mapper wraps it. What Envoy itself made gets words of ours, chosen by
what happened. What an engine answered with 4xx or 5xx is replaced by `engine_replies` before it gets here.
No internal text ever: neither Envoy's details nor an engine's body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from gonogo.gateway.envelope import INVALID, SERVER, WRAPPED, envelope
from gonogo.gateway.policy.decide import QUEUE_PATHS
from gonogo.gateway.resources.convert import Json
from gonogo.gateway.resources.hints import BASE
from gonogo.gateway.resources.relay import RELAY_CLUSTER
from gonogo.gateway.resources.routes import HTTPS_WANTED, UNKNOWN_PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one kind of failure looks like. `when` is a CEL condition; `status` replaces Envoy's where it misleads."""

    when: str
    code: str
    hop: str
    message: str
    type: str = SERVER
    status: int | None = None
    retry_after_s: int | None = None


_FAILED = "response.code >= 400"
_PLAIN_HOST = "request.host.size() <= 128 && request.host.matches('^[A-Za-z0-9.:-]+$')"
"""A name or an IPv4 address with a port: not user:password@, nothing that means something elsewhere."""

# In order: the first that matches is the answer.
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
        when=f"response.code >= 500 && request.url_path.matches('^({'|'.join(QUEUE_PATHS)})(/.*)?$')",
        status=503,
        code="queue_unavailable",
        hop="tasks",
        message="The queue's process did not take the request, or went away before it answered. Try again.",
        retry_after_s=1,
    ),
    Reply(
        when="response.code == 413",
        code="body_too_large",
        hop="gateway",
        type=INVALID,
        message="The request body is larger than 32 MiB.",
    ),
    Reply(
        when="response.code == 431",
        code="headers_too_large",
        hop="gateway",
        type=INVALID,
        message="The request headers are larger than 60 KiB, or more than 100.",
    ),
    Reply(
        when="response.code == 408 && response.code_details.startsWith('request_')",
        code="request_timeout",
        hop="gateway",
        type=INVALID,
        message="The request did not arrive in time: 10 s for the headers, 300 s for all of it.",
    ),
    Reply(
        # The idle time of a stream is longer than any request may take to arrive: what was idle is the engine.
        when="response.code == 504 || response.code_details.contains('timeout')",
        status=504,
        code="engine_timeout",
        hop="engine",
        message="The model did not answer in time.",
    ),
    Reply(
        # Envoy's own detail is the same as for replicas, which may all be well.
        when=f"xds.cluster_name == '{RELAY_CLUSTER}' && !response.code_details.contains('overflow') && "
        "(response.code_details == 'no_healthy_upstream' || response.code_details.startsWith('upstream_reset'))",
        status=503,
        code="relay_unavailable",
        hop="gateway",
        message="The gateway's processes that pass streamed answers on did not take the request, or went away before "
        'they answered it. Try again; without "stream" requests go another way.',
        retry_after_s=1,
    ),
    Reply(
        when="response.code_details == 'no_healthy_upstream' || response.code_details == 'cluster_not_found'",
        status=503,
        code="no_healthy_replica",
        hop="engine",
        message="No replica of this service is healthy right now. Try again.",
        retry_after_s=1,
    ),
    Reply(
        when="response.code_details.startsWith('upstream_reset')",
        status=503,
        code="replica_lost",
        hop="engine",
        message="The replica went away before it answered, and no other could take over. Try again.",
        retry_after_s=1,
    ),
    Reply(
        when="response.code == 503 || response.code == 429",
        code="overloaded",
        hop="gateway",
        message="The gateway holds as many requests as it may. Try again.",
        retry_after_s=1,
    ),
    Reply(
        when="response.code >= 500",
        code="gateway_error",
        hop="gateway",
        message="The gateway could not carry out this request.",
    ),
    Reply(
        when=_FAILED,
        code="bad_request",
        hop="gateway",
        type=INVALID,
        message="The request is not HTTP as this gateway accepts it (a malformed line, header, length or path).",
    ),
)


def local_reply_config(first: Sequence[Json] = ()) -> Json:
    """How Envoy wraps the replies that it makes itself. Successful ones (/healthz, the model list) stay as they are.

    `first`: mappers for errors to clients who do not read JSON.
    """
    success = _pass("response.code < 400")
    # The custom_response filter's replies come by here as well, with an empty detail: they are envelopes already.
    engine_error = _pass("response.code_details == ''")
    return {
        "mappers": [
            success,
            engine_error,
            *first,
            *_wrap_hints(),
            _wrap_named(),
            *(_mapper(reply) for reply in _REPLIES),
        ]
    }


def _pass(when: str) -> Json:
    return {
        "filter": cel(when),
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }


def _wrap_hints() -> list[Json]:
    """A wrong URL: the answer says what was asked and where the API is."""
    asked = "There is no %REQ(:METHOD):10% %PATH(NQ:PATH):100%. %LOCAL_REPLY_BODY%"
    return [*_with_base_url(UNKNOWN_PATH, asked), *_with_base_url(HTTPS_WANTED, "%LOCAL_REPLY_BODY%")]


def _with_base_url(code: str, message: str) -> list[Json]:
    """The host is repeated only where it can be nothing but a host."""
    named = f"'x-gonogo-code' in response.headers && response.headers['x-gonogo-code'] == '{code}'"
    return [
        _named(f"{named} && {_PLAIN_HOST}", f"{message} The base URL is https://%REQ(:AUTHORITY)%{BASE}."),
        _named(named, message),
    ]


def _wrap_named() -> Json:
    """A refusal that names itself: from policy or from a route."""
    return _named("response.code >= 400 && 'x-gonogo-code' in response.headers", "%LOCAL_REPLY_BODY%")


def _named(when: str, message: str) -> Json:
    return {
        "filter": cel(when),
        "body_format_override": envelope(
            message=message,
            type="%RESP(x-gonogo-type)%",
            code="%RESP(x-gonogo-code)%",
            hop="%RESP(x-gonogo-hop)%",
            param="%RESP(x-gonogo-param)%",
        ),
        "headers_to_add": [_set(WRAPPED, "1")],
    }


def _mapper(reply: Reply) -> Json:
    return replacement(reply, _FAILED, envelope(message=reply.message, type=reply.type, code=reply.code, hop=reply.hop))


def replacement(reply: Reply, among: str, body: Json) -> Json:
    """The mapper that says `reply` in this form, among the replies that the CEL condition `among` is true for."""
    mapper: Json = {
        "filter": cel(f"{among} && ({reply.when})"),
        "body_format_override": body,
        "headers_to_add": [_set(WRAPPED, "1")],
    }
    if reply.status is not None:
        mapper["status_code"] = reply.status
    if reply.retry_after_s is not None:
        mapper["headers_to_add"].append(_set("retry-after", str(reply.retry_after_s)))
    return mapper


def cel(expression: str) -> Json:
    """The filter of a mapper: this condition."""
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": expression,
            },
        }
    }


def _set(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
