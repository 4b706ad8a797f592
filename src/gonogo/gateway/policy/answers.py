"""Between Envoy's ext_proc messages and what policy decided. Pure: bytes in, bytes out.

Not here: what is decided (`decide`, `request`) and in which order things are said (`exchange`). Answers follow what
Envoy was seen to take; `gonogo.gateway.resources.listeners` lists the headers that may be set. The body of a refusal is
a plain message.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Iterator, Mapping

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    HttpHeaders,
    ImmediateResponse,
    ProcessingResponse,
    StreamedBodyResponse,
    TrailersResponse,
)
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.protobuf.struct_pb2 import Struct

from gonogo.gateway.policy.decide import Caller, RequestHeaders, View
from gonogo.gateway.policy.deny import SERVER_ERROR, Deny
from gonogo.gateway.policy.gate import REPLY_NAMESPACE, Admitted
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.rules import ServiceRules

RELAYED = False
"""Whether there is a relay, which streamed requests are sent through."""
PIECE_BYTES = 4 * 1024 * 1024
"""A body goes back in pieces of at most this size."""

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


def read_headers(message: HttpHeaders) -> RequestHeaders:
    """What policy reads of a request's headers; bytes that are no ASCII become characters that no key holds."""
    method = path = request_id = ""
    length = None
    authorization: list[str] = []
    for header in message.headers.headers:
        key = header.key
        if key == "authorization":
            authorization.append(_text(header))
        elif key == ":path":
            path = _text(header)
        elif key == ":method":
            method = _text(header)
        elif key == "x-request-id":
            request_id = _text(header)
        elif key == "content-length":
            digits = _text(header)
            length = int(digits) if digits.isdecimal() and len(digits) < 16 else None
    return RequestHeaders(
        method=method, path=path, authorization=tuple(authorization), request_id=request_id, content_length=length
    )


@lru_cache(maxsize=4096)
def refusal(deny: Deny) -> bytes:
    """The serialized answer. Refusals repeat, so the bytes are kept."""
    headers = {"x-gonogo-code": deny.code, "x-gonogo-type": deny.type, "x-gonogo-hop": "policy"}
    if deny.param is not None:
        headers["x-gonogo-param"] = deny.param
    if deny.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _immediate(deny.status, {**headers, **dict(deny.headers)}, deny.message, f"policy_{deny.code}")


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
    return _immediate(200, {}, json.dumps({"object": "list", "data": models}) + "\n", "policy_model_list")


def headers_for(request: Request, rules: ServiceRules, admitted: Admitted) -> Mapping[str, str]:
    """What those behind policy are told of a request, beside whose it is and where it goes."""
    headers = {"x-gonogo-engine": rules.engine, "x-gonogo-continue": "yes" if request.continuable else "no"}
    if admitted.endpoints:
        headers["x-gateway-destination-endpoint"] = ",".join(admitted.endpoints)
    if RELAYED and request.stream:
        headers["x-gonogo-relay"] = "1"
    return headers


def let_through(
    headers: Mapping[str, str], reply_headers: Mapping[str, str], body: bytes, trailers: bool
) -> list[bytes]:
    """The answers that send a request on: its headers, its body as it came, and its trailers if it has some."""
    common = CommonResponse(header_mutation=_set(headers), clear_route_cache=True)
    first = ProcessingResponse(request_headers=HeadersResponse(response=common))
    if reply_headers:
        told = Struct()
        told.update({REPLY_NAMESPACE: dict(reply_headers)})
        first.dynamic_metadata.CopyFrom(told)
    answers = [first, *_pieces(body, ends=not trailers)]
    if trailers:
        answers.append(ProcessingResponse(request_trailers=TrailersResponse()))
    return [answer.SerializeToString() for answer in answers]


def _pieces(body: bytes, *, ends: bool) -> Iterator[ProcessingResponse]:
    for start in range(0, len(body), PIECE_BYTES):
        piece = body[start : start + PIECE_BYTES]
        streamed = StreamedBodyResponse(body=piece, end_of_stream=ends and start + PIECE_BYTES >= len(body))
        common = CommonResponse(body_mutation=BodyMutation(streamed_response=streamed))
        yield ProcessingResponse(request_body=BodyResponse(response=common))


def _immediate(status: int, headers: Mapping[str, str], body: str, details: str) -> bytes:
    response = ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=HttpStatus(code=status), headers=_set(headers), body=body.encode(), details=details
        )
    )
    return bytes(response.SerializeToString())


def _set(headers: Mapping[str, str]) -> HeaderMutation:
    return HeaderMutation(
        set_headers=[
            HeaderValueOption(
                header=HeaderValue(key=key, raw_value=value.encode()),
                append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
            for key, value in headers.items()
        ]
    )


def _text(header: HeaderValue) -> str:
    # Envoy fills `raw_value` today and `value` in older settings.
    raw: bytes = header.raw_value
    return raw.decode("latin-1") if raw else str(header.value)
