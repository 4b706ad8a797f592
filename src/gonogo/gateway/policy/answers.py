"""Between Envoy's questions (ext_authz's messages) and what policy decided. Pure: bytes in, bytes out.

Not here: what is decided (`question`). The body of a refusal is a plain message; `gonogo.gateway.replies` wraps it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Iterable, Mapping

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse, DeniedHttpResponse, OkHttpResponse
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.rpc.status_pb2 import Status

from gonogo.gateway.policy.away import FALLBACK_TOLD, headers_for_fallback
from gonogo.gateway.policy.decide import Caller, RequestHeaders, View
from gonogo.gateway.policy.deny import SERVER_ERROR, Deny
from gonogo.gateway.policy.gate import Admitted
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.rules import ServiceRules

_OK, _PERMISSION_DENIED = 0, 7
"""gRPC's codes."""

STALE = Deny(
    status=503,
    code="policy_stale",
    message="The list of API keys could not be read for a while, so nobody is let in. Try again.",
    type=SERVER_ERROR,
    headers=(("retry-after", "1"),),
)
BROKEN = Deny(
    status=500,
    code="policy_error",
    message="The server that checks keys met an error of its own, so this request is not let in.",
    type=SERVER_ERROR,
)
UNEXPECTED = Deny(
    status=500,
    code="policy_protocol",
    message="The gateway asked the server that checks keys something else than whom to let in, so nobody is.",
    type=SERVER_ERROR,
)


def read_headers(asked: AttributeContext.HttpRequest) -> RequestHeaders:
    """What policy reads of a request's head. Headers of one name come joined by a comma."""
    headers = asked.headers
    authorization = headers.get("authorization")
    length = headers.get("content-length", "")
    return RequestHeaders(
        method=asked.method,
        path=asked.path,
        authorization=() if authorization is None else (authorization,),
        request_id=headers.get("x-request-id", ""),
        content_length=int(length) if length.isdecimal() and len(length) < 16 else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the gateway's log is told of a request beside what Envoy sees of it: whose it was and which revision was
    meant, where it is refused; the estimate of its prompt, and the fallback that it is sent to, where it goes on. Empty
    and None: not known.
    """

    key_id: str = ""
    revision: str = ""
    prompt_tokens: int | None = None
    fallback: str = ""


NOTHING = Told()


@lru_cache(maxsize=4096)
def refusal(deny: Deny, told: Told = NOTHING) -> bytes:
    """The serialized answer. Refusals repeat, so the bytes are kept."""
    headers = {"x-gonogo-code": deny.code, "x-gonogo-type": deny.type, "x-gonogo-hop": "policy"}
    if deny.param is not None:
        headers["x-gonogo-param"] = deny.param
    if deny.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _answered(deny.status, {**headers, **dict(deny.headers)}, deny.message, {"code": deny.code, **_log(told)})


def model_list(caller: Caller, view: View) -> bytes:
    """The answer to GET /v1/models: what this key may use, as OpenAI lists it, and how long a context is."""
    models = [
        {
            "id": service,
            "object": "model",
            "created": int(view.made_at.get(revision, 0)),
            "owned_by": "gonogo",
            "max_model_len": view.rules[revision].context_tokens,
        }
        for service, revision in sorted(caller.services.items())
    ]
    log = _log(Told(key_id=caller.key.key_id))
    return _answered(200, {}, json.dumps({"object": "list", "data": models}) + "\n", log)


def headers_for(request: Request, rules: ServiceRules, admitted: Admitted) -> Mapping[str, str]:
    """What those behind policy are told of a request, beside whose it is and where it goes."""
    if admitted.fallback is not None:
        return headers_for_fallback(request, admitted.fallback)
    headers = {"x-gonogo-engine": rules.engine, "x-gonogo-continue": "yes" if request.continuable else "no"}
    if admitted.endpoints:
        headers["x-gateway-destination-endpoint"] = ",".join(admitted.endpoints)
    if request.stream:
        headers["x-gonogo-relay"] = "1"
    return headers


def let_through(headers: Mapping[str, str], reply_headers: Mapping[str, str], told: Told = NOTHING) -> bytes:
    """The answer that sends a request on, with these headers more; the client is told `reply_headers` later."""
    ok = OkHttpResponse(headers=_options(headers), response_headers_to_add=_options(reply_headers))
    return _serialized(CheckResponse(status=Status(code=_OK), ok_response=ok), _log(told))


def _answered(status: int, headers: Mapping[str, str], body: str, log: Mapping[str, str | int]) -> bytes:
    denied = DeniedHttpResponse(status=HttpStatus(code=status), headers=_options(headers), body=body)
    return _serialized(CheckResponse(status=Status(code=_PERMISSION_DENIED), denied_response=denied), log)


def _serialized(response: CheckResponse, log: Mapping[str, str | int]) -> bytes:
    """With metadata, which only the access log reads (`gonogo.gateway.resources.usage`)."""
    if log:
        response.dynamic_metadata.update(log)
    return bytes(response.SerializeToString())


def _log(told: Told) -> dict[str, str | int]:
    known = {
        "key_id": told.key_id,
        "revision": told.revision,
        "prompt_tokens": told.prompt_tokens,
        FALLBACK_TOLD: told.fallback,
    }
    return {name: value for name, value in known.items() if value not in ("", None)}


def _options(headers: Mapping[str, str]) -> Iterable[HeaderValueOption]:
    return [
        HeaderValueOption(
            header=HeaderValue(key=key, value=value), append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        )
        for key, value in headers.items()
    ]
