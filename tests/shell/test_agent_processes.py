"""Processes of agents' runs: heard event by event, without keys, ended for certain; the runner on a fake package."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import gonogo
from gonogo.security.keys import RANDOM_BYTES, mint
from gonogo.tasks.agents.nouns import MOST_TEXT_BYTES
from gonogo.tasks.agents.processes import RUN_MARK, AgentProcess, NoEvent, end_all, masked, of_run
from tests.shell.policy_parts import until

KEY = mint(os.urandom(RANDOM_BYTES)).text
RUNNER = str(Path(gonogo.__file__).parent / "runners" / "run_phone_agent.py")
ORDER = {
    "task": "do it",
    "device": "emulator-5554",
    "max_steps": 3,
    "lang": "en",
    "model": "svc",
    "base_url": "https://127.0.0.1:1/v1",
    "api_key": KEY,
}
SAY = "import json, os, sys, time; say = lambda **e: os.write(int(sys.argv[-1]), json.dumps(e).encode() + b'\\n')\n"
PACKAGE = """
__version__ = "0"
import dataclasses, os, subprocess, time
from phone_agent import agent, model
class PhoneAgent:
    def __init__(self, model_config, agent_config, confirmation_callback, takeover_callback):
        self.confirm, self.takeover, self.said, self.config = confirmation_callback, takeover_callback, "", agent_config
        self.story = os.environ["STORY"].split()
        self.model_client = model.Client(os.environ.get("ANSWERS", "200").split())
    @property
    def context(self):
        return [{"content": self.said}]
    def step(self, task):
        kind = self.story.pop(0)
        print("step", kind, task, flush=True)
        result = agent.StepResult
        if kind == "ask":
            try: return result(True, True, {"_metadata": "finish"}, "", self.model_client.request(["same"]))
            except Exception as error: return result(False, True, None, "", f"Model error: {error}")
        if kind == "raise": raise ValueError("No output from dumpsys window")
        if kind == "hang": time.sleep(60)
        if kind == "model": return result(False, True, None, "", "Model error: down")
        if kind == "login": self.takeover("a code")
        if kind == "pay": return result(False, not self.confirm("pay"), {"_metadata": "do", "action": "Tap"}, "", "no")
        if kind == "odd":
            self.said = "<think></think><answer>I cannot</answer>"
            return result(True, True, {"_metadata": "finish", "message": "I cannot"}, "", "I cannot")
        if kind == "broke": return result(True, True, {"_metadata": "do", "action": "Tap"}, "", "list index")
        if kind == "stdin": return result(True, True, {"_metadata": "finish"}, "", repr(os.read(0, 9)))
        if kind == "end":
            self.said = '<think></think><answer>finish(message="ok")</answer>'
            return result(True, True, {"_metadata": "finish", "message": "ok"}, "", "ok")
        return result(True, False, {"_metadata": "do", "action": "Tap"}, "thought", None)
"""
AGENT = """
import dataclasses
@dataclasses.dataclass
class StepResult:
    success: bool; finished: bool; action: object; thinking: str; message: object = None
@dataclasses.dataclass
class AgentConfig:
    max_steps: int; device_id: str; lang: str
"""
MODEL = """
import dataclasses
@dataclasses.dataclass
class ModelConfig:
    base_url: str; api_key: str; model_name: str; lang: str
class Client:
    def __init__(self, answers):
        self.answers, self.asked = answers, 0
    def request(self, messages):
        assert messages == ["same"]
        self.asked += 1
        answer = self.answers.pop(0)
        if answer == "200": return f"answered to {self.asked}"
        error = ConnectionError("broke off " + answer)
        if answer.isdigit(): error.status_code = int(answer)
        raise error
