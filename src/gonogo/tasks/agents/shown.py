"""A step as people see it, opened."""

from __future__ import annotations

from typing import Any

from gonogo.tasks.agents.nouns import Step
from gonogo.tasks.bodies import Bodies


def place_of(attempt: int, step: int) -> str:
    """The column in the associated data of a sealed step."""
    return f"step.{attempt}.{step}"


def opened_step(bodies: Bodies, task_id: str, one: Step) -> dict[str, Any]:
    """`id` is attempt and step, by which the next page is asked for. Raises a `SealError`."""
    body = bodies.open(task_id, place_of(one.attempt, one.step), one.body)
    where = {"id": f"{one.attempt}.{one.step}", "attempt": one.attempt, "step": one.step, "at": one.at}
    return {"object": "task.step", **where, **body}
