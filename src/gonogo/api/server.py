"""Control's HTTP API: JSON over a unix socket (mode 0600, in a directory of mode 0700). The CLI and the report use it.

Every error is `{"error": {"reason", "values", "exit_code"}}`; words are the caller's, from the catalogue.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from typing import Any, Awaitable, Callable, Iterator

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gonogo.control.desk import Caller, Desk, Refused
from gonogo.monitoring.exposition import CONTENT_TYPE
from gonogo.spec import Spec
from gonogo.store.faults import StoreError

BODY_LIMIT_BYTES = 1024 * 1024
WAIT_LIMIT_S = 20.0
EVENTS_LIMIT = 1000


def application(desk: Desk) -> Starlette:
    """The routes, each one line of translation to the desk."""

    async def healthz(_: Request) -> Response:
        return JSONResponse(desk.healthz())

    async def status(_: Request) -> Response:
        return JSONResponse(desk.status())

    async def submit(request: Request) -> Response:
        body = await _body(request)
        caller = Caller(principal=str(body.get("principal", "")), request_id=_request_id(request))
        allow_downtime = body.get("allow_downtime") is True
        return JSONResponse(await desk.submit(_spec(body), caller, body.get("started_at"), allow_downtime))

    async def make_plan(request: Request) -> Response:
        body = await _body(request)
        return JSONResponse(await desk.plan(_spec(body), body.get("allow_downtime") is True))

    async def check(request: Request) -> Response:
        return JSONResponse(desk.check(request.query_params.get("service")))

    async def check_live(request: Request) -> Response:
        return JSONResponse(await desk.check_live(str((await _body(request)).get("service", ""))))

    async def events(request: Request) -> Response:
        query = request.query_params
        wait_s = min(WAIT_LIMIT_S, float(query.get("wait_s", "0")))
        limit = min(EVENTS_LIMIT, int(query.get("limit", "200")))
        return JSONResponse(await desk.events(int(query.get("after", "0")), limit, wait_s))

    async def report(request: Request) -> Response:
        return JSONResponse(desk.report(request.query_params.get("service")))

    async def metrics(_: Request) -> Response:
        return Response(await asyncio.to_thread(desk.metrics), media_type=CONTENT_TYPE)

    async def remove(request: Request) -> Response:
        principal = request.query_params.get("principal", "")
        caller = Caller(principal=principal, request_id=_request_id(request))
        return JSONResponse(desk.remove(request.path_params["name"], caller))

    routes = [
        Route("/v1/healthz", healthz),
        Route("/v1/status", status),
        Route("/v1/specs", submit, methods=["POST"]),
        Route("/v1/plan", make_plan, methods=["POST"]),
        Route("/v1/check", check),
        Route("/v1/check/live", check_live, methods=["POST"]),
        Route("/v1/events", events),
        Route("/v1/report", report),
        Route("/metrics", metrics),
        Route("/v1/services/{name}", remove, methods=["DELETE"]),
    ]
    return Starlette(routes=[_guarded(route) for route in routes])


class _BadRequest(Exception):
    """The caller's mistake, in words."""


def _guarded(route: Route) -> Route:
    inner: Callable[[Request], Awaitable[Response]] = route.endpoint

    async def guarded(request: Request) -> Response:
        try:
            return await inner(request)
        except Refused as refused:
            return _error(refused.status, refused.reason, refused.values, refused.exit_code)
        except StoreError as fault:
            return _error(507, *fault.refusal, 4)
        except (_BadRequest, ValueError) as error:
            return _error(400, "BadRequest", {"detail": str(error)[:500]}, 2)

    return Route(route.path, guarded, methods=sorted(route.methods or {"GET"}))


def _request_id(request: Request) -> str:
    """The caller's own id where it sends one, else a new one."""
    return request.headers.get("x-request-id", "")[:128] or uuid.uuid4().hex


def _error(status: int, reason: str, values: Any, exit_code: int) -> Response:
    return JSONResponse({"error": {"reason": reason, "values": values, "exit_code": exit_code}}, status_code=status)


async def _body(request: Request) -> dict[str, Any]:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > BODY_LIMIT_BYTES:
            raise _BadRequest(f"a body may have {BODY_LIMIT_BYTES} bytes")
    try:
        body = json.loads(content)
    except ValueError as error:
        raise _BadRequest(f"not JSON: {error}") from None
    if not isinstance(body, dict):
        raise _BadRequest("the body must be a JSON object")
    return body


def _spec(body: dict[str, Any]) -> Spec:
    try:
        return Spec.model_validate_json(json.dumps(body.get("spec")))
    except ValidationError as error:
        raise _BadRequest(f"not a spec: {error}") from None


class Server(uvicorn.Server):
    """uvicorn on a socket that is already bound; signals belong to the control process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(desk: Desk) -> Server:
    """The server for `desk`; call `serve(sockets=[…])`."""
    config = uvicorn.Config(application(desk), log_level="warning", lifespan="off", access_log=False)
    return Server(config)
