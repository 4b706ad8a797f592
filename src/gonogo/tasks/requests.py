"""Records a request to be run later: what the HTTP interface and Celery's `delay` both do."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass

from gonogo.tasks import ledger
from gonogo.tasks.agents.nouns import NewRun
from gonogo.tasks.asked import Asked, Wrong
from gonogo.tasks.bodies import Bodies
from gonogo.tasks.nouns import DEFAULT_WINDOW_S, NewTask, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A request and the terms on which it is left: whose it is, how long it may take, under which idempotency key.

    `run`: it is no request to the model but a run of an agent.
    """

    asked: Asked
    owner: str
    idempotency_key: str | None = None
    window_s: float = DEFAULT_WINDOW_S
    run: NewRun | None = None


def new_task(wish: Wish, bodies: Bodies, now: float, task_id: str | None = None) -> NewTask:
    """The task, sealed. Raises `KeyFileError`."""
    task_id = task_id or f"task_{secrets.token_hex(12)}"
    asked = wish.asked
    return NewTask(
        task_id=task_id,
        owner=wish.owner,
        url=asked.url,
        model=asked.model,
        tokens=asked.tokens,
        prompt=bodies.seal(task_id, "prompt", {"url": asked.url, "body": asked.body}),
        created_at=now,
        expires_at=now + wish.window_s,
        idempotency_key=wish.idempotency_key,
        run=wish.run,
    )


def record(c: sqlite3.Connection, new: NewTask, wish: Wish, bodies: Bodies) -> Task:
    """Record it, or give the task that its idempotency key stands for already. Raises `Wrong` for another request."""
    try:
        return ledger.add(c, new)
    except ledger.KeyUsedTwice as known:
        before = bodies.open(known.task.task_id, "prompt", ledger.prompt(c, known.task.number))
        if before != {"url": wish.asked.url, "body": wish.asked.body}:
            message = f"The idempotency key stands for another request, task {known.task.task_id}."
            raise Wrong("idempotency_key_reused", message, "idempotency_key") from None
        return known.task
