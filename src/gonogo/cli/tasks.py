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
from gonogo.cli.tasks_page import batch_fields, batch_line, readable, table, task_fields, why_it_waits

if TYPE_CHECKING:
    import sqlite3

    from gonogo.cli.session import Session
    from gonogo.tasks.nouns import Task
    from gonogo.tasks.places import Queue

MOST = 10_000
TaskId = Annotated[str, typer.Argument(metavar="ID", help=told("argument.task"), show_default=False)]
OptionalId = Annotated[Optional[str], typer.Argument(metavar="ID", help=told("argument.task"), show_default=False)]
TaskIds = Annotated[Optional[list[str]], typer.Argument(metavar="ID…", help=told("argument.task"), show_default=False)]
StateAsked = Annotated[
    Optional[str], typer.Option("--state", metavar="STATE", help=told("option.task_state"), show_default=False)
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=MOST, help=told("option.limit"))]
Within = Annotated[int, typer.Option("--within", metavar="SECONDS", min=0, help=told("option.within"))]
AllDead = Annotated[bool, typer.Option("--dead", help=told("option.all_dead"), show_default=False)]
Off = Annotated[bool, typer.Option("--off", help=told("option.off"), show_default=False)]
Result = Annotated[bool, typer.Option("--result", help=told("option.task_result"), show_default=False)]
LOOK_EVERY_S = 0.5


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
        found = [batch_fields(c, one) for one in batches.page(c, None, after=None, limit=limit)]
    for line in queue_lines(asdict(seen), session.lang):
        session.line(line)
    for one in found:
        session.line(batch_line(one))
    if tasks:
        session.out.print(table(session, tasks, now))
    return Outcome(result={"summary": asdict(seen), "batches": found, "tasks": [task_fields(one) for one in tasks]})


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
            waits = why_it_waits(c, task) if isinstance(found, dict) else {}
        shown = {**found, **waits} if isinstance(found, dict) else {**task_fields(found), **run}
        if result and bodies is not None:
            shown["prompt"] = queue.bodies.open(task, "prompt", bodies[0])
            shown["result"] = None if bodies[1] is None else queue.bodies.open(task, "result", bodies[1])
        for text in readable(shown):
            session.line(text)
        print_steps(session, shown.get("steps", ()))
    return Outcome(result=shown)


def wait(
    task: OptionalId = None, within: Within = 86400, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    """A task, a batch, or all that there is. Exit code 4: it did not end well, or not in time."""
    from gonogo.tasks import leases

    until = time.monotonic() + within
    with _queue(state_dir, json, lang) as (session, queue):
        told_before = ""
        while True:
            with queue.database.reading() as c:
                left, line, well = _how_far(session, c, task)
                draining = leases.draining(c)
            if left and draining:
                line = f"{line}  {session.told('tasks.draining')}"
            if line != told_before and not json:
                session.err.print(line, markup=False, highlight=False, soft_wrap=True)
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
        for name in _named(tasks, "cancel"):
            found = _found(c, name)
            changed += (
                batches.cancel(c, name, now) if isinstance(found, dict) else ledger.cancel(c, [found.number], now)
            )
    session.say("tasks.cancelled" if changed else "tasks.unchanged", count=changed)
    return Outcome(result={"cancelled": changed})


def retry(
    tasks: TaskIds = None, dead: AllDead = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    from gonogo.tasks import ledger
    from gonogo.tasks.nouns import DEFAULT_WINDOW_S

    with _queue(state_dir, json, lang) as (session, queue), queue.database.writing() as c:
        numbers = [one.number for one in ledger.dead(c, MOST)] if dead else []
        numbers += [_single(c, name).number for name in (tasks or () if dead else _named(tasks, "retry"))]
        changed = ledger.retry(c, numbers, time.time(), DEFAULT_WINDOW_S)
    session.say("tasks.retried" if changed else "tasks.unchanged", count=changed)
    return Outcome(result={"retried": changed})


def drain(off: Off = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.tasks import leases

    with _queue(state_dir, json, lang) as (session, queue), queue.database.writing() as c:
        leases.drain(c, not off, time.time())
        held = sum(count for _, count in leases.holders(c, leases.Machine.this()))
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
    return Outcome(result={"dead": [task_fields(one) for one in found]})


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
    return batch_fields(c, batch)


def _named(tasks: list[str] | None, verb: str) -> list[str]:
    """Raises `Refusal` WhichTasks: a verb that changes nothing must not look as if it had."""
    if not tasks:
        raise Refusal("WhichTasks", WRONG_INPUT, {"verb": verb})
    return tasks


def _single(c: sqlite3.Connection, name: str) -> Task:
    """A single task. Raises `Refusal`: what a batch came to is in its files, and it is not run in part."""
    found = _found(c, name)
    if isinstance(found, dict) or found.batch_id is not None:
        raise Refusal("OfABatch", WRONG_INPUT, {"asked": name})
    return found


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
        return left, batch_line(found), found["state"] == "completed"
    return int(found.state in OPEN), f"{found.task_id}  {found.state.value}", found.state is State.DONE
