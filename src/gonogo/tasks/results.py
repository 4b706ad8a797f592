"""Celery's results, read from the ledger: `delay(...).get()` waits for what that says, and nothing else is kept."""

from __future__ import annotations

from typing import Any, Mapping

from celery import states
from celery.backends.base import BaseBackend

from gonogo.runtimes.paths import StatePaths, default_state_dir
from gonogo.tasks import ledger
from gonogo.tasks.nouns import State, Task
from gonogo.tasks.places import Queue, open_queue

_STATES: Mapping[State, str] = {
    State.QUEUED: states.PENDING,
    State.LEASED: states.STARTED,
    State.DONE: states.SUCCESS,
    State.FAILED: states.FAILURE,
    State.DEAD: states.FAILURE,
    State.CANCELLED: states.REVOKED,
}


class TaskFailed(Exception):
    """A task did not end well. The text is the ledger's reason and message."""


class LedgerResults(BaseBackend):  # type: ignore[misc]
    """A result backend that only reads: it is the ledger that keeps results."""

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self._queue: Queue | None = None

    def store_result(self, *_: Any, **__: Any) -> None:
        """Whoever runs a task has written its end into the ledger already."""

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        if self._queue is None:
            self._queue = open_queue(StatePaths.of(default_state_dir()))
        with self._queue.database.reading() as c:
            task = ledger.task(c, task_id)
            sealed = None if task is None else ledger.result(c, task.number)
        if task is None:
            return {"status": states.PENDING, "result": None, "task_id": task_id}
        return {
            "status": _STATES[task.state],
            "result": self._value(task, sealed),
            "task_id": task_id,
            "traceback": None,
        }

    def _value(self, task: Task, sealed: bytes | None) -> Any:
        if task.state is State.DONE and sealed is not None and self._queue is not None:
            result = self._queue.bodies.open(task.task_id, "result", sealed)
            return result.get("body", result)  # of a run of an agent: all that it came to
        if task.state in (State.FAILED, State.DEAD):
            return TaskFailed(f"{task.reason}: {task.message}")
        return None
