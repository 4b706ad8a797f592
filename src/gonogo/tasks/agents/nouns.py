"""What a run of an agent is made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Mapping

PROGRAMS = ("phone-agent",)
"""The agents that can be run, by the names that recipes have for them; each has a locked environment of its own."""
URL = "agent:"
"""What the `url` of such a task begins with; the program's name follows."""
RANK = 2
"""Behind the ranks of requests: a worker that asks the gateway never takes a run."""

USUAL_STEPS, MOST_STEPS = 100, 200
USUAL_LIMIT_S, LONGEST_LIMIT_S = 1800.0, 6 * 3600.0
MOST_RESTARTS = 3
"""Workers that may die with one run before it is dead: each restart does things on a device again."""
MOST_TEXT_BYTES = 16 * 1024
"""Of what a step prints, thinks or does, each: the first and the last half of it are kept."""


class OnWorkerDeath(str, Enum):
    """fail: it ends there, and says after how many steps. restart: from the beginning, on the same device."""

    FAIL = "fail"
    RESTART = "restart"


class Lang(str, Enum):
    """The language in which the agent instructs the model, by the program's own names."""

    CN = "cn"
    EN = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What the ledger must know of a run besides its task. None of it is sealed: who may run next is asked by it."""

    program: str
    device: str
    max_steps: int
    time_limit_s: float
    on_worker_death: OnWorkerDeath


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(NewRun):
    """A run as the ledger has it. `attempt` counts from 1 with its first start; `steps` of the newest attempt.

    `key_id`: the key that was made for the newest attempt.
    """

    number: int
    attempt: int
    steps: int
    key_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step as it is kept: `body` has `action`, `thinking`, `message`, `success`, `output`; sealed. Unix seconds."""

    attempt: int
    step: int
    at: float
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A run whose worker is gone. `held`: the task is still its own; else it was cancelled or came too late."""

    number: int
    task_id: str
    device: str
    lease: int
    key_id: str | None
    held: bool


def cut(text: str, most: int = MOST_TEXT_BYTES) -> str:
    """At most so many characters of a text: its first and its last half, and between them how much is left out."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def bounded(value: Any) -> Any:
    """JSON with every text cut; what is deeper or larger than any action of an agent is a cut text."""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, Mapping) and len(value) <= 32:
        return {cut(str(name), 256): cut(one) if isinstance(one, str) else _plain(one) for name, one in value.items()}
    return _plain(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, list) and len(value) <= 32 and all(isinstance(one, (bool, int, float)) for one in value):
        return value
    return cut(repr(value))
