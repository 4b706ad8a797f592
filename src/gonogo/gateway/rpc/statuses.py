"""What went wrong, as a gRPC status: from HTTP statuses and OpenAI's envelope. Pure.

The message is the envelope's. Beside it, in trailing metadata: `x-request-id`, `retry-after` in seconds, and
`grpc-status-details-bin`, a google.rpc.Status with ErrorInfo (the envelope's code) and RetryInfo.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Mapping

from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

DOMAIN = "gonogo"
LONGEST_MESSAGE = 500
"""Characters. gRPC clients refuse more than 8 KiB of metadata, and each of them may take nine bytes of it."""

Trailing = tuple[tuple[str, str | bytes], ...]

_BY_STATUS: Mapping[int, StatusCode] = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    405: StatusCode.UNIMPLEMENTED,
    408: StatusCode.DEADLINE_EXCEEDED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    431: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED,
    501: StatusCode.UNIMPLEMENTED,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
_BY_TYPE: Mapping[str, StatusCode] = {
    "invalid_request_error": StatusCode.INVALID_ARGUMENT,
    "authentication_error": StatusCode.UNAUTHENTICATED,
    "permission_error": StatusCode.PERMISSION_DENIED,
    "rate_limit_error": StatusCode.RESOURCE_EXHAUSTED,
}
_FAULTS = ("engine_error", "gateway_error", "policy_error")
"""Codes of the envelope that say that a part of ours or the engine is wrong: trying again would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a call ends that did not go well. `reason`: a stable code, as in the envelope. Seconds are whole."""

    code: StatusCode
    message: str
    reason: str
    retry_after_s: int | None = None
    request_id: str | None = None


class Failed(Exception):
    """Carries a `Failure` to where the call is ended."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


CUT_OFF = Failure(
    code=StatusCode.UNAVAILABLE,
    message="The answer was cut off before its end. What came so far is not the whole of it. Try again.",
    reason="stream_cut_off",
)
UNREADABLE = Failure(
    code=StatusCode.INTERNAL,
    message="The engine answered something that is no answer to this question.",
    reason="engine_answer_unreadable",
)
NO_GATEWAY = Failure(
    code=StatusCode.UNAVAILABLE,
    message="The gateway did not take the request, or went away before it answered. Try again.",
    reason="gateway_unavailable",
    retry_after_s=1,
)
TOO_LATE = Failure(
    code=StatusCode.DEADLINE_EXCEEDED,
    message="The deadline of the call was over before the answer was.",
    reason="deadline_exceeded",
)
BROKEN = Failure(
    code=StatusCode.INTERNAL,
    message="The gRPC server met an error of its own and ended this call.",
    reason="rpc_error",
)


def wrong(message: str) -> Failure:
    """A request that cannot be asked."""
    return Failure(code=StatusCode.INVALID_ARGUMENT, message=message, reason="invalid_request")


def of_answer(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """An HTTP answer other than 200. `headers`: names in lower case."""
    code = _BY_STATUS.get(status) or (StatusCode.INTERNAL if status >= 500 else StatusCode.FAILED_PRECONDITION)
    failure = Failure(code=code, message=f"The gateway answered with HTTP status {status}.", reason=f"http_{status}")
    error = _envelope(body)
    if error is not None:
        failure = replace(failure, message=_message(error) or failure.message, reason=_reason(error) or failure.reason)
    wait = headers.get("retry-after", "")
    seconds = int(wait) if wait.isdecimal() and len(wait) < 7 else None
    return replace(failure, retry_after_s=seconds, request_id=headers.get("x-request-id"))


def of_event(error: Any) -> Failure:
    """The `error` of an event in the middle of a stream: there is no HTTP status any more, so its words decide."""
    if not isinstance(error, dict):
        return CUT_OFF
    said, reason = error.get("code"), _reason(error)
    if isinstance(said, int) and said in _BY_STATUS:  # engines put the HTTP status there
        code, reason = _BY_STATUS[said], f"http_{said}"
    elif str(error.get("type")) in _BY_TYPE:
        code = _BY_TYPE[str(error["type"])]
    elif reason is not None and "timeout" in reason:
        code = StatusCode.DEADLINE_EXCEEDED
    else:
        code = StatusCode.INTERNAL if reason in _FAULTS else StatusCode.UNAVAILABLE
    return Failure(code=code, message=_message(error) or CUT_OFF.message, reason=reason or CUT_OFF.reason)


def trailing(failure: Failure, request_id: str | None) -> Trailing:
    """The trailing metadata of a call that ends so. `request_id`: the call's own, where the failure names none."""
    known = failure.request_id or request_id
    details = Status(code=failure.code.value[0], message=failure.message)
    details.details.add().Pack(
        ErrorInfo(reason=failure.reason, domain=DOMAIN, metadata={"request_id": known} if known else {})
    )
    made: list[tuple[str, str | bytes]] = [("x-request-id", known)] if known else []
    if failure.retry_after_s is not None:
        details.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=failure.retry_after_s)))
        made.append(("retry-after", str(failure.retry_after_s)))
    return (*made, ("grpc-status-details-bin", details.SerializeToString()))


def _envelope(body: bytes) -> Mapping[str, Any] | None:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return error if isinstance(error, dict) else None


def _message(error: Mapping[str, Any]) -> str | None:
    said = error.get("message")
    if not isinstance(said, str) or not said:
        return None
    return said if len(said) <= LONGEST_MESSAGE else said[: LONGEST_MESSAGE - 1] + "…"


def _reason(error: Mapping[str, Any]) -> str | None:
    code = error.get("code")
    return code if isinstance(code, str) and code and len(code) <= 63 and code.isascii() else None