"""


def started(tmp_path: Path, code: str, **variables: str) -> AgentProcess:
    marks = {"GONOGO_STATE": str(tmp_path), RUN_MARK: "task_1", **variables}
    return AgentProcess([sys.executable, "-c", SAY + code], marks, tmp_path)


def heard(process: AgentProcess, count: int) -> list[dict[str, Any]]:
    """So many events."""
    events: list[dict[str, Any]] = []
    ends = time.monotonic() + 20
    while len(events) < count:
        assert time.monotonic() < ends, events
        events += process.look(0.1)
    return events


def test_what_is_printed_before_an_event_comes_with_it(tmp_path: Path) -> None:
    code = (
        "for n in (1, 2): print('step', n, flush=True); say(event='step', step=n); time.sleep(0.3)\n"
        "print('last words', flush=True)"
    )
    process = started(tmp_path, code)
    assert [(one["step"], one["output"]) for one in heard(process, 2)] == [(1, "step 1\n"), (2, "step 2\n")]
    until(process.ended)
    assert process.end() == 0
    assert process.printed() == "last words\n"


def test_no_key_comes_through_neither_in_what_is_printed_nor_in_events(tmp_path: Path) -> None:
    code = f"print('key={KEY} x{KEY}x', flush=True); say(event='end', message='{KEY}', action={{'text': '{KEY}'}})"
    process = started(tmp_path, code)
    (event,) = heard(process, 1)
    process.end()
    assert KEY not in repr(event) and repr(event).count("gng_•••") == 4
    assert masked(f"a{KEY}") == "agng_•••"


def test_a_flood_of_output_is_held_in_little_and_cut(tmp_path: Path) -> None:
    process = started(
        tmp_path, "sys.stdout.write('begin' + 'x' * 50_000_000 + 'end'); sys.stdout.flush(); say(event='end')"
    )
    (event,) = heard(process, 1)
    process.end()
    assert len(event["output"]) < 2 * MOST_TEXT_BYTES
    assert event["output"].startswith("begin") and event["output"].endswith("end")


@pytest.mark.parametrize("said", ["b'no json\\n'", "b'[]\\n'", "b'{}\\n'", "b'x' * 3_000_000"])
def test_what_is_no_event_is_said(tmp_path: Path, said: str) -> None:
    process = started(tmp_path, f"os.write(int(sys.argv[-1]), {said}); time.sleep(60)")
    with pytest.raises(NoEvent):
        heard(process, 1)
    process.end()


def test_one_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); os.fork(); say(event='ready'); time.sleep(60)"
    process = started(tmp_path, code)
    heard(process, 2)
    assert len(of_run(tmp_path, "task_1")) == 2
    assert process.end() == -9
    until(lambda: of_run(tmp_path, "task_1") == ())


def test_a_child_that_left_the_group_is_found_by_its_marks(tmp_path: Path) -> None:
    code = "pid = os.fork()\nif not pid: os.setsid()\nsay(event='ready'); time.sleep(60 if not pid else 0)"
    process = started(tmp_path, code)
    heard(process, 2)
    process.end()
    assert len(of_run(tmp_path, "task_1")) == 1
    assert of_run(tmp_path, "task_2") == of_run(tmp_path / "other", "task_1") == ()
    assert end_all(tmp_path, "task_1") and of_run(tmp_path, "task_1") == ()


@pytest.fixture
def runner(tmp_path: Path) -> Any:
    package = tmp_path / "phone_agent"
    package.mkdir()
    for name, text in {"__init__": PACKAGE, "agent": AGENT, "model": MODEL}.items():
        (package / f"{name}.py").write_text(text)

    def start(story: str, **variables: str) -> AgentProcess:
        marks = {
            "GONOGO_STATE": str(tmp_path),
            RUN_MARK: "task_1",
            "STORY": story,
            "PYTHONPATH": str(tmp_path),
            **variables,
        }
        process = AgentProcess([sys.executable, "-X", "utf8", RUNNER], marks, tmp_path)
        (ready,) = heard(process, 1)
        assert ready["event"] == "ready"
        process.order(ORDER)
        return process

    return start


@pytest.mark.parametrize(
    ("story", "outcome", "steps"),
    [
        ("tap tap end", "finished", 3),
        ("tap tap tap tap", "step_limit", 3),
        ("tap model", "model_error", 2),
        ("login end", "needs_a_person", 1),
        ("pay", "needs_a_person", 1),
        ("odd", "answer_unreadable", 1),
        ("broke", "agent_failed", 1),
        ("tap raise", "agent_failed", 1),
    ],
)
def test_the_runner_tells_each_step_and_how_it_ended(runner: Any, story: str, outcome: str, steps: int) -> None:
    process = runner(story)
    *told, end = heard(process, steps + 1)
    assert (end["event"], end["outcome"]) == ("end", outcome)
    assert [one["step"] for one in told] == list(range(1, steps + 1))
    assert told[0]["output"].startswith(f"step {story.split(maxsplit=1)[0]} do it")
    until(process.ended)
    assert process.end() == 0


@pytest.mark.parametrize(
    ("answers", "outcome", "message"),
    [
        ("cut 200", "finished", "answered to 2"),
        ("503 200", "finished", "answered to 2"),
        ("429 200", "finished", "answered to 2"),
        ("400 200", "model_error", "Model error: broke off 400"),
        ("401 200", "model_error", "Model error: broke off 401"),
    ],
)
def test_an_answer_that_broke_off_is_asked_for_again_and_a_wrong_request_is_not(
    runner: Any, answers: str, outcome: str, message: str
) -> None:
    process = runner("ask", ANSWERS=answers)
    _, end = heard(process, 2)
    assert (end["outcome"], end["message"]) == (outcome, message)
    process.end()


def test_the_programs_of_an_agent_cannot_read_what_the_runner_reads(runner: Any) -> None:
    process = runner("stdin")
    assert heard(process, 2)[-1]["message"] == "b''"
    process.end()


def test_without_whoever_started_it_the_runner_kills_itself_and_its_children(runner: Any, tmp_path: Path) -> None:
    process = runner("hang")
    until(lambda: "step hang" in (process.look(0.1) or process.printed()))
    process._child.stdin.close()  # as the kernel does when we die
    until(process.ended)
    assert process.end() == -9
