"""What the access log tells of a request beside Envoy's own numbers: who, which revision, how many tokens. Pure.

The tokens of an answer in one piece stand in its `usage`; a filter puts them into the request's metadata. Those of a
stream are counted by the relay, whose log has a line of its own (`facts.request_record.StreamRecord`).
"""

from __future__ import annotations

from gonogo.gateway.envelope import REQUEST_ID
from gonogo.gateway.resources.convert import METADATA, Json
from gonogo.gateway.resources.routes import REVISION_HEADER, USAGE

_HTTP = "type.googleapis.com/envoy.extensions.filters.http"
KEY_HEADER = "x-gonogo-key-id"

_KEY_STATE = "gonogo.key_id"
_REVISION_STATE = "gonogo.revision"
_NAMESPACE = "gonogo.usage"
_TOLD = "envoy.filters.http.ext_authz"
_USAGE = {
    "prompt_tokens": ("usage", "prompt_tokens"),
    "completion_tokens": ("usage", "completion_tokens"),
    "cached_tokens": ("usage", "prompt_tokens_details", "cached_tokens"),
}
"""Field of the log → where OpenAI's answer has it."""

LOG_FIELDS: Json = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "request_id": REQUEST_ID,
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "protocol": "%PROTOCOL%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:PATH)%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "content_type": "%RESP(content-type)%",
    "duration_ms": "%DURATION%",
    "sent_ms": "%REQUEST_TX_DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "replica": f"%UPSTREAM_METADATA({METADATA}:replica)%",
    "revision": f"%FILTER_STATE({_REVISION_STATE}:PLAIN)%",
    "key_id": f"%FILTER_STATE({_KEY_STATE}:PLAIN)%",
    **{name: f"%DYNAMIC_METADATA({_NAMESPACE}:{name})%" for name in _USAGE},
    # Of a refusal policy's headers are gone, and what it was told of is not: see `policy.answers.Told`.
    "code": f"%DYNAMIC_METADATA({_TOLD}:code)%",
    "refused_key_id": f"%DYNAMIC_METADATA({_TOLD}:key_id)%",
    "refused_revision": f"%DYNAMIC_METADATA({_TOLD}:revision)%",
    "prompt_estimate": f"%DYNAMIC_METADATA({_TOLD}:prompt_tokens)%",
}
"""One JSON line per request, read by `facts.request_record`. Never the Authorization header, never a query string."""


def identity_filter() -> Json:
    """Keeps what policy set of the request, for the log: the router takes the headers away before engines see them."""
    kept = {_KEY_STATE: KEY_HEADER, _REVISION_STATE: REVISION_HEADER}
    return {
        "name": "envoy.filters.http.set_filter_state",
        "typed_config": {
            "@type": f"{_HTTP}.set_filter_state.v3.Config",
            "on_request_headers": [_from_header(key, header) for key, header in kept.items()],
        },
    }


def usage_filter() -> Json:
    """Reads the tokens out of an answer in one piece. Streams (another content type) pass it untouched."""
    return {
        "name": USAGE,
        "typed_config": {
            "@type": f"{_HTTP}.json_to_metadata.v3.JsonToMetadata",
            "response_rules": {
                "rules": [_rule(name, path) for name, path in _USAGE.items()],
                # llama.cpp adds a charset to it, and an exact type would not match.
                "allow_content_types_regex": {"google_re2": {}, "regex": "(?i)application/json *(;.*)?"},
            },
        },
    }


def _rule(name: str, path: tuple[str, ...]) -> Json:
    return {
        "selectors": [{"key": key} for key in path],
        "on_present": {"metadata_namespace": _NAMESPACE, "key": name, "type": "NUMBER"},
    }


def _from_header(key: str, header: str) -> Json:
    return {
        "object_key": key,
        "factory_key": "envoy.string",
        "format_string": {
            "text_format_source": {"inline_string": f"%REQ({header})%"},
            "omit_empty_values": True,
        },
        "skip_if_empty": True,
    }
