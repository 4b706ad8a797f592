"""`gonogo tasks run-agent`: leaves a run of an agent in the queue; and what `gonogo tasks show` says of one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Callable, Mapping, Optional, Sequence

import typer

from gonogo.cli.options import Json, Lang, StateDir, told
from gonogo.cli.refusal import WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    import sqlite3
    from contextlib import AbstractContextManager

    from gonogo.cli.session import Session
    from gonogo.tasks.nouns import Task
    from gonogo.tasks.places import Queue

TaskText = Annotated[str, typer.Argument(metavar="TASK", help=told("argument.agent_task"), show_default=False)]
Device = Annotated[str, typer.Option("--device", metavar="SERIAL", help=told("option.device"), show_default=False)]
Service = Annotated[
    Optional[str], typer.Option("--service", metavar="SERVICE", help=told("option.agent_service"), show_default=False)
]
Program = Annotated[str, typer.Option("--program", metavar="NAME", help=told("option.agent_program"))]
MaxSteps = Annotated[int, typer.Option("--max-steps", metavar="N", help=told("option.max_steps"))]
TimeLimit = Annotated[float, typer.Option("--time-limit", metavar="SECONDS", help=told("option.time_limit"))]
OnDeath = Annotated[str, typer.Option("--on-worker-death", metavar="fail|restart", help=told("option.on_worker_death"))]
AgentLang = Annotated[str, typer.Option("--agent-lang", metavar="cn|en", help=told("option.agent_lang"))]

Opened = Callable[[Optional[str], bool, Optional[str]], "AbstractContextManager[tuple[Session, Queue]]"]


def leaving_a_run(opened: Opened) -> Callable[..., Outcome]:
    """The command, which opens the queue by `opened`."""

    def run_agent(  # noqa: PLR0913, PLR0917 (each is an option of the command)
        task: TaskText,
        device: Device,
        service: Service = None,
        program: Program = "phone-agent",
        max_steps: MaxSteps = 100,
        time_limit: TimeLimit = 1800.0,
        on_worker_death: OnDeath = "fail",
        agent_lang: AgentLang = "cn",
        state_dir: StateDir = None,
        json: Json = False,
        lang: Lang = None,
    ) -> Outcome:
        agent = {
            "program": program,
            "task": task,
            "device": device,
            "max_steps": max_steps,
            "time_limit_s": time_limit,
            "on_worker_death": on_worker_death,
            "lang": agent_lang,
        }
        with opened(state_dir, json, lang) as (session, queue):
            made = _leave(queue, agent, service)
            session.say("tasks.agent_left", name=made.task_id)
            session.line(f"gonogo tasks wait {made.task_id} --state-dir {session.paths.root}")
        return Outcome(result={"task": {"id": made.task_id, "state": made.state.value, "model": made.model}})

    return run_agent


def shown_run(queue: Queue, c: sqlite3.Connection, task: Task, steps: bool) -> dict[str, Any]:
    """What is added to a task that is a run: the run, and its steps, opened, where they are wanted."""
    from gonogo.tasks.agents import runs
    from gonogo.tasks.agents.shown import opened_step, shown_agent

    run = runs.found(c, [task.number]).get(task.number)
    if run is None:
        return {}
    seen: dict[str, Any] = {"agent": shown_agent(task, run)}
    if steps:
        kept = runs.steps(c, task.number, (0, 0), 1000)
        seen["steps"] = [opened_step(queue.bodies, task.task_id, one) for one in kept]
    return seen


def print_steps(session: Session, steps: Sequence[Mapping[str, Any]]) -> None:
    """A line for each: its id, what was done, what was said of it."""
    import json

    for one in steps:
        action = json.dumps(one["action"], ensure_ascii=False)
        session.line(f"step {one['id']}: {action}{'' if one['message'] is None else '  ' + one['message']}")


def _leave(queue: Queue, agent: Mapping[str, Any], service: str | None) -> Task:
    from gonogo.store import open_store
    from gonogo.tasks.agents.asked import read_agent
    from gonogo.tasks.agents.tools import Missing, require_installed
    from gonogo.tasks.asked import Wrong
    from gonogo.tasks.owners import NoSuchKey, local_owner
    from gonogo.tasks.requests import Wish, new_task, record

    store = open_store(queue.paths.database, clock=time.time)
    try:
        asked, run = read_agent(agent, _service(list(store.policy_view().serving), service))
        require_installed(run.program, queue.paths)
        wish = Wish(asked=asked, run=run, owner=local_owner(store))
    except (Wrong, Missing, NoSuchKey) as wrong:
        raise Refusal("AgentNotLeft", WRONG_INPUT, {"words": str(wrong)}) from None
    finally:
        store.close()
    with queue.database.writing() as c:
        return record(c, new_task(wish, queue.bodies, time.time()), wish, queue.bodies)


def _service(serving: list[str], asked: str | None) -> str:
    if asked is None and len(serving) > 1:
        raise Refusal("WhichService", WRONG_INPUT, {"known": serving})
    if not serving or asked not in (None, *serving):
        raise Refusal("NoService", WRONG_INPUT, {"service": asked, "known": serving})
    return asked or serving[0]
