"""What every handler needs, and how things look on the wire: OpenAI's envelope for errors, whose request it is.

The gateway has checked the key and says whose it is in x-gonogo-key-id; it strips that header from what clients send,
and this server listens on a unix socket that only this user can reach.
"""

from __future__ import annotations

import asyncio
import errno
import json
import traceback
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gonogo.security.keyring import KeyFileError
from gonogo.security.sealing import SealError
from gonogo.store.faults import StoreBusy, StoreError, StoreFull
from gonogo.tasks.asked import NotAllowed, Wrong, kind, not_json, only
from gonogo.tasks.bounds import Bounds, TooMuch
from gonogo.tasks.database import GroupWriter
from gonogo.tasks.doorbell import Bell
from gonogo.tasks.places import Queue

KEY_HEADER = "x-gonogo-key-id"
MOST_BODY_BYTES = 32 * 2**20
LARGEST_PAGE = 100
TOO_MUCH_S = 10

_FAULT = "The queue met an error of its own; `gonogo logs tasks-0` has it."
_FULL = "The queue cannot be written at the moment. Try again."

Handler = Callable[["Desk", Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """`wall` gives Unix seconds; `tell` gets one record for each kind of failure of ours."""

    queue: Queue
    writer: GroupWriter
    bell: Bell
    bounds: Bounds
    wall: Callable[[], float]
    tell: Callable[[str], None]


class NotThere(Exception):
    """No such thing, or not this key's: to its owner alone it is there."""

    def __init__(self, what: str, name: str, param: str | None = None) -> None:
        shown = name if name.isascii() and name.replace("-", "_").isidentifier() and len(name) <= 64 else "…"
        super().__init__(f"There is no {what} {shown} that this API key may see.")
        self.param = param


def answering(desk: Desk, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The handler with every error told in OpenAI's envelope: the one boundary of this server."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(desk, request)
        except Wrong as wrong:
            return error(
                request, 403 if isinstance(wrong, NotAllowed) else 400, wrong.code, wrong.message, param=wrong.param
            )
        except TooMuch as much:
            status, retry_s = (429, TOO_MUCH_S) if much.later else (413, None)
            return error(request, status, much.code, much.message, retry_s=retry_s)
        except NotThere as missing:
            return error(request, 404, "not_found", str(missing), param=missing.param)
        except (StoreFull, StoreBusy) as full:
            desk.tell(str(full))
            return error(request, 503, "queue_unavailable", _FULL, retry_s=1)
        except (StoreError, KeyFileError, SealError, OSError) as fault:
            desk.tell(f"{type(fault).__name__}: {fault}")
            if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
                return error(request, 503, "queue_unavailable", _FULL, retry_s=1)
            return error(request, 500, "queue_error", _FAULT)
        except Exception as fault:  # noqa: BLE001 (the boundary: a bug of ours is told as ours, where it was, not its words)
            where = traceback.extract_tb(fault.__traceback__)[-1]
            desk.tell(f"{type(fault).__name__} at {where.filename}:{where.lineno}")
            return error(request, 500, "queue_error", _FAULT)

    return answer


def owner(request: Request) -> str:
    """Whose request it is. Raises `Wrong` when the gateway did not say."""
    found = request.headers.get(KEY_HEADER)
    if not found:
        raise Wrong("no_key_id", "The gateway did not say whose request this is.")
    return found


async def body(request: Request, known: tuple[str, ...]) -> Mapping[str, Any]:
    """The JSON object of a request, with no field beside the known. Raises `Wrong`."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BODY_BYTES:
            raise Wrong("body_too_large", f"The body is larger than {MOST_BODY_BYTES // 2**20} MiB.")
    try:
        given = await asyncio.to_thread(json.loads, bytes(data))
    except (ValueError, RecursionError) as fault:
        raise Wrong("invalid_json", f"The body is not valid JSON: {not_json(fault)}.") from None
    if not isinstance(given, dict):
        raise Wrong("invalid_json", f"The body must be an object, it is {kind(given)}.")
    only(given, known)
    return given


def asks_only(request: Request, *known: str) -> None:
    """Raises `Wrong` for a parameter of the query that there is not: a filter that is dropped lists too much."""
    for name in request.query_params:
        if name not in known:
            shown = name if name.isascii() and name.isidentifier() and len(name) <= 64 else "with an odd name"
            raise Wrong("invalid_query", f"There is no parameter `{shown}`; there are {', '.join(known)}.", shown)


def number(request: Request, name: str, default: int, most: int, least: int = 1) -> int:
    """A whole number of the query, from `least` to `most`. Raises `Wrong`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= most):
        raise Wrong("invalid_query", f"`{name}` must be a whole number from {least} to {most}.", name)
    return int(text[:9])


class Reply(JSONResponse):
    """JSON, also of what an engine said: half a character goes out as the escape that it came as."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def listed(data: list[dict[str, Any]], more: bool) -> Response:
    """A page, as OpenAI's lists are."""
    return Reply(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": more,
        }
    )


def error(
    request: Request, status: int, code: str, message: str, *, param: str | None = None, retry_s: int | None = None
) -> Response:
    """OpenAI's envelope, as the gateway's own errors have it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    kind = {403: "permission_error", 429: "rate_limit_error"}.get(status, kind)
    request_id = request.headers.get("x-request-id")
    inside = {"message": message, "type": kind, "param": param, "code": code, "hop": "tasks", "request_id": request_id}
    # The gateway leaves an error as it is that says so; the header goes no further.
    headers = {"x-gonogo-wrapped": "1", **({"retry-after": str(retry_s)} if retry_s else {})}
    return JSONResponse({"error": inside}, status_code=status, headers=headers)
