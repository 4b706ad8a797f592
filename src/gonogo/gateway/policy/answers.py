"""Between Envoy's ext_proc messages and decisions. Pure: bytes in, bytes out.

Not here: what is decided (`decide`) and the stream (`server`). Answers follow what Envoy was seen to take: only
x-gonogo-*, www-authenticate and retry-after may be set, and the body of a refusal is a plain message.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Mapping

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    HttpHeaders,
    ImmediateResponse,
    ProcessingResponse,
)
from envoy.type.v3.http_status_pb2 import HttpStatus

from gonogo.gateway.policy.decide import Allow, Decision, RequestHeaders
from gonogo.gateway.policy.deny import Deny

STALE = Deny(
    status=503,
    code="policy_stale",
    message="The list of API keys could not be read for a while, so nobody is let in. Try again.",
    type="server_error",
)
BROKEN = Deny(
    status=500,
    code="policy_error",
    message="The server that checks keys met an error of its own, so this request is not let in.",
    type="server_error",
)
UNEXPECTED = Deny(
    status=500,
    code="policy_protocol",
    message="The gateway asked the server that checks keys something else than whom to let in, so nobody is.",
    type="server_error",
)


def read_headers(message: HttpHeaders) -> RequestHeaders:
    """What policy reads of a request's headers; bytes that are no ASCII become characters that no key holds."""
    method = path = request_id = ""
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
    return RequestHeaders(method=method, path=path, authorization=tuple(authorization), request_id=request_id)


@lru_cache(maxsize=4096)
def answer(decision: Decision) -> bytes:
    """The serialized answer. Decisions repeat for as long as nothing changes, so the bytes are kept."""
    if isinstance(decision, Allow):
        return _allow(decision)
    return _deny(decision)


def _allow(decision: Allow) -> bytes:
    mutation = _set({"x-gonogo-revision": decision.revision, "x-gonogo-key-id": decision.key_id})
    common = CommonResponse(header_mutation=mutation, clear_route_cache=True)
    response = ProcessingResponse(request_headers=HeadersResponse(response=common))
    return bytes(response.SerializeToString())


def _deny(decision: Deny) -> bytes:
    headers = {"x-gonogo-code": decision.code, "x-gonogo-type": decision.type, "x-gonogo-hop": "policy"}
    if decision.status == 401:
        headers["www-authenticate"] = "Bearer"
    if decision.status == 503:
        headers["retry-after"] = "1"
    response = ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=HttpStatus(code=decision.status),
            headers=_set(headers),
            body=decision.message.encode(),
            details=f"policy_{decision.code}",
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
