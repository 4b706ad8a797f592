"""/v1/tasks: leave one request or some, look at them, wait for one, cancel it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gonogo.tasks import ledger
from gonogo.tasks.asked import Wrong, kind, only, read_name, read_request, read_window
from gonogo.tasks.http.desk import LARGEST_PAGE, Desk, NotThere, body, listed, number, owner
from gonogo.tasks.nouns import DEFAULT_WINDOW_S, OPEN, State, Task
from gonogo.tasks.requests import Wish, new_task, record

FIELDS = ("url", "body", "idempotency_key", "window")
MOST_AT_ONCE = 1000
LONGEST_WAIT_S, LOOK_EVERY_S = 60, 0.1


async def create(desk: Desk, request: Request) -> Response:
    """202 once it is on the disk: one task, or a list of them in the order of `tasks`."""
    whose = owner(request)
    given = await body(request, (*FIELDS, "tasks"))
    several = given.get("tasks")
    if several is None:
        wishes = [_wish(given, whose, request.headers.get("idempotency-key"))]
    else:
        only(given, ("tasks",))
        wishes = _wishes(several, whose)
    now = desk.wall()
    news = await asyncio.to_thread(lambda: [new_task(wish, desk.queue.bodies, now) for wish in wishes])

    def write(c: Any) -> list[Task]:
        found = [record(c, new, wish, desk.queue.bodies) for new, wish in zip(news, wishes, strict=True)]
        fresh = sum(one.task_id == new.task_id for one, new in zip(found, news, strict=True))
        desk.bounds.admit(c, whose, fresh)
        return found

    made = await asyncio.wrap_future(desk.writer.write(write))
    asyncio.get_running_loop().run_in_executor(None, desk.bell.ring)
    if several is None:
        return JSONResponse(shown(made[0]), status_code=202)
    return JSONResponse({"object": "list", "data": [shown(task) for task in made]}, status_code=202)


async def listing(desk: Desk, request: Request) -> Response:
    """This key's tasks, newest first."""
    whose, limit = owner(request), number(request, "limit", 20, LARGEST_PAGE)
    after, state = request.query_params.get("after"), request.query_params.get("state")
    if state is not None and state not in {one.value for one in State}:
        raise Wrong("invalid_query", f"`state` must be one of {', '.join(one.value for one in State)}.", "state")
    before = None if after is None else (await _task(desk, after, whose)).number

    def look() -> tuple[Task, ...]:
        with desk.queue.database.reading() as c:
            wanted = None if state is None else State(state)
            return ledger.page(c, whose, before=before, limit=limit + 1, state=wanted)

    found = await asyncio.to_thread(look)
    return listed([shown(task) for task in found[:limit]], len(found) > limit)


async def get(desk: Desk, request: Request) -> Response:
    """The task, with its result; with `?wait=SECONDS` when it ends, or after so long."""
    whose = owner(request)
    wait_s = number(request, "wait", 0, LONGEST_WAIT_S) if "wait" in request.query_params else 0
    until = asyncio.get_running_loop().time() + wait_s
    while True:
        task = await _task(desk, request.path_params["task_id"], whose)
        left_s = until - asyncio.get_running_loop().time()
        if task.state not in OPEN or left_s <= 0:
            return JSONResponse({**shown(task), "result": await asyncio.to_thread(partial(_result, desk, task))})
        await asyncio.sleep(min(LOOK_EVERY_S, left_s))


async def cancel(desk: Desk, request: Request) -> Response:
    """Not wanted any more; one that has ended stays as it is."""
    task = await _task(desk, request.path_params["task_id"], owner(request))
    await asyncio.wrap_future(desk.writer.write(lambda c: ledger.cancel(c, [task.number], desk.wall())))
    return JSONResponse(shown(await _task(desk, task.task_id, task.owner)))


def shown(task: Task) -> dict[str, Any]:
    """A task as clients see it."""
    error = None if task.reason is None else {"code": task.reason, "message": task.message}
    return {
        "id": task.task_id,
        "object": "task",
        "state": task.state.value,
        "url": task.url,
        "model": task.model,
        "attempts": task.attempts,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "expires_at": task.expires_at,
        "error": error if task.state is not State.DONE else None,
    }


def _wish(given: Mapping[str, Any], whose: str, header: str | None) -> Wish:
    return Wish(
        asked=read_request(given.get("url", "/v1/chat/completions"), given.get("body")),
        owner=whose,
        idempotency_key=read_name(given.get("idempotency_key", header), "idempotency_key"),
        window_s=read_window(given.get("window"), "window", DEFAULT_WINDOW_S),
    )


def _wishes(several: object, whose: str) -> list[Wish]:
    if not isinstance(several, list) or not 0 < len(several) <= MOST_AT_ONCE:
        raise Wrong("invalid_tasks", f"`tasks` must be a list of 1 to {MOST_AT_ONCE} tasks.", "tasks")
    wishes = []
    for position, one in enumerate(several):
        where = f"tasks[{position}]"
        if not isinstance(one, dict):
            raise Wrong("invalid_tasks", f"`{where}` must be an object, it is {kind(one)}.", where)
        try:
            only(one, FIELDS)
            wishes.append(_wish(one, whose, None))
        except Wrong as wrong:
            raise Wrong(wrong.code, f"In `{where}`: {wrong.message}", f"{where}.{wrong.param}") from None
    return wishes


async def _task(desk: Desk, task_id: str, whose: str) -> Task:
    """A task of this owner's. Raises `NotThere`."""

    def look() -> Task | None:
        with desk.queue.database.reading() as c:
            return ledger.task(c, task_id, whose)

    task = await asyncio.to_thread(look)
    if task is None:
        raise NotThere("task", task_id)
    return task


def _result(desk: Desk, task: Task) -> Any:
    with desk.queue.database.reading() as c:
        sealed = ledger.result(c, task.number)
    return None if sealed is None else desk.queue.bodies.open(task.task_id, "result", sealed)
