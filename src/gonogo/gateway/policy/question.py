"""What Envoy asks about one request, and what is said to it before the gate is asked. Pure; the time is given.

It asks twice about a large body: by the headers alone, before it reads the body, and then with all of it
(`gonogo.gateway.resources.asking`). About a small one it asks the second question only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

from envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest

from gonogo.gateway.policy.answers import STALE, UNEXPECTED, Told, let_through, model_list, read_headers, refusal
from gonogo.gateway.policy.body import MAX_BODY_BYTES, parse
from gonogo.gateway.policy.decide import MODEL_LIST, Caller, RequestHeaders, View, choose, decide, is_queued
from gonogo.gateway.policy.deny import INVALID_REQUEST, Deny
from gonogo.gateway.policy.renaming import renaming
from gonogo.gateway.policy.request import Head, Request, model_of, request_of
from gonogo.gateway.policy.rules import ServiceRules
from gonogo.security.keys import KeyRow

STAGE, HEAD, WHOLE = "x-gonogo-stage", "gonogo.head", "gonogo.whole"
"""The gRPC metadata that says which of the two questions it is, and its values: the names of Envoy's filters."""
SMALL = "gonogo.small"
"""The filter that asks the second question about a small body."""

_TOO_LARGE = Deny(
    status=413,
    code="body_too_large",
    message=f"The request body is larger than {MAX_BODY_BYTES // 1024**2} MiB.",
    type=INVALID_REQUEST,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that nothing is wrong with: what the gate is asked about. Nothing of its body is kept.

    `headers`: what the gateway is told of the body beside; `headers_away`: the same, where it goes to the fallback.
    """

    request: Request
    key: KeyRow
    revision: str
    rules: ServiceRules
    headers: Mapping[str, str] = field(default_factory=dict)
    headers_away: Mapping[str, str] = field(default_factory=dict)


def asked_by_head(message: bytes, view: View | None, now: float) -> bytes:
    """The answer to the question about the headers alone. `now` in Unix seconds."""
    headers = read_headers(_http(message))
    caller = STALE if view is None else decide(headers, view, now)
    if isinstance(caller, Deny):
        return refusal(caller)
    if is_queued(_path(headers)):
        return let_through({"x-gonogo-key-id": caller.key.key_id}, {})  # no other question is asked
    if (headers.content_length or 0) > MAX_BODY_BYTES:
        return refusal(_TOO_LARGE, Told(key_id=caller.key.key_id))
    # A gRPC call is asked about once, so that its line in the log can name the key now or never.
    return let_through({} if caller.services else {"x-gonogo-key-id": caller.key.key_id}, {})


def asked_whole(message: bytes, view: View | None, now: float) -> Asked | bytes:
    """The request, or the answer where the gate has nothing to say. `now` in Unix seconds.

    Who may is decided again, by the snapshot of now: a key may have been revoked while a slow client sent its body.
    """
    http = _http(message)
    headers = read_headers(http)
    if view is None:
        return refusal(STALE)
    caller = decide(headers, view, now)
    if isinstance(caller, Deny):
        return refusal(caller)
    if is_queued(_path(headers)):
        return refusal(UNEXPECTED)  # by Envoy's settings it is never asked: a body of the queue is not for here
    if _path(headers) == MODEL_LIST:
        return model_list(caller, view)
    asked = _judged(headers, http.raw_body, caller, view)
    return refusal(asked, Told(key_id=caller.key.key_id)) if isinstance(asked, Deny) else asked


def _http(message: bytes) -> AttributeContext.HttpRequest:
    return CheckRequest.FromString(message).attributes.request.http


def _path(headers: RequestHeaders) -> str:
    return headers.path.partition("?")[0]


def _judged(headers: RequestHeaders, raw: bytes, caller: Caller, view: View) -> Asked | Deny:
    if len(raw) > MAX_BODY_BYTES:
        return _TOO_LARGE
    fields = parse(raw)
    if isinstance(fields, Deny):
        return fields
    model = model_of(fields)
    if isinstance(model, Deny):
        return model
    revision = choose(caller, model)
    if isinstance(revision, Deny):
        return revision
    rules = view.rules[revision]
    has_query = "?" in headers.path
    head = Head(method=headers.method, path=_path(headers), request_id=headers.request_id, has_query=has_query)
    request = request_of(head, fields, rules)
    if isinstance(request, Deny):
        return request
    return Asked(
        request=request,
        key=caller.key,
        revision=revision,
        rules=rules,
        headers={} if rules.served_as is None else renaming(raw, rules.served_as),
        headers_away={} if rules.fallback is None else renaming(raw, rules.fallback.model),
    )
