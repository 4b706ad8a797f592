"""One run attended: real processes of a made-up agent and a real ledger; the gateway, its keys and adb stand aside."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from gonogo.security.keys import MintedKey
from gonogo.tasks import leases
from gonogo.tasks.agents import attend as attending
from gonogo.tasks.agents import runs, tools
from gonogo.tasks.agents.attend import Attended, Bench, attend
from gonogo.tasks.agents.keys import NotNow, RunKeys
from gonogo.tasks.agents.processes import of_run
from gonogo.tasks.agents.tools import Missing, Tools
from gonogo.tasks.leases import Machine
from gonogo.tasks.places import Queue
from tests.shell.policy_parts import until
from tests.shell.test_agent_ledger import leave, queue

__all__ = ["queue"]

SAY = """
import json, os, sys, time
def say(event, **other):
    os.write(int(sys.argv[-1]), json.dumps({"event": event, **other}).encode() + b"\\n")
say("ready")
order = sys.stdin.readline()
if not order: sys.exit(1)
open("begun", "w").write(order)
"""


class Keys(RunKeys):
    """Keys that every policy server knows at once, or never."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble, self.made = trouble, ""

    def store(self) -> Any:
        return SimpleNamespace(close=lambda: None)

    def make(self, minted: MintedKey, owner: str, service: str, limit_s: float) -> None:
        self.made = minted.text

    def wait_until_known(self, minted: MintedKey, stop: Callable[[], bool]) -> None:
        if self.trouble is not None:
            raise self.trouble


class Attending:
    """One taken run, and the bench."""

    def __init__(self, queue: Queue, monkeypatch: pytest.MonkeyPatch, code: str, **agent: Any) -> None:
        self.queue, self.keys, self.device = queue, Keys(), lambda: None
        self.name = leave(queue, **agent)
        python = Path(sys.executable)
        monkeypatch.setattr(tools, "find_tools", lambda *_: Tools(python=python, adb=python))
        monkeypatch.setattr(tools, "gateway_of", lambda *_: ("https://127.0.0.1:1/v1", "/ca"))
        monkeypatch.setattr(tools, "require_device", lambda *_: self.device())
        monkeypatch.setattr(tools, "command", lambda *_: (sys.executable, "-c", SAY + code))
        self.is_held = True
        with queue.database.writing() as c:
            self.lease = leases.begin(c, Machine.this(), "w", os.getpid())
            (self.taken,) = runs.take(c, self.lease, 1, 200.0)

    def attend(self, stopping: threading.Event | None = None) -> Attended:
        bench = Bench(
            paths=self.queue.paths,
            database=self.queue.database,
            bodies=self.queue.bodies,
            keys=self.keys,
            lease=self.lease,
            held=lambda _: self.is_held,
            stopping=stopping or threading.Event(),
        )
        return attend(bench, self.taken)

    @property
    def begun(self) -> bool:
        """The agent has its order; told from its folder, which is gone when it is over."""
        return (tools.folder_of(self.queue.paths, self.name) / "begun").exists()

    def result(self, attended: Attended) -> Any:
        assert attended.result is not None
        return self.queue.bodies.open(self.name, "result", attended.result)


@pytest.fixture
def make(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda code, **agent: Attending(queue, monkeypatch, code, **agent)


def reason(attended: Attended) -> str | None:
    assert attended.verdict is not None
    return attended.verdict.reason


def test_the_order_goes_by_a_pipe_and_the_end_is_kept_with_what_was_printed(make: Any) -> None:
    code = (
        "told = json.loads(order); assert told['api_key'] not in repr([os.environ, sys.argv])\n"
        "assert 'GONOGO_ROLE' not in os.environ and 'GONOGO_API_KEY' not in os.environ\n"
        "print('key', told['api_key'], flush=True); say('step', step=1, success=True, action={'action': 'Tap'})\n"
        "say('end', outcome='finished', message='ok')"
    )
    one = make(code)
    attended = one.attend()
    assert reason(attended) is None
    assert one.result(attended) == {"message": "ok", "steps": 1, "restarts": 0, "output": ""}
    with one.queue.database.reading() as c:
        (step,) = runs.steps(c, one.taken.run.number, (0, 0), 10)
    opened = one.queue.bodies.open(one.name, "step.1.1", step.body)
    assert (opened["action"], opened["output"]) == ({"action": "Tap"}, "key gng_•••\n")
    assert not tools.folder_of(one.queue.paths, one.name).exists()


def test_an_agent_whose_worker_was_taken_for_dead_meanwhile_gets_no_order(make: Any, tmp_path: Path) -> None:
    """The worker hung before it started the process: the run may be another's by now, on the same device."""
    touched = tmp_path / "touched"
    one = make(f"open({str(touched)!r}, 'w')")

    def hang() -> None:
        with one.queue.database.writing() as c:
            c.execute("UPDATE leases SET until = 0")
            leases.sweep(c, Machine.this(), 300.0)

    one.device = hang
    one.attend()
    assert not touched.exists()


@pytest.mark.parametrize(
    ("code", "agent", "told"),
    [
        ("time.sleep(60)", {"time_limit_s": 1}, "time_limit"),
        ("[say('step', step=n) for n in range(9)]; time.sleep(60)", {"max_steps": 2}, "step_limit"),
        ("say('tap')\ntime.sleep(60)", {}, "protocol"),
        ("sys.exit(3)", {}, "agent_died"),
    ],
)
def test_what_does_not_end_as_it_should_is_ended_and_told(make: Any, code: str, agent: Any, told: str) -> None:
    one = make(code, **agent)
    assert reason(one.attend()) == told
    assert of_run(one.queue.paths.root, one.name) == ()


def test_one_that_is_never_ready_is_ended(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make("")
    monkeypatch.setattr(attending, "READY_WITHIN_S", 0.5)
    monkeypatch.setattr(tools, "command", lambda *_: (sys.executable, "-c", "import time; time.sleep(60)"))
    assert reason(one.attend()) == "not_ready"


@pytest.mark.parametrize("how", ["cancelled", "stopping"])
def test_a_run_that_is_not_ours_any_more_is_ended_at_once_and_nothing_is_judged(make: Any, how: str) -> None:
    one, stopping = make("time.sleep(60)"), threading.Event()
    ended: list[Attended] = []
    thread = threading.Thread(target=lambda: ended.append(one.attend(stopping)))
    thread.start()
    until(lambda: one.begun)
    if how == "cancelled":
        one.is_held = False
    else:
        stopping.set()
    thread.join(20)
    assert [one.verdict for one in ended] == [None] and not ended[0].later
    assert of_run(one.queue.paths.root, one.name) == ()


def test_while_the_gateway_does_not_answer_the_run_waits_and_an_owner_that_is_gone_ends_it(make: Any) -> None:
    one = make("")
    one.keys.trouble = NotNow()
    assert one.attend() == Attended(verdict=None, later=True)
    one.keys.trouble = Missing("owner_gone", "gone")
    assert reason(one.attend()) == "owner_gone"


def test_a_prompt_that_does_not_open_is_for_a_person_to_look_at(make: Any) -> None:
    one = make("")
    one.taken = replace(one.taken, prompt=one.taken.prompt[:-1] + b"\0")
    attended = one.attend()
    assert attended.verdict is not None and attended.verdict.state.value == "dead"
    assert one.keys.made == ""
