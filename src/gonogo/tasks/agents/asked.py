"""What a client asks for when it leaves a run of an agent, read strictly. Pure.

{"agent": {"program": "phone-agent", "task": "…", "device": "emulator-5554", …}, "model": "svc"}
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Mapping, Sequence, TypeVar

from gonogo.tasks.agents.nouns import (
    LONGEST_LIMIT_S,
    MOST_STEPS,
    PROGRAMS,
    URL,
    USUAL_LIMIT_S,
    USUAL_STEPS,
    Lang,
    NewRun,
    OnWorkerDeath,
)
from gonogo.tasks.asked import HOLDS_HALF, Asked, NotAllowed, Wrong, is_whole, kind, only

SCOPE = "agents"
"""What a key must have beside `inference`: a run acts on the devices of the gateway's machine."""
FIELDS = ("program", "task", "device", "max_steps", "time_limit_s", "on_worker_death", "lang")
LONGEST_TASK = 10_000
"""Characters. The order goes through a pipe, of which 64 KiB are taken without somebody reading."""
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\[\]%-]{0,127}")

Choice = TypeVar("Choice", bound=Enum)


def read_agent(agent: object, model: object) -> tuple[Asked, NewRun]:
    """The request and the run. Raises `Wrong` with the name of the field."""
    if not isinstance(agent, dict):
        raise Wrong("invalid_agent", f"`agent` must be an object, it is {kind(agent)}.", "agent")
    only(agent, FIELDS, "agent.")
    if not isinstance(model, str) or not model:
        raise Wrong(
            "invalid_model", f"`model` must name the service that the agent asks, it is {kind(model)}.", "model"
        )
    if not is_whole(model):
        raise Wrong("invalid_model", f"`model` {HOLDS_HALF}", "model")
    program = agent.get("program")
    if program not in PROGRAMS:
        raise Wrong("unknown_program", f"`agent.program` must be one of {', '.join(PROGRAMS)}.", "agent.program")
    run = NewRun(
        program=str(program),
        device=_device(agent.get("device")),
        max_steps=int(_number(agent, "max_steps", USUAL_STEPS, MOST_STEPS, whole=True)),
        time_limit_s=float(_number(agent, "time_limit_s", USUAL_LIMIT_S, LONGEST_LIMIT_S, whole=False)),
        on_worker_death=_choice(agent, "on_worker_death", OnWorkerDeath.FAIL),
    )
    body = {
        "program": run.program,
        "task": _task(agent.get("task")),
        "device": run.device,
        "max_steps": run.max_steps,
        "time_limit_s": run.time_limit_s,
        "on_worker_death": run.on_worker_death.value,
        "lang": _choice(agent, "lang", Lang.CN).value,
        "model": model,
    }
    return Asked(url=f"{URL}{run.program}", body=body, model=model, tokens=1), run


def require_scope(scopes: Sequence[str]) -> None:
    """Raises `NotAllowed` for a key that may only ask models."""
    if SCOPE not in scopes:
        have = ", ".join(sorted(scopes)) or "none"
        message = (
            f"The API key may not run agents: it needs the scope {SCOPE} and has {have}."
            f" `gonogo keys create --scope inference --scope {SCOPE}` makes one that may."
        )
        raise NotAllowed("insufficient_scope", message, "agent")


def _task(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_TASK or not is_whole(value):
        message = f"`agent.task` must be a text of 1 to {LONGEST_TASK} characters that says what the agent is to do."
        raise Wrong("invalid_task", message, "agent.task")
    return value


def _device(value: object) -> str:
    if not isinstance(value, str) or _DEVICE.fullmatch(value) is None:
        message = "`agent.device` must be the serial of a device as `adb devices` lists it, such as emulator-5554."
        raise Wrong("invalid_device", message, "agent.device")
    return value


def _number(agent: Mapping[str, Any], name: str, usual: float, most: float, *, whole: bool) -> float:
    value = agent.get(name, usual)
    fits = isinstance(value, int) or (isinstance(value, float) and not whole)
    if isinstance(value, bool) or not fits or not 1 <= value <= most:
        what = "a whole number" if whole else "a number of seconds"
        raise Wrong(f"invalid_{name}", f"`agent.{name}` must be {what} from 1 to {most:.0f}.", f"agent.{name}")
    return float(value)


def _choice(agent: Mapping[str, Any], name: str, usual: Choice) -> Choice:
    kinds = type(usual)
    value = agent.get(name, usual.value)
    if value not in [one.value for one in kinds]:
        listed = ", ".join(str(one.value) for one in kinds)
        raise Wrong(f"invalid_{name}", f"`agent.{name}` must be one of {listed}.", f"agent.{name}")
    return kinds(value)
