"""A run and its steps as people see them."""

from __future__ import annotations

from typing import Any

from gonogo.tasks.agents.nouns import Run, Step
from gonogo.tasks.agents.verdict import LOST
from gonogo.tasks.bodies import Bodies
from gonogo.tasks.nouns import State, Task


def place_of(attempt: int, step: int) -> str:
    """The column in the associated data of a sealed step."""
    return f"step.{attempt}.{step}"


def opened_step(bodies: Bodies, task_id: str, one: Step) -> dict[str, Any]:
    """`id` is attempt and step, by which the next page is asked for. Raises a `SealError`."""
    body = bodies.open(task_id, place_of(one.attempt, one.step), one.body)
    where = {"id": f"{one.attempt}.{one.step}", "attempt": one.attempt, "step": one.step, "at": one.at}
    return {"object": "task.step", **where, **body}


def shown_agent(task: Task, run: Run) -> dict[str, Any]:
    """The run of this task: what was asked, how far it is, how often it was started again."""
    ended_by_loss = task.state in (State.FAILED, State.DEAD) and task.reason == LOST
    return {
        "program": run.program,
        "device": run.device,
        "max_steps": run.max_steps,
        "time_limit_s": run.time_limit_s,
        "on_worker_death": run.on_worker_death.value,
        "steps": run.steps,
        "restarts": task.losses - int(ended_by_loss),
    }
