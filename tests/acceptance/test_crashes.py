"""Control is killed before and after every journal line, one position after the other; the world converges.

The test is the supervisor here: it starts control, lets it die at the next position (`failpoint` in the state
directory), starts it again. Each action is thus cut before it is recorded, after it is recorded and not done, and
after it is done and not recorded; `up`, the replacement of a replica and a change of the spec pass through all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import httpx
import pytest

from gonogo.facts.part import PARTS
from gonogo.store import open_store
from tests.acceptance.conftest import LONG
from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.load import Load

MOMENTS = ("before", "after")
LINES_AHEAD = 6
"""A new control process publishes its snapshot (two lines), proves what was not proven (two), then goes one further."""


class Supervised:
    """Control processes of one deployment, started by the test instead of the keeper."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.crashes: list[str] = []
        self._control: subprocess.Popen[bytes] | None = None

    def start(self, failpoint: str | None) -> None:
        """Start control, to die at `failpoint`."""
        root = self.deployment.state_dir
        root.mkdir(mode=0o700, exist_ok=True)
        mark = root / "failpoint"
        mark.unlink(missing_ok=True)
        if failpoint is not None:
            mark.write_text(failpoint)
        marks = {"GONOGO_STATE": str(root.resolve()), "GONOGO_ROLE": "control", "GONOGO_NAME": "control"}
        with (root / "control.log").open("ab") as log:
            self._control = subprocess.Popen(
                [sys.executable, "-m", "gonogo.control.main", "--state-dir", str(root)],
                env={**os.environ, **marks, "GONOGO_FAILPOINTS": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def dead(self) -> bool:
        assert self._control is not None
        return self._control.poll() is not None

    def stop(self) -> None:
        if self._control is not None and self._control.poll() is None:
            self._control.send_signal(signal.SIGKILL)
            self._control.wait(timeout=10)

    def crash_until(self, settled: Any, limit: int) -> None:
        """Start control again and again, dying before line 1, after it, before line 2 …, until it lives and is settled.

        Long (`GONOGO_LONG=1`): back to line 1 after line 6, so that each action of the whole way is cut at all of its
        positions. Otherwise further each time: some actions are passed between two crashes.
        """
        for step in range(limit):
            line = (step // 2) % LINES_AHEAD if LONG else step // 2
            position = f"{MOMENTS[step % 2]} {line + 1}"
            self.start(position)
            if self._survives(settled):
                return
            assert self._control is not None
            assert self._control.returncode == -signal.SIGKILL, (self.deployment.state_dir / "control.log").read_text()
            self.crashes.append(position)
        pytest.fail(f"not settled after {limit} crashes")

    def _survives(self, settled: Any) -> bool:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.dead:
                return False
            if settled():
                return True
            time.sleep(0.1)
        seen = [ask(self.deployment, "GET", path) for path in ("/v1/status", "/v1/events?after=0&limit=1000")]
        pytest.fail(f"neither died nor settled after {self.crashes}:\n{json.dumps(seen)[-6000:]}")


def ask(deployment: Deployment, method: str, path: str, body: Any = None) -> Any:
    """Ask control's API; None while it does not answer."""
    transport = httpx.HTTPTransport(uds=str(deployment.state_dir / "run" / "control.sock"))
    try:
        with httpx.Client(transport=transport, base_url="http://control", timeout=20.0) as client:
            return client.request(method, path, json=body).json()
    except httpx.HTTPError:
        return None


def submit(deployment: Deployment, requests: int) -> None:
    """Ask for the embedded default, prepared for so many concurrent requests."""
    spec = {
        "service": "smollm2-135m",
        "model": "smollm2-135m",
        "replicas": 2,
        "expect": {"concurrent_requests": requests, "context_tokens": 512},
        "gateway": {"address": "127.0.0.1", "port": deployment.port},
    }
    answer = ask(deployment, "POST", "/v1/specs", {"spec": spec, "principal": "test"})
    assert answer is not None
    assert answer.get("service") == "smollm2-135m", answer
    deployment.last_up = answer


def settled(deployment: Deployment, revision: int) -> bool:
    """Proven, two replicas of exactly this revision ready, nothing left to do for two seconds."""
    status = ask(deployment, "GET", "/v1/status")
    if not status or not status["services"]:
        return False
    (service,) = status["services"]
    ready = sorted(one["id"] for one in service["replicas"] if one["health"] == "ready")
    names = [f"smollm2-135m/{revision}/{index}" for index in range(2)]
    return (
        service["phase"] == "proven"
        and service["serving"] == revision
        and ready == names
        and len(service["replicas"]) == 2
        and _quiet(deployment)
    )


def _quiet(deployment: Deployment) -> bool:
    events = ask(deployment, "GET", "/v1/events?after=0&limit=1000") or {"events": []}
    actions = [event for event in events["events"] if event["kind"].startswith("Action")]
    return bool(actions) and time.time() - actions[-1]["at_ms"] / 1000 > 1.0


@pytest.fixture
def supervised(empty: Deployment) -> Iterator[Supervised]:
    control = Supervised(empty)
    try:
        yield control
    finally:
        control.stop()


def roles(deployment: Deployment) -> dict[str, int]:
    """How many processes of each role are alive, by the process table itself."""
    found: dict[str, int] = {}
    for pid in deployment.left():
        marks = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        role = next(mark.decode().partition("=")[2] for mark in marks if mark.startswith(b"GONOGO_ROLE="))
        found[role] = found.get(role, 0) + 1
    return found


WHOLE = {"control": 1, "gateway": 1, "replica": 2, **PARTS}


@pytest.mark.timeout(1800 if LONG else 600)
def test_control_killed_at_every_position_of_up_replacement_and_change(supervised: Supervised) -> None:
    deployment = supervised.deployment
    supervised.start(None)
    wait_for(lambda: ask(deployment, "GET", "/v1/healthz"), 20, "control answers")
    submit(deployment, 4)
    supervised.stop()
    supervised.crash_until(lambda: settled(deployment, 1), 200)
    crashes_up = len(supervised.crashes)
    assert crashes_up >= 8
    assert roles(deployment) == WHOLE
    deployment.key = deployment.run("keys", "create", "--json", "--name", "load").json["api_key"]
    time.sleep(0.5)

    with Load(deployment, tokens=2) as load:
        load.wait_for_more(5)
        status = ask(deployment, "GET", "/v1/status")
        victim = status["services"][0]["replicas"][0]["pid"]
        supervised.stop()
        os.kill(victim, signal.SIGKILL)
        supervised.crash_until(lambda: settled(deployment, 1), 80)
        crashes_replacement = len(supervised.crashes) - crashes_up
        assert crashes_replacement >= 4
        assert roles(deployment) == WHOLE

        submit(deployment, 6)
        supervised.stop()
        supervised.crash_until(lambda: settled(deployment, 2), 200)
        load.wait_for_more(5)
    assert load.failed == []
    assert roles(deployment) == WHOLE
    store = open_store(deployment.state_dir / "gonogo.db", clock=time.time)
    try:
        assert store.open_actions() == ()
        kinds = {event.kind for event in store.events(limit=10_000)}
    finally:
        store.close()
    assert "ActionAbandoned" in kinds
    report = deployment.run("check", "--json").json
    assert not [one for one in report["answers"] if one["reason"] == "EventsTampered"]
    print(json.dumps({"crashes": len(supervised.crashes), "requests": len(load.answers)}))
