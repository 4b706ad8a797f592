"""The real `phone-agent` as a task: the real gateway, queue and worker, scripted engines, a fake adb."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Iterator

import pytest

from gonogo.runtimes.environment_host import look_at_limits
from gonogo.security.keys import KeyRow, ParsedKey, parse
from gonogo.store import open_store
from tests.acceptance.agent_parts import MODEL, OTHER, Phones, Yard
from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.environments import build
from tests.shell.outside_phone import TYPED, OutsidePhone


@pytest.fixture(scope="module")
def yard(empty: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    if not any(tuple(map(int, one.minor.split("."))) >= (3, 12) for one in look_at_limits().pythons):
        pytest.skip("phone-agent 0.1.1 needs Python 3.12 or newer, and there is none on this machine")
    folder = tmp_path_factory.mktemp("agents")
    phones = Phones.make(folder / "phones")
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(OutsidePhone(MODEL, folder)) for _ in range(2)]
        spec = folder / "far.yaml"
        urls = [one.url for one in engines]
        expect = {"context_tokens": 25480}
        spec.write_text(
            json.dumps({"service": MODEL, "model": MODEL, "replicas": {"external": urls}, "expect": expect})
        )
        empty.up(str(spec), GONOGO_ADB=phones.adb)
        yard = Yard(empty, engines, phones, folder)
        refused = refusal(yard, 403)
        assert (refused["code"], refused["param"]) == ("insufficient_scope", "agent")
        made = empty.run("keys", "create", "--scope", "inference", "--scope", "agents", "--json")
        empty.key = made.json["api_key"]
        wait_for(yard.may_ask, 10, "policy knows the key")
        refused = refusal(yard, 400)
        assert (refused["code"], refused["param"]) == ("agent_not_installed", "agent.program")
        assert "gonogo env create phone-agent" in refused["message"]
        build(empty.state_dir, "phone-agent")
        yield yard


@pytest.fixture(autouse=True)
def nothing_held(yard: Yard) -> Iterator[None]:
    yield
    for step in range(5):
        yard.let_go(step)
        yard.let_go(f"middle-{step}")


def refusal(yard: Yard, status: int) -> dict[str, str]:
    asked = {"program": "phone-agent", "task": "send", "device": OTHER}
    with yard.deployment.client() as client:
        refused = client.post("/v1/tasks", json={"agent": asked, "model": MODEL})
    assert refused.status_code == status, refused.text
    return dict(refused.json()["error"])


def test_a_run_of_four_steps_does_on_the_phone_what_the_model_said_and_tells_each_step(yard: Yard) -> None:
    yard.hold(2)
    name = yard.leave("send 给张三发晚上好", max_steps=20)
    yard.until_asked("send", 2)
    wait_for(lambda: len(yard.steps(name)) == 2, 10, "the steps so far are there while it runs")
    running = yard.task(name)
    assert (running["state"], running["agent"]["steps"], running["url"]) == ("leased", 2, None)
    pids = yard.processes(name)
    assert pids
    for pid in pids:
        assert b"gng_" not in Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        assert "张三".encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    yard.let_go(2)
    task = yard.ended(name)
    assert (task["state"], task["error"]) == ("done", None)
    assert (task["result"]["message"], task["result"]["steps"], task["result"]["restarts"]) == ("已发送", 4, 0)
    steps = yard.steps(name)
    assert [one["action"].get("action") for one in steps] == ["Launch", "Tap", "Type", None]
    assert [one["success"] for one in steps] == [True] * 4
    assert "先启动微信" in steps[0]["thinking"] and "先启动微信" in steps[0]["output"]
    assert "点击" in steps[1]["output"] and "先启动" not in steps[1]["output"]
    assert yard.phones.calls("shell", "input") == [["shell", "input", "tap", "540", "600"]]
    typed = [call[-1] for call in yard.phones.calls("shell", "am", "broadcast", "-a", "ADB_INPUT_B64")]
    assert TYPED in [base64.b64decode(text).decode() for text in typed]
    assert not yard.processes(name)
    assert not list((yard.deployment.state_dir / "tasks" / "runs").iterdir()), "no screen of the phone is left"


def test_the_key_of_a_run_is_its_owners_for_one_service_and_ends_with_it(yard: Yard) -> None:
    name = yard.leave("taps")
    yard.until_asked("taps", 1)
    state = yard.deployment.state_dir
    (mine,) = [one for one in keys_of_runs(state) if one.revoked_at is None]
    assert (mine.service, mine.scopes, mine.acts_for) == (MODEL, ("inference",), owner_of(yard))
    assert mine.expires_at is not None and mine.expires_at < time.time() + 1800 + 600
    assert yard.ended(name)["state"] == "done"
    assert [one for one in keys_of_runs(state) if one.revoked_at is None] == []
    lines = [json.loads(line) for line in (state / "gateway" / "access.log").read_text().splitlines()]
    whose = [one["key_id"] for one in lines if one["path"] == "/v1/chat/completions"]
    assert whose[-4:] == [owner_of(yard)] * 4, "it is the owner's usage"
    everything = [path for path in state.rglob("*") if path.is_file() and "environments" not in path.parts]
    assert not [path for path in everything if b"gng_" in path.read_bytes()]
    assert not [path for path in everything if "点击。".encode() in path.read_bytes()], "sealed at rest"


def keys_of_runs(state: Path) -> list[KeyRow]:
    store = open_store(state / "gonogo.db", clock=time.time)
    found = [one for one in store.keys() if one.name.startswith("agent's run")]  # noqa: SIM118 (not a dict)
    store.close()
    return found


def owner_of(yard: Yard) -> str:
    parsed = parse(yard.deployment.key)
    assert isinstance(parsed, ParsedKey)
    return parsed.key_id


@pytest.mark.parametrize("where", ["1", "middle-1"])
def test_a_replica_killed_before_or_within_an_answer_costs_the_run_nothing(yard: Yard, where: str) -> None:
    yard.hold(where)
    yard.phones.forget()
    task = f"taps and a dead replica {where}"
    name = yard.leave(task)
    held = yard.until_asked(task, 1)
    time.sleep(0.5)  # so that half of an answer is on its way
    (dead,) = [one for one in yard.engines if one.port == held["port"]]
    dead.kill()
    again = yard.until_asked(task, 1, times=2)
    assert again["port"] != held["port"]
    yard.let_go(where)
    ended = yard.ended(name)
    assert (ended["state"], ended["result"]["steps"]) == ("done", 4)
    assert len(yard.phones.calls("shell", "input")) == 1, "nothing was done twice"
    asked_again = "the model is asked again" in yard.steps(name)[1]["output"]
    assert asked_again == (where != "1"), "before an answer begins the gateway asks another replica by itself"
    dead.start()


def test_a_worker_killed_in_mid_run_fails_it_where_that_is_declared_and_the_phone_is_free(yard: Yard) -> None:
    yard.hold(2)
    yard.phones.forget()
    name = yard.leave("taps until the worker dies")
    yard.until_asked("taps until", 2)
    (worker,) = yard.deployment.pids("worker")
    os.kill(worker, signal.SIGKILL)
    task = yard.ended(name)
    assert (task["state"], task["error"]["code"], task["agent"]["restarts"]) == ("failed", "worker_lost", 0)
    assert "after 2 steps" in task["error"]["message"] and "not started again" in task["error"]["message"]
    assert len(yard.steps(name)) == 2, "what it did is told"
    assert not yard.processes(name)
    yard.let_go(2)
    assert yard.ended(yard.leave("taps after that"))["state"] == "done"
    assert len(yard.phones.calls("shell", "input")) == 1 + 1


def test_a_worker_killed_in_mid_run_starts_it_again_where_that_is_declared(yard: Yard) -> None:
    yard.hold(1)
    name = yard.leave("taps once more", on_worker_death="restart")
    yard.until_asked("taps once", 1)
    for pid in yard.workers_of_agents():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: yard.task(name)["agent"]["restarts"] == 1, 30, "it is seen")
    yard.let_go(1)
    task = yard.ended(name)
    assert (task["state"], task["result"]["restarts"], task["result"]["steps"]) == ("done", 1, 4)
    assert [one["id"] for one in yard.steps(name)] == ["1.1", "2.1", "2.2", "2.3", "2.4"]


def test_a_cancelled_run_is_ended_and_the_next_one_has_the_phone(yard: Yard) -> None:
    yard.hold(1)
    name = yard.leave("taps not wanted")
    after = yard.leave("taps afterwards")
    yard.until_asked("taps not", 1)
    assert yard.task(after)["state"] == "queued"
    assert yard.cancel(name)["state"] == "cancelled"
    wait_for(lambda: not yard.processes(name), 15, "its processes are gone")
    yard.let_go(1)
    assert yard.ended(after)["state"] == "done"
    assert yard.task(name)["state"] == "cancelled"


def test_runs_on_one_phone_go_one_after_the_other_and_others_beside_them(yard: Yard) -> None:
    yard.hold(3)
    first, second = yard.leave("taps first"), yard.leave("taps second")
    other = yard.leave("taps other", device=OTHER)
    yard.until_asked("taps first", 3)
    yard.until_asked("taps other", 3)
    assert yard.asked("taps second", 0) == []
    assert [yard.task(one)["state"] for one in (first, second, other)] == ["leased", "queued", "leased"]
    yard.let_go(3)
    assert [yard.ended(one)["state"] for one in (first, second, other)] == ["done"] * 3
    assert yard.task(first)["finished_at"] <= yard.task(second)["started_at"]


def test_a_run_ends_at_its_time_limit_and_at_its_steps(yard: Yard) -> None:
    slow = yard.leave("endless", time_limit_s=4)
    long = yard.leave("endless", max_steps=2, device=OTHER)
    seen = {name: yard.ended(name) for name in (slow, long)}
    assert [seen[name]["state"] for name in (slow, long)] == ["failed", "failed"]
    assert [seen[name]["error"]["code"] for name in (slow, long)] == ["time_limit", "step_limit"]
    assert "limit of 4 s" in seen[slow]["error"]["message"]
    assert len(yard.steps(long)) == 2


@pytest.mark.parametrize(
    ("script", "code"),
    [("login", "needs_a_person"), ("pay", "needs_a_person"), ("chat", "answer_unreadable")],
)
def test_what_the_package_would_go_on_with_or_call_success_is_told_as_it_is(yard: Yard, script: str, code: str) -> None:
    task = yard.ended(yard.leave(script))
    assert (task["state"], task["error"]["code"]) == ("failed", code)


def test_a_phone_that_is_not_there_is_said(yard: Yard) -> None:
    task = yard.ended(yard.leave("taps", device="emulator-9999"))
    assert (task["state"], task["error"]["code"]) == ("failed", "device_not_ready")
    assert "emulator-5554 (device)" in task["error"]["message"]


def test_the_command_line_leaves_a_run_and_shows_its_steps(yard: Yard) -> None:
    left = yard.deployment.run("tasks", "run-agent", "taps by hand", "--device", OTHER, "--json")
    assert left.code == 0, left.err
    name = left.json["task"]["id"]
    assert yard.deployment.run("tasks", "wait", name, "--within", "60").code == 0
    shown = yard.deployment.run("tasks", "show", name, "--result", "--json").json
    assert (shown["state"], shown["agent"]["steps"], shown["result"]["message"]) == ("done", 4, "已发送")
    assert [one["step"] for one in shown["steps"]] == [1, 2, 3, 4]
    assert "steps" not in yard.deployment.run("tasks", "show", name, "--json").json
