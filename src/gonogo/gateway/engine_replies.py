"""What a client reads in place of an engine's own error, whose text goes nowhere. Pure.

Not here: what routes, policy and Envoy itself refuse (`replies`).
"""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.gateway.envelope import INVALID, SERVER, WRAPPED, envelope
from gonogo.gateway.resources.convert import Json
from gonogo.gateway.resources.fallback import told_by_fallback

_TYPE = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """What a client reads instead of an engine's own error. `status`: a code, or a class such as `5xx`.
    `told`: what the client gets in its place.
    """

    status: str
    code: str
    message: str
    type: str = INVALID
    told: int | None = None


_KEY_REFUSED = (
    "The server behind this service refused the gateway's own key, or its account there; your key is right. "
    "Whoever runs this service must look."
)
_REPLIES = (
    *(
        _Reply(status=status, code="engine_key_refused", message=_KEY_REFUSED, type=SERVER, told=502)
        for status in ("401", "402", "403")
    ),
    _Reply(
        status="404",
        code="engine_unsupported",
        message="The engine of this service does not offer this.",
    ),
    _Reply(
        status="429",
        code="engine_overloaded",
        type="rate_limit_error",
        message="The engine holds as many requests as it may. Try again.",
    ),
    _Reply(
        status="4xx",
        code="engine_refused",
        message="The engine refused the request: a field is missing or has a wrong value, "
        "or the prompt and max_tokens are longer than the context.",
    ),
    _Reply(
        status="5xx",
        code="engine_error",
        type=SERVER,
        message="The engine failed while it worked on this request.",
    ),
)


def engine_errors() -> Json:
    """The matcher of the custom_response filter: an engine's own error becomes one of ours, its text goes nowhere."""
    return {"matcher_list": {"matchers": [_from_engine(reply) for reply in _REPLIES]}}


def _from_engine(reply: _Reply) -> Json:
    return {
        "predicate": {"and_matcher": {"predicate": [{"not_matcher": _OURS}, _status(reply.status)]}},
        "on_match": {
            "action": {
                "name": reply.code,
                "typed_config": {
                    "@type": f"{_TYPE}.http.custom_response.local_response_policy.v3.LocalResponsePolicy",
                    "body_format": envelope(message=reply.message, type=reply.type, code=reply.code, hop="engine"),
                    # It goes to the client directly, past the filter that tells of a fallback.
                    "response_headers_to_add": [told_by_fallback()],
                    **({} if reply.told is None else {"status_code": reply.told}),
                },
            }
        },
    }


def _status(text: str) -> Json:
    name = "HttpResponseStatusCodeClassMatchInput" if text.endswith("xx") else "HttpResponseStatusCodeMatchInput"
    return {
        "single_predicate": {
            "input": {
                "name": "status",
                "typed_config": {"@type": f"type.googleapis.com/envoy.type.matcher.v3.{name}"},
            },
            "value_match": {"exact": text},
        }
    }


_OURS: Json = {
    "single_predicate": {
        "input": {
            "name": "wrapped",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpResponseHeaderMatchInput",
                "header_name": WRAPPED,
            },
        },
        "value_match": {"exact": "1"},
    }
}
