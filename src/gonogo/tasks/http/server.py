"""Which path is whose: the routes of the queue's HTTP interface."""

from __future__ import annotations

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


def application(desk: Desk) -> Starlette:
    """The ASGI application."""
    routes = [Route(path, answering(desk, handler), methods=[method]) for method, path, handler in _ROUTES]
    return Starlette(routes=routes, exception_handlers={404: _unknown, 405: _method})


async def _unknown(request: Request, _error: Exception) -> Response:
    paths = ", ".join(f"{method} {path}" for method, path, _ in _ROUTES)
    return error(request, 404, "unknown_path", f"There are: {paths}.")


async def _method(request: Request, _error: Exception) -> Response:
    return error(request, 405, "method_not_allowed", f"{request.method} is not one of the methods of this path.")
