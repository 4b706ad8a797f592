"""Who may, and to which revision: from headers, the model that is named, and the snapshot. Pure; the time is given.

In two steps, so that nobody's body is read who may not: `decide` by the headers alone, `choose` by the model's name.
Not here: gRPC (`server`), the snapshot's age (`snapshot`), how a denial looks to clients (`gonogo.gateway.replies`).
Envoy has normalised the path and stripped forged headers before it asks. No text here ever holds what a client sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Protocol

from gonogo.gateway.policy.deny import INVALID_REQUEST, SERVER_ERROR, Deny
from gonogo.gateway.policy.fields import CHAT, COMPLETIONS, EMBEDDINGS
from gonogo.gateway.policy.rules import ServiceRules
from gonogo.security.keys import KeyProblem, KeyRow, acting, matches, parse, usable

_AUTHENTICATION = "authentication_error"
_PERMISSION = "permission_error"

INFERENCE, MODELS = "inference", "models"
MODEL_LIST = "/v1/models"
RPC_PATHS = ("/gonogo.v1.", "/grpc.")
"""How the paths of gRPC calls begin. What one asks comes back as an HTTP request with the same key."""
_OF_MODELS = (MODEL_LIST, "/gonogo.v1.Inference/ListModels")
METHODS = {CHAT: "POST", COMPLETIONS: "POST", EMBEDDINGS: "POST", MODEL_LIST: "GET"}
"""What may be asked, and how; the same as the gateway's routes."""
QUEUE_PATHS = ("/v1/tasks", "/v1/files", "/v1/batches")
"""What is the queue's (`gonogo.tasks`), with all below it: let in by the headers alone, and nobody here reads it."""


class View(Protocol):
    """What a decision reads. `rules` and `made_at` (Unix seconds): of each revision that may be used, by its name."""

    @property
    def keys(self) -> Mapping[str, KeyRow]: ...

    @property
    def serving(self) -> Mapping[str, int]: ...

    @property
    def rules(self) -> Mapping[str, ServiceRules]: ...

    @property
    def made_at(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders:
    """What policy reads of a request. `authorization` holds every such header as it came; it never prints."""

    method: str
    path: str
    authorization: tuple[str, ...] = field(repr=False)
    request_id: str
    content_length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and what may be used: services by name, each with its revision (`service/number`).

    Empty for the queue, whose tasks ask when they run, and for a gRPC call, which asks again as an HTTP request.
    """

    key: KeyRow
    services: Mapping[str, str]


def decide(request: RequestHeaders, view: View, now: float) -> Caller | Deny:
    """Whether the request may go on to name its model. `now` in Unix seconds. Never raises for any header."""
    token = _bearer(request.authorization)
    if isinstance(token, Deny):
        return token
    known = _known(token, view)
    if isinstance(known, Deny):
        return known
    row = acting(known, view.keys)
    if row is None:
        return _REVOKED
    if not usable(row, now):
        return _EXPIRED if row.revoked_at is None else _REVOKED
    path = request.path.partition("?")[0]
    if not _in_scope(path, row.scopes):
        return _scope(row.scopes)
    if is_queued(path) or path.startswith(RPC_PATHS):
        return Caller(key=row, services={})
    if path not in METHODS:
        return _NO_SUCH_PATH
    if request.method != METHODS[path]:
        return _wrong_method(path)
    services = _services(row, view)
    return services if isinstance(services, Deny) else Caller(key=row, services=services)


def is_queued(path: str) -> bool:
    """Whether this path, without its query, is the queue's."""
    return any(path == one or path.startswith(f"{one}/") for one in QUEUE_PATHS)


def choose(caller: Caller, model: str) -> str | Deny:
    """The revision of the service that `model` names, which may be nobody's."""
    revision = caller.services.get(model)
    return _no_such_model(sorted(caller.services)) if revision is None else revision


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
    return MODELS in scopes and (path in _OF_MODELS or path.startswith("/grpc."))


def _services(row: KeyRow, view: View) -> Mapping[str, str] | Deny:
    """A revision that nothing is known of serves nobody."""
    if row.service is None:
        if row.revision is not None:
            return _not_serving("The API key is pinned to a revision of no service, so nothing serves it")
        every = {service: f"{service}/{number}" for service, number in view.serving.items()}
        known = {service: revision for service, revision in every.items() if revision in view.rules}
        return known or _not_serving("No service serves")
    number = row.revision if row.revision is not None else view.serving.get(row.service)
    revision = f"{row.service}/{number}"
    if number is None or revision not in view.rules:
        return _not_serving(f"The service {row.service}, which this API key is for, does not serve")
    return {row.service: revision}


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
        type=SERVER_ERROR,
        headers=(("retry-after", "1"),),
    )


_NO_SUCH_PATH = Deny(
    status=404,
    code="unknown_path",
    message=f"There are: {', '.join(f'{method} {path}' for path, method in METHODS.items())}.",
    type=INVALID_REQUEST,
)


def _wrong_method(path: str) -> Deny:
    return Deny(
        status=405,
        code="method_not_allowed",
        message=f"Use {METHODS[path]} for {path}.",
        type=INVALID_REQUEST,
        headers=(("allow", METHODS[path]),),
    )


def _no_such_model(choices: list[str]) -> Deny:
    return Deny(
        status=404,
        code="model_not_found",
        message=f"This API key may not use a model of that name, or there is none. It may use: {', '.join(choices)}.",
        type=INVALID_REQUEST,
        param="model",
    )
