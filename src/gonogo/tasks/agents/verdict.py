"""How a run ended, from what its process said and why it was ended; and what becomes of one whose worker died. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Mapping

from gonogo.tasks.agents.nouns import MOST_RESTARTS, OnWorkerDeath, Run
from gonogo.tasks.nouns import State


class Why(str, Enum):
    """Why its process was ended by us."""

    TIME_LIMIT = "time_limit"
    STEP_LIMIT = "step_limit"
    PROTOCOL = "protocol"
    NOT_READY = "not_ready"


FINISHED = "finished"
LOST = "worker_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the task ends. The message is ours alone: what the agent said is in the result, sealed."""

    state: State
    reason: str | None = None
    message: str | None = None


def judge(run: Run, steps: int, end: Mapping[str, Any] | None, code: int | None, why: Why | None) -> Verdict:
    """`end`: the last event of the process, None where none came; `code`: how it exited."""
    outcome = str((end or {}).get("outcome"))
    if end is not None and outcome == FINISHED:
        return Verdict(state=State.DONE)
    if why is not None:
        return _failed(why.value, _ENDED[why], run, steps)
    if end is None:
        seen = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return _failed("agent_died", f"The agent's process ended by itself ({seen})", run, steps)
    if outcome not in _OUTCOMES:
        return _failed("agent_failed", "The agent ended without success", run, steps)
    return _failed(outcome, _OUTCOMES[outcome], run, steps)


def after_loss(on_worker_death: OnWorkerDeath, steps: int, losses: int) -> Verdict:
    """What becomes of a run whose worker died, which happened to it `losses` times with this one."""
    lost = f"The worker ended or hung while the agent ran, after {steps} steps"
    if on_worker_death is OnWorkerDeath.FAIL:
        told = "What those did on the device was done; on_worker_death is fail, so it was not started again."
        return Verdict(state=State.FAILED, reason=LOST, message=f"{lost}. {told}")
    if losses > MOST_RESTARTS:
        told = f"That was the {losses}th time: it is not started once more."
        return Verdict(state=State.DEAD, reason=LOST, message=f"{lost}. {told}")
    return Verdict(state=State.QUEUED, reason=LOST, message=f"{lost}. It is started again from the beginning.")


def _failed(reason: str, what: str, run: Run, steps: int) -> Verdict:
    values = {"limit_s": f"{run.time_limit_s:g}", "max_steps": run.max_steps}
    message = f"{what.format(**values)}, after {steps} steps; the steps have what it did."
    return Verdict(state=State.FAILED, reason=reason, message=message)


_ENDED: Mapping[Why, str] = {
    Why.TIME_LIMIT: "The agent was ended at its time limit of {limit_s} s",
    Why.STEP_LIMIT: "The agent went beyond its {max_steps} steps and was ended",
    Why.NOT_READY: "The agent's process did not become ready and was ended",
    Why.PROTOCOL: "The agent's process said what no step is, and was ended",
}
_OUTCOMES: Mapping[str, str] = {
    "step_limit": "The agent had not finished within its {max_steps} steps",
    "needs_a_person": "The agent asks for a person (a login, a code, a payment), and nobody is there",
    "model_error": "The model could not be asked; the last step has the error",
    "answer_unreadable": "The model's answer was no action (the agent itself takes that for success)",
}
