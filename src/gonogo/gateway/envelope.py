"""OpenAI's envelope of an error, with the hop that failed and the request id, as Envoy writes it. Pure.

{"error": {"message", "type", "param": null, "code", "hop", "request_id"}}
"""

from __future__ import annotations

from gonogo.gateway.resources.convert import Json

# A request that could not be parsed has no id yet: its connection's address stands for it, here and in the access log.
REQUEST_ID = '%COALESCE({"operators": ["STREAM_ID", "DOWNSTREAM_REMOTE_ADDRESS"]})%'

INVALID, SERVER = "invalid_request_error", "server_error"
WRAPPED = "x-gonogo-wrapped"
"""The header of what this gateway made itself; an engine cannot set it (`routes` removes it)."""


def envelope(*, message: str, type: str, code: str, hop: str, param: str | None = None) -> Json:
    """A header that is not there becomes null."""
    return {
        "json_format": {
            "error": {
                "message": message,
                "type": type,
                "param": param,
                "code": code,
                "hop": hop,
                "request_id": REQUEST_ID,
            }
        },
        "content_type": "application/json",
    }
