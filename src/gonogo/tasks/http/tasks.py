"""/v1/tasks: leave one request or some, or a run of an agent; look at them, wait for one, read its steps, cancel it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from gonogo.tasks import ledger
from gonogo.tasks.agents import runs
from gonogo.tasks.agents.asked import read_agent, require_scope
from gonogo.tasks.agents.keys import RunKeys
from gonogo.tasks.agents.nouns import URL, Run
from gonogo.tasks.agents.shown import opened_step, shown_agent
from gonogo.tasks.agents.tools import Missing, find_tools
from gonogo.tasks.asked import Wrong, kind, only, read_name, read_request, read_window
from gonogo.tasks.http.desk import LARGEST_PAGE, Desk, NotThere, Reply, asks_only, body, listed, number, owner
from gonogo.tasks.nouns import DEFAULT_WINDOW_S, OPEN, State, Task
from gonogo.tasks.requests import Wish, new_task, record

FIELDS = ("url", "body", "idempotency_key", "window")
AGENT_FIELDS = ("agent", "model", "idempotency_key", "window")
MOST_AT_ONCE = 1000
_ONE_KEY = "The header Idempotency-Key stands for one task: give each of `tasks` an `idempotency_key` of its own."
LONGEST_WAIT_S, LOOK_EVERY_S = 60, 0.1


async def create(desk: Desk, request: Request) -> Response:
    """202 once it is on the disk: one task, or a list of them in the order of `tasks`."""
    whose = owner(request)
    given = await body(request, (*FIELDS, "agent", "model", "tasks"))
    several = given.get("tasks")
    if several is None:
        wishes = [_wish(given, whose, request.headers.get("idempotency-key"))]
    else:
        only(given, ("tasks",))
        if "idempotency-key" in request.headers:
            raise Wrong("invalid_name", _ONE_KEY, "Idempotency-Key")
        wishes = _wishes(several, whose)
    await asyncio.to_thread(_require_agents, desk, wishes, whose)
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
        return Reply((await _shown(desk, made))[0], status_code=202)
    return Reply({"object": "list", "data": await _shown(desk, made)}, status_code=202)


async def listing(desk: Desk, request: Request) -> Response:
    """This key's tasks, newest first."""
    asks_only(request, "limit", "after", "state")
    whose, limit = owner(request), number(request, "limit", 20, LARGEST_PAGE)
    after, state = request.query_params.get("after"), request.query_params.get("state")
    if state is not None and state not in {one.value for one in State}:
        raise Wrong("invalid_query", f"`state` must be one of {', '.join(one.value for one in State)}.", "state")
    before = None if after is None else (await _task(desk, after, whose, "after")).number

    def look() -> tuple[Task, ...]:
        with desk.queue.database.reading() as c:
            wanted = None if state is None else State(state)
            return ledger.page(c, whose, before=before, limit=limit + 1, state=wanted)

    found = await asyncio.to_thread(look)
    return listed(await _shown(desk, found[:limit]), len(found) > limit)


async def get(desk: Desk, request: Request) -> Response:
    """The task, with its result; with `?wait=SECONDS` when it ends, or after so long."""
    asks_only(request, "wait")
    whose, wait_s = owner(request), number(request, "wait", 0, LONGEST_WAIT_S, least=0)
    until = asyncio.get_running_loop().time() + wait_s
    while True:
        task = await _task(desk, request.path_params["task_id"], whose)
        left_s = until - asyncio.get_running_loop().time()
        if task.state not in OPEN or left_s <= 0:
            result = await asyncio.to_thread(partial(_result, desk, task))
            return Reply({**(await _shown(desk, [task]))[0], "result": result})
        await asyncio.sleep(min(LOOK_EVERY_S, left_s))


async def cancel(desk: Desk, request: Request) -> Response:
    """Not wanted any more; one that has ended stays as it is."""
    task = await _task(desk, request.path_params["task_id"], owner(request))
    await asyncio.wrap_future(desk.writer.write(lambda c: ledger.cancel(c, [task.number], desk.wall())))
    return Reply((await _shown(desk, [await _task(desk, task.task_id, task.owner)]))[0])


