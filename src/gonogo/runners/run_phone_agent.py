"""Runs the package `phone-agent`, as it is, for one task on one device, and tells each step to whoever started it.

    python -I -X utf8 run_phone_agent.py EVENTS_FD      # by the Python of the locked environment; imports no gonogo

The package has no command of its own, and Open-AutoGLM's main.py is not in it: this stands in its place. The order is
one line of JSON on standard input: the task and the key are in no command line and in no environment. Events are lines
of JSON on EVENTS_FD: `ready`, a `step` for each, one `end`. What the agent prints goes where it always goes.

When standard input ends, whoever started it is dead: the whole process group is killed, so that nobody taps unwatched.
The package asks the model once for each step. Here it is asked again where an answer broke off or none came: nothing
was done on the device yet. A person cannot be asked: a login or a payment ends the run. Also seen are ends that the
package calls success: an answer that is no action, and an action that raised.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any, Callable, TextIO

MOST_CHARACTERS = 100_000
PAUSES_S = (1.0, 3.0, 9.0)
"""Before the model is asked for the same step once more; openai's SDK has tried three times each by then."""
TOO_MANY = 429


def main() -> int:
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    events = os.fdopen(descriptor, "w", encoding="utf-8")
    import phone_agent

    _say(events, event="ready", version=phone_agent.__version__)
    line = sys.stdin.readline()
    if not line:
        return 1
    _watch()
    try:
        end = _run(json.loads(line), events)
    except Exception as error:  # noqa: BLE001 (the boundary: whatever the package raises is shown with its last step)
        traceback.print_exc()
        end = {"outcome": "agent_failed", "message": f"{type(error).__name__}: {error}"}
    _say(events, event="end", **end)
    return 0


def _run(order: dict[str, Any], events: TextIO) -> dict[str, Any]:
    from phone_agent import PhoneAgent
    from phone_agent.agent import AgentConfig
    from phone_agent.model import ModelConfig

    asked: list[str] = []

    def confirm(message: str) -> bool:
        asked.append(message)
        return False

    model = ModelConfig(
        base_url=order["base_url"], api_key=order["api_key"], model_name=order["model"], lang=order["lang"]
    )
    config = AgentConfig(max_steps=order["max_steps"], device_id=order["device"], lang=order["lang"])
    agent = PhoneAgent(model, config, confirmation_callback=confirm, takeover_callback=asked.append)
    agent.model_client.request = _patient(agent.model_client.request)
    for number in range(1, order["max_steps"] + 1):
        result = agent.step(order["task"])
        _say(
            events,
            event="step",
            step=number,
            success=result.success,
            action=result.action,
            thinking=result.thinking,
            message=result.message,
        )
        if asked:
            return {"outcome": "needs_a_person", "message": asked[0]}
        if result.finished:
            return {"outcome": _outcome(agent, result), "message": result.message}
    return {"outcome": "step_limit", "message": None}


def _patient(request: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Asks again after what may pass. An error of the request itself (400, 401, 404, …) does not."""

    def ask(messages: Any) -> Any:
        for pause_s in PAUSES_S:
            try:
                return request(messages)
            except Exception as error:
                status = getattr(error, "status_code", None)
                if status is not None and status < 500 and status != TOO_MANY:
                    raise
                print(f"\n[the model is asked again: {type(error).__name__}: {error}]", flush=True)
            time.sleep(pause_s)
        return request(messages)

    return ask


def _outcome(agent: Any, result: Any) -> str:
    if result.action is None:
        return "model_error"
    if result.action.get("_metadata") != "finish" or not result.success:
        return "agent_failed"
    # The package makes finish(message=ANSWER) of an answer that it cannot read.
    said = str(agent.context[-1]["content"])
    return "answer_unreadable" if said.endswith(f"<answer>{result.message}</answer>") else "finished"


def _say(events: TextIO, **event: Any) -> None:
    """After what was printed before."""
    sys.stdout.flush()
    sys.stderr.flush()
    short = {name: one[:MOST_CHARACTERS] if isinstance(one, str) else one for name, one in event.items()}
    text = json.dumps(short, ensure_ascii=False, default=str)
    if len(text) > 4 * MOST_CHARACTERS:
        text = json.dumps({**short, "action": repr(short.get("action"))[:MOST_CHARACTERS]}, ensure_ascii=False)
    events.write(text + "\n")
    events.flush()


def _watch() -> None:
    """Standard input is kept away from the programs that the agent starts, and looked at for its end."""
    kept = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while os.read(kept, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
