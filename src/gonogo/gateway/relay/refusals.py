"""What the relay itself says to a client: OpenAI's envelope, as an answer or as the last event of a stream. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping

from gonogo.gateway.relay.sse import DONE, event_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that can go wrong, with the status that it has before a stream has begun."""

    status: int
    code: str
    message: str
    hop: str = "engine"
    type: str = "server_error"
    retry_after_s: int | None = None

    def envelope(self, request_id: str) -> Mapping[str, Any]:
        """The JSON object of the answer."""
        content = {"message": self.message, "type": self.type, "param": None, "code": self.code, "hop": self.hop}
        return {"error": {**content, "request_id": request_id}}

    def body(self, request_id: str) -> bytes:
        """The answer before a stream has begun."""
        return json.dumps(self.envelope(request_id)).encode()

    def events(self, request_id: str) -> bytes:
        """The end of a stream that has begun."""
        return event_of(self.envelope(request_id)) + DONE

    def headers(self) -> dict[str, str]:
        """Of the answer; the first keeps the gateway from wrapping it again."""
        headers = {"x-gonogo-wrapped": "1", "content-type": "application/json"}
        return headers if self.retry_after_s is None else {**headers, "retry-after": str(self.retry_after_s)}


def replica_lost(reason: str) -> Refusal:
    """The replica died or hung, and the answer cannot go on; `reason` as in the record."""
    why = _WHY.get(reason, "its engine does not allow it")
    return Refusal(
        status=503,
        code="replica_lost",
        message=f"The replica went away while it answered, and the answer could not be continued: {why}. Try again.",
        retry_after_s=1,
    )


OVERLOADED = Refusal(
    status=503,
    code="overloaded",
    hop="gateway",
    message="The gateway holds as many streams as it may. Try again.",
    retry_after_s=1,
)
NOT_A_STREAM = Refusal(
    status=400,
    code="not_a_stream",
    hop="gateway",
    type="invalid_request_error",
    message='Only requests whose body is a JSON object with "stream": true come this way.',
)
TOO_LARGE = Refusal(
    status=413,
    code="body_too_large",
    hop="gateway",
    type="invalid_request_error",
    message="The request body is larger than 32 MiB.",
)
UNKNOWN_PATH = Refusal(
    status=404,
    code="unknown_path",
    hop="gateway",
    type="invalid_request_error",
    message="There is nothing at this path.",
)
BROKEN = Refusal(
    status=500,
    code="relay_error",
    hop="gateway",
    message="The process that passes streams on met an error of its own. Try again.",
)
DRAINED = Refusal(
    status=503,
    code="gateway_restarted",
    hop="gateway",
    message="The gateway was stopped while this answer ran. Try again.",
    retry_after_s=1,
)

_WHY: Mapping[str, str] = {
    "budget": "it was continued as often as one request may be",
    "no_replica": "no other replica took over",
    "policy": "requests of this kind are not continued",
    "several_choices": "a request with several choices is not continued",
    "structured_output": "structured output is not continued",
    "tools": "a request with tools is not continued",
    "reasoning": "an answer is not continued while the model reasons",
    "penalties": "frequency and presence penalties are not continued on this engine",
}
