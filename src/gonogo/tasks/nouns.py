"""What the queue is made of: tasks, their states, and how one ends. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gonogo.tasks.agents.nouns import NewRun


class State(str, Enum):
    """queued → leased → done or failed; back to queued when its worker died or the gateway had no room.

    cancelled: by its owner. dead: tried too often, for a person to look at.
    """

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


OPEN = (State.QUEUED, State.LEASED)
"""States that a task will leave."""

SINGLE, OF_BATCH = 0, 1
"""Ranks: single tasks are taken before the lines of batches, of the same owner."""

MOST_ATTEMPTS = 5
"""Answers that failed in a way that may pass (5xx, no connection), before a task is dead."""

MOST_LOSSES = 10
"""Workers that died holding it, before a task is dead. With 5, 13 of 12,400 innocent ones were, in a drill that killed
every worker within half a second of its first request: whoever runs alone then is hit more often than not."""

SUSPECT_LOSSES = 2
"""From so many on it is taken alone, so that whatever it does to a worker is done to no other task."""

DEFAULT_WINDOW_S = 86400.0
"""How long a task may wait and run, unless its owner says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to be recorded. `prompt` is sealed. `tokens`: what it may cost, prompt and answer, estimated.

    `line` and `batch_id` for a line of a batch; `mark` tells its custom_id from the others of its batch.
    `failed`: reason and message of a line that cannot run; it is recorded as failed at once. `run`: it is a run of an
    agent.
    """

    task_id: str
    owner: str
    url: str
    model: str | None
    tokens: int
    prompt: bytes = field(repr=False)
    created_at: float
    expires_at: float
    idempotency_key: str | None = None
    batch_id: str | None = None
    line: int | None = None
    mark: bytes | None = None
    failed: tuple[str, str] | None = None
    run: NewRun | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as the ledger has it, without its bodies. Times are Unix seconds; `status` is the answer's HTTP status."""

    number: int
    task_id: str
    owner: str
    url: str
    model: str | None
    tokens: int
    state: State
    attempts: int
    losses: int
    created_at: float
    expires_at: float
    started_at: float | None
    finished_at: float | None
    status: int | None
    reason: str | None
    message: str | None
    batch_id: str | None
    line: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A task that a worker holds, with its sealed prompt."""

    task: Task
    prompt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a task ended in a worker's hands: `state` done, failed or dead; the sealed result, if there is one."""

    number: int
    state: State
    status: int | None
    result: bytes | None = field(repr=False)
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponed:
    """A task that goes back to the queue until `not_before` (Unix seconds). `counts`: whether it used up an attempt."""

    number: int
    not_before: float
    counts: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many tasks are in each state."""

    queued: int = 0
    leased: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    dead: int = 0

    @property
    def total(self) -> int:
        return self.queued + self.leased + self.done + self.failed + self.cancelled + self.dead

    @property
    def open(self) -> int:
        return self.queued + self.leased
