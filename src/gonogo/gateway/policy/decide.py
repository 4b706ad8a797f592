"""Who may: from a request's headers and the snapshot of keys to allow or deny. Pure; the time is given.

Not here: gRPC (`server`), the snapshot's age (`snapshot`), how a denial looks to clients (`gonogo.gateway.replies`).
Envoy has normalised the path and stripped forged headers before it asks. No text here ever holds what a client sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Protocol, Union

from gonogo.gateway.policy.deny import Deny
from gonogo.security.keys import KeyProblem, KeyRow, matches, parse, usable

_AUTHENTICATION = "authentication_error"
_PERMISSION = "permission_error"
_REQUEST = "invalid_request_error"
_SERVER = "server_error"

INFERENCE, MODELS = "inference", "models"
MODEL_LIST = "/v1/models"


class View(Protocol):
    """What a decision reads: keys by their public id, and the revision that serves each service."""

    @property
    def keys(self) -> Mapping[str, KeyRow]: ...

    @property
    def serving(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders:
    """What policy reads of a request. `authorization` holds every such header as it came; it never prints."""

    method: str
    path: str
    authorization: tuple[str, ...] = field(repr=False)
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """Let it in, to this revision (`service/number`), on behalf of this key."""

    revision: str
    key_id: str


Decision = Union[Allow, Deny]


def decide(request: RequestHeaders, view: View, now: float) -> Decision:
    """Whether this request may pass, and to which revision. `now` in Unix seconds. Never raises for any header."""
    token = _bearer(request.authorization)
    if isinstance(token, Deny):
        return token
    row = _known(token, view)
    if isinstance(row, Deny):
        return row
    if not usable(row, now):
        return _EXPIRED if row.revoked_at is None else _REVOKED
    if not _in_scope(request.path, row.scopes):
        return _scope(row.scopes)
    return _revision(row, view.serving)


def _bearer(values: tuple[str, ...]) -> str | Deny:
    if not values:
        return _MISSING
    # Envoy joins headers of one name with a comma, which no key holds.
    if len(values) > 1 or "," in values[0]:
        return _DUPLICATE
    scheme, _, token = values[0].strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        return _SCHEME if scheme else _MISSING
    return token.strip(" \t") or _MISSING


def _known(token: str, view: View) -> KeyRow | Deny:
    parsed = parse(token)
    if parsed is KeyProblem.CHECKSUM:
        return _MISTYPED
    if isinstance(parsed, KeyProblem):
        return _MALFORMED
    row = view.keys.get(parsed.key_id)
    if row is None or not matches(parsed, row.secret_hash):
        return _UNKNOWN
    return row


def _in_scope(path: str, scopes: tuple[str, ...]) -> bool:
    if INFERENCE in scopes:
        return True
    return path.partition("?")[0] == MODEL_LIST and MODELS in scopes


def _revision(row: KeyRow, serving: Mapping[str, int]) -> Decision:
    if row.service is not None:
        number = row.revision if row.revision is not None else serving.get(row.service)
        if number is None:
            return _not_serving(f"The service {row.service}, which this API key is for, does not serve")
        return Allow(revision=f"{row.service}/{number}", key_id=row.key_id)
    if row.revision is not None:
        return _not_serving("The API key is pinned to a revision of no service, so nothing serves it")
    if not serving:
        return _not_serving("No service serves")
    if len(serving) > 1:
        return _ambiguous(sorted(serving))
    ((service, number),) = serving.items()
    return Allow(revision=f"{service}/{number}", key_id=row.key_id)


def _authentication(code: str, message: str) -> Deny:
    return Deny(status=401, code=code, message=message, type=_AUTHENTICATION)


_MAKE = "`gonogo keys create` makes one."
_MISSING = _authentication(
    "missing_api_key", f"The request has no API key. Send the header `Authorization: Bearer KEY`; {_MAKE}"
)
_SCHEME = _authentication(
    "malformed_api_key", "The Authorization header must read `Bearer KEY`; another scheme is not accepted here."
)
_DUPLICATE = _authentication(
    "malformed_api_key", "The request has more than one Authorization header. Send one: `Authorization: Bearer KEY`."
)
_MALFORMED = _authentication(
    "malformed_api_key",
    f"The API key is not one of this gateway: those are gng_ and 49 characters more. {_MAKE}",
)
_MISTYPED = _authentication(
    "malformed_api_key", "The API key is mistyped or cut: its last six characters do not fit the rest. Copy it again."
)
_UNKNOWN = _authentication(
    "unknown_api_key", f"This gateway does not know the API key. It may be another deployment's; {_MAKE}"
)
_REVOKED = _authentication("revoked_api_key", f"The API key was revoked. {_MAKE}")
_EXPIRED = _authentication("expired_api_key", f"The API key has expired. {_MAKE}")


def _scope(scopes: tuple[str, ...]) -> Deny:
    have = ", ".join(sorted(scopes)) or "none"
    return Deny(
        status=403,
        code="insufficient_scope",
        message=f"The API key may not do this: it needs the scope {INFERENCE} and has {have}. "
        f"`gonogo keys create --scope {INFERENCE}` makes one that may.",
        type=_PERMISSION,
    )


def _not_serving(what: str) -> Deny:
    return Deny(
        status=503,
        code="not_serving",
        message=f"{what} at the moment. `gonogo status` shows what is missing.",
        type=_SERVER,
    )


def _ambiguous(choices: list[str]) -> Deny:
    return Deny(
        status=400,
        code="ambiguous_service",
        message=f"The API key is good for all services, and {len(choices)} serve: {', '.join(choices)}. "
        "Use a key of one of them: `gonogo keys create --service NAME`.",
        type=_REQUEST,
    )