async def steps(desk: Desk, request: Request) -> Response:
    """What the agent of this task has done so far, in order; also what it did before it was started again."""
    asks_only(request, "limit", "after")
    task = await _task(desk, request.path_params["task_id"], owner(request))
    limit = number(request, "limit", LARGEST_PAGE, LARGEST_PAGE)
    after = _after(request.query_params.get("after"))

    def look() -> list[dict[str, Any]]:
        with desk.queue.database.reading() as c:
            found = runs.steps(c, task.number, after, limit + 1)
        return [opened_step(desk.queue.bodies, task.task_id, one) for one in found]

    seen = await asyncio.to_thread(look)
    return listed(seen[:limit], len(seen) > limit)


def shown(task: Task, run: Run | None = None) -> dict[str, Any]:
    """A task as clients see it."""
    agent = None if run is None else shown_agent(task, run)
    error = None if task.reason is None else {"code": task.reason, "message": task.message}
    return {
        "id": task.task_id,
        "object": "task",
        "state": task.state.value,
        "url": task.url if run is None else None,
        "agent": agent,
        "model": task.model,
        "attempts": task.attempts,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "expires_at": task.expires_at,
        "error": error if task.state is not State.DONE else None,
    }


async def _shown(desk: Desk, found: Sequence[Task]) -> list[dict[str, Any]]:
    def look() -> Mapping[int, Run]:
        with desk.queue.database.reading() as c:
            return runs.found(c, [task.number for task in found if task.url.startswith(URL)])

    known = await asyncio.to_thread(look) if any(task.url.startswith(URL) for task in found) else {}
    return [shown(task, known.get(task.number)) for task in found]


def _after(text: str | None) -> tuple[int, int]:
    """Attempt and step of a step's id, `2.7`. Raises `Wrong`."""
    if text is None:
        return 0, 0
    attempt, dot, step = text[:32].partition(".")
    if not (dot and attempt.isascii() and attempt.isdigit() and step.isascii() and step.isdigit()):
        raise Wrong("invalid_query", "`after` must be the id of a step, such as 1.7.", "after")
    return int(attempt), int(step)


def _require_agents(desk: Desk, wishes: Sequence[Wish], whose: str) -> None:
    """Raises `Wrong` for an agent that could not even start, `NotAllowed` for a key that may not run any."""
    if all(wish.run is None for wish in wishes):
        return
    store = RunKeys(desk.queue.paths).store()
    try:
        require_scope(next((key.scopes for key in store.keys() if key.key_id == whose), ()))  # noqa: SIM118 (not a dict)
    finally:
        store.close()
    try:
        for program in {wish.run.program for wish in wishes if wish.run is not None}:
            find_tools(program, desk.queue.paths)
    except Missing as missing:
        raise Wrong(missing.code, missing.message, missing.param) from None


def _wish(given: Mapping[str, Any], whose: str, header: str | None) -> Wish:
    run = None
    if "agent" in given:
        only(given, AGENT_FIELDS)
        asked, run = read_agent(given["agent"], given.get("model"))
    else:
        only(given, FIELDS)
        asked = read_request(given.get("url", "/v1/chat/completions"), given.get("body"))
    return Wish(
        asked=asked,
        run=run,
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
            wishes.append(_wish(one, whose, None))
        except Wrong as wrong:
            raise Wrong(wrong.code, f"In `{where}`: {wrong.message}", f"{where}.{wrong.param}") from None
    return wishes


async def _task(desk: Desk, task_id: str, whose: str, param: str | None = None) -> Task:
    """A task of this owner's. Raises `NotThere`; `param` names what asks for it."""

    def look() -> Task | None:
        with desk.queue.database.reading() as c:
            return ledger.task(c, task_id, whose)

    task = await asyncio.to_thread(look)
    if task is None:
        raise NotThere("task", task_id, param)
    return task


def _result(desk: Desk, task: Task) -> Any:
    with desk.queue.database.reading() as c:
        sealed = ledger.result(c, task.number)
    return None if sealed is None else desk.queue.bodies.open(task.task_id, "result", sealed)
