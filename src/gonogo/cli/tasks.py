"""`gonogo tasks …`: what waits, runs and failed in the queue, straight from its ledger, without control."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Callable, Iterator, Mapping, Optional

import typer

from gonogo.cli.options import Json, Lang, StateDir, told
from gonogo.cli.refusal import WORLD_DID_NOT_COMPLY, WRONG_INPUT, Outcome, Refusal
from gonogo.cli.tasks_agent import leaving_a_run, print_steps, shown_run

if TYPE_CHECKING:
    import sqlite3

    from gonogo.cli.session import Session
    from gonogo.tasks.nouns import Task
    from gonogo.tasks.places import Queue

TaskId = Annotated[str, typer.Argument(metavar="ID", help=told("argument.task"), show_default=False)]
OptionalId = Annotated[Optional[str], typer.Argument(metavar="ID", help=told("argument.task"), show_default=False)]
TaskIds = Annotated[Optional[list[str]], typer.Argument(metavar="ID…", help=told("argument.task"), show_default=False)]
StateAsked = Annotated[
    Optional[str], typer.Option("--state", metavar="STATE", help=told("option.task_state"), show_default=False)
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", help=told("option.limit"))]
Within = Annotated[int, typer.Option("--within", metavar="SECONDS", help=told("option.within"))]
AllDead = Annotated[bool, typer.Option("--dead", help=told("option.all_dead"), show_default=False)]
Off = Annotated[bool, typer.Option("--off", help=told("option.off"), show_default=False)]
Result = Annotated[bool, typer.Option("--result", help=told("option.task_result"), show_default=False)]
LOOK_EVERY_S = 0.5
MOST = 10_000


def application() -> typer.Typer:
    """The verbs under `tasks`."""
    made = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    verbs: Mapping[str, Callable[..., Outcome]] = {
        "list": list_tasks,
        "show": show,
        "run-agent": leaving_a_run(_queue),
        "wait": wait,
        "cancel": cancel,
        "retry": retry,
        "drain": drain,
        "dead": dead,
        "rotate-key": rotate_key,
    }
    for name, verb in verbs.items():
        made.command(name, help=told(f"tasks.{name}"))(verb)
    return made


def list_tasks(
    state: StateAsked = None, limit: Limit = 20, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    from gonogo.tasks import batches, ledger
    from gonogo.tasks.nouns import State
    from gonogo.tasks.summary import summary
    from gonogo.words.queue import queue_lines

    if state is not None and state not in {one.value for one in State}:
        values = {"option": "--state", "given": state, "allowed": [one.value for one in State]}
        raise Refusal("NotATaskOption", WRONG_INPUT, values)
    with _queue(state_dir, json, lang) as (session, queue), queue.database.reading() as c:
        now = time.time()
        seen = summary(c, now)
        tasks = ledger.page(c, None, before=None, limit=limit, state=None if state is None else State(state))
        found = [_batch(c, one) for one in batches.page(c, None, after=None, limit=limit)]
    for line in queue_lines(asdict(seen), session.lang):
        session.line(line)
    for one in found:
        session.line(f"{one['id']}  {one['state']}  {one['done']}/{one['total']}  ✗ {one['failed']}")
    if tasks:
        session.out.print(_table(session, tasks, now))
    return Outcome(result={"summary": asdict(seen), "batches": found, "tasks": [_plain(one) for one in tasks]})


def show(
    task: TaskId, result: Result = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    from gonogo.tasks import ledger

    with _queue(state_dir, json, lang) as (session, queue):
        with queue.database.reading() as c:
            found = _found(c, task)
            bodies = (
                None if isinstance(found, dict) else (ledger.prompt(c, found.number), ledger.result(c, found.number))
            )
            run = {} if isinstance(found, dict) else shown_run(queue, c, found, steps=result)
        shown = found if isinstance(found, dict) else {**_plain(found), **run}
        if result and bodies is not None:
            shown["prompt"] = queue.bodies.open(task, "prompt", bodies[0])
            shown["result"] = None if bodies[1] is None else queue.bodies.open(task, "result", bodies[1])
        for name, value in shown.items():
            if value is not None and name != "steps":
                session.line(f"{name}: {value}")
        print_steps(session, shown.get("steps", ()))
    return Outcome(result=shown)


def wait(
    task: OptionalId = None, within: Within = 86400, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    """A task, a batch, or all that there is. Exit code 4: it did not end well, or not in time."""
    until = time.monotonic() + within
    with _queue(state_dir, json, lang) as (session, queue):
        told_before = ""
        while True:
            with queue.database.reading() as c:
                left, line, well = _how_far(session, c, task)
            if line != told_before and not json:
                session.err.print(line, markup=False, highlight=False)
                told_before = line
            if left == 0:
                return Outcome(result={"ended": True, "well": well}, exit_code=0 if well else WORLD_DID_NOT_COMPLY)
            if time.monotonic() > until:
                raise Refusal("TasksNotDone", WORLD_DID_NOT_COMPLY, {"left": left, "within_s": within})
            time.sleep(LOOK_EVERY_S)


def cancel(tasks: TaskIds = None, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.tasks import batches, ledger

    with _queue(state_dir, json, lang) as (session, queue), queue.database.writing() as c:
        changed, now = 0, time.time()
        for name in tasks or ():
            found = _found(c, name)
            changed += (
                batches.cancel(c, name, now) if isinstance(found, dict) else ledger.cancel(c, [found.number], now)
            )
    session.say("tasks.cancelled", count=changed)
    return Outcome(result={"cancelled": changed})


def retry(
    tasks: TaskIds = None, dead: AllDead = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    from gonogo.tasks import ledger
    from gonogo.tasks.nouns import DEFAULT_WINDOW_S

    with _queue(state_dir, json, lang) as (session, queue), queue.database.writing() as c:
        numbers = [one.number for one in ledger.dead(c, MOST)] if dead else []
        numbers += [found.number for name in tasks or () if not isinstance(found := _found(c, name), dict)]
        changed = ledger.retry(c, numbers, time.time(), DEFAULT_WINDOW_S)
    session.say("tasks.retried", count=changed)
    return Outcome(result={"retried": changed})


def drain(off: Off = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.tasks import leases

    with _queue(state_dir, json, lang) as (session, queue), queue.database.writing() as c:
        leases.drain(c, not off, time.time())
        held = sum(count for _, count in leases.holders(c))
    session.say("tasks.drain_off" if off else "tasks.drain_on", count=held)
    return Outcome(result={"draining": not off, "running": held})


def dead(limit: Limit = 20, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.tasks import ledger

    with _queue(state_dir, json, lang) as (session, queue), queue.database.reading() as c:
        found = ledger.dead(c, limit)
    if not found:
        session.say("tasks.none_dead")
    for one in found:
        session.line(f"{one.task_id}  {one.reason}: {one.message}")
    return Outcome(result={"dead": [_plain(one) for one in found]})


def rotate_key(state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    with _queue(state_dir, json, lang) as (session, queue):
        key_id = queue.bodies.keyring.rotate()
    session.say("tasks.rotated", key_id=key_id)
    return Outcome(result={"key_id": key_id})


@contextmanager
def _queue(state_dir: str | None, json: bool, lang: str | None) -> Iterator[tuple[Session, Queue]]:
    from gonogo.cli.session import open_session
    from gonogo.runtimes.paths import UnsafeDirectory
    from gonogo.security.keyring import KeyFileError
    from gonogo.security.sealing import SealError
    from gonogo.tasks.places import open_queue

    session = open_session(state_dir, json, lang)
    try:
        queue = open_queue(session.paths)
        try:
            yield session, queue
        finally:
            queue.database.close()
    except (OSError, UnsafeDirectory, KeyFileError, SealError) as error:
        raise Refusal(
            "StateUnusable", WORLD_DID_NOT_COMPLY, {"words": str(error), "remedy": "--state-dir DIR"}
        ) from None


def _found(c: sqlite3.Connection, name: str) -> Task | dict[str, Any]:
    """A task, or a batch as a mapping. Raises `Refusal` TaskUnknown."""
    from gonogo.tasks import batches, ledger

    task = ledger.task(c, name)
    if task is not None:
        return task
    batch = batches.batch(c, name)
    if batch is None:
        raise Refusal("TaskUnknown", WRONG_INPUT, {"asked": name})
    return _batch(c, batch)


def _how_far(session: Session, c: sqlite3.Connection, name: str | None) -> tuple[int, str, bool]:
    """How many are open, a line about it, and whether all that ended ended well."""
    from gonogo.tasks.nouns import OPEN, State
    from gonogo.tasks.summary import summary

    found = None if name is None else _found(c, name)
    if found is None:
        seen = summary(c, time.time())
        values = {"open": seen.counts.open, "rate": seen.ended_per_s, "dead": seen.counts.dead}
        return seen.counts.open + seen.batches, session.told("tasks.progress", **values), seen.counts.dead == 0
    if isinstance(found, dict):
        left = 0 if found["finished_at"] else max(1, found["total"] - found["done"] - found["failed"])
        line = f"{found['id']}  {found['state']}  {found['done']}/{found['total']}  ✗ {found['failed']}"
        return left, line, found["state"] == "completed"
    return int(found.state in OPEN), f"{found.task_id}  {found.state.value}", found.state is State.DONE


def _batch(c: sqlite3.Connection, batch: Any) -> dict[str, Any]:
    from gonogo.tasks import ledger
    from gonogo.tasks.nouns import Counts

    counts = Counts() if batch.total is not None else ledger.counts(c, batch.batch_id)
    failed = counts.failed + counts.dead + counts.cancelled
    return {
        "id": batch.batch_id,
        "owner": batch.owner,
        "state": batch.state,
        "total": counts.total if batch.total is None else batch.total,
        "done": counts.done if batch.completed is None else batch.completed,
        "failed": failed if batch.failed is None else batch.failed,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "finished_at": batch.finished_at,
        "error": batch.error_message,
    }


def _plain(task: Task) -> dict[str, Any]:
    left_out = ("number", "task_id", "state")
    return {
        "id": task.task_id,
        "state": task.state.value,
        **{name: value for name, value in asdict(task).items() if name not in left_out},
    }


def _table(session: Session, tasks: tuple[Task, ...], now: float) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for name in ("id", "state", "owner", "age", "attempts", "reason"):
        table.add_column(session.told(f"tasks.{name}"), no_wrap=name != "reason")
    for one in tasks:
        style = {"done": "green", "failed": "red", "dead": "red"}.get(one.state.value, "yellow")
        age = f"{max(0, now - one.created_at):.0f} s"
        shown = (one.task_id, Text(one.state.value, style=style), one.owner, age, str(one.attempts), one.reason or "")
        table.add_row(*shown)
    return table
