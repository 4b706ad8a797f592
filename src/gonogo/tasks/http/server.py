"""Which path is whose: the routes of the queue's HTTP interface."""

from __future__ import annotations

import re

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gonogo.tasks.http import batches, files, tasks
from gonogo.tasks.http.desk import Desk, Handler, answering, error

_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/tasks", tasks.create),
    ("GET", "/v1/tasks", tasks.listing),
    ("GET", "/v1/tasks/{task_id}", tasks.get),
    ("GET", "/v1/tasks/{task_id}/steps", tasks.steps),
    ("POST", "/v1/tasks/{task_id}/cancel", tasks.cancel),
    ("POST", "/v1/files", files.create),
    ("GET", "/v1/files", files.listing),
    ("GET", "/v1/files/{file_id}", files.get),
    ("DELETE", "/v1/files/{file_id}", files.delete),
    ("GET", "/v1/files/{file_id}/content", files.content),
    ("POST", "/v1/batches", batches.create),
    ("GET", "/v1/batches", batches.listing),
    ("GET", "/v1/batches/{batch_id}", batches.get),
    ("POST", "/v1/batches/{batch_id}/cancel", batches.cancel),
)


_PLAIN = re.compile(r"[A-Za-z0-9/_.-]{1,128}")


def application(desk: Desk) -> Starlette:
    """The ASGI application."""
    routes = [Route(path, answering(desk, handler), methods=[method]) for method, path, handler in _ROUTES]
    made = Starlette(routes=routes, exception_handlers={404: _unknown, 405: _method})
    # A redirect would name this server's own scheme, http://: whoever follows it sends its key in the clear.
    made.router.redirect_slashes = False
    return made


async def _unknown(request: Request, _error: Exception) -> Response:
    paths = ", ".join(f"{method} {path}" for method, path, _ in _ROUTES)
    return error(request, 404, "unknown_path", f"There is no {_named(request)}. There are: {paths}.")


async def _method(request: Request, _error: Exception) -> Response:
    allowed = ", ".join(sorted({method for method, path, _ in _ROUTES if _fits(path, request.url.path)}))
    answer = error(request, 405, "method_not_allowed", f"There is no {_named(request)}; this path has {allowed}.")
    answer.headers["allow"] = allowed
    return answer


def _named(request: Request) -> str:
    """Method and path as a client sent them, or only that it is a path, where it is long or odd."""
    path = request.url.path
    return f"{request.method} {path if _PLAIN.fullmatch(path) else 'such path'}"


def _fits(route: str, path: str) -> bool:
    asked, there = path.split("/"), route.split("/")
    return len(asked) == len(there) and all(b.startswith("{") or a == b for a, b in zip(asked, there, strict=True))
