"""What the test of agents' runs has around a real deployment: phones behind a fake adb, scripted engines, a watch."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.fake_adb import SERIAL
from tests.acceptance.phone_parts import png
from tests.shell.outside_phone import OutsidePhone

OTHER = "emulator-5556"
MODEL = "phone"
NOISE_BYTES = 30_000
"""Screens of the usual size in pixels, and cheap: what a large one needs, `test_phone_agent.py` has."""


@dataclass(frozen=True)
class Phones:
    """Two phones behind one fake adb."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Phones:
        (folder / "screens").mkdir(parents=True)
        for number in range(2):
            (folder / "screens" / f"{number}.png").write_bytes(png(number, NOISE_BYTES))
        (folder / "devices").write_text(f"{SERIAL}\n{OTHER}\n")
        program = Path(__file__).with_name("fake_adb.py")
        adb = folder / "fake-adb"
        adb.write_text(f'#!/bin/sh\nFAKE_PHONE={folder} exec {sys.executable} -IS {program} "$@"\n')
        adb.chmod(0o700)
        return cls(folder)

    @property
    def adb(self) -> str:
        return str(self.folder / "fake-adb")

    def calls(self, *words: str, serial: str = SERIAL) -> list[list[str]]:
        """What was asked of one phone: the calls that begin so, without its serial."""
        log = self.folder / "calls.jsonl"
        told = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        mine = [call[2:] for call in told if call[:2] == ["-s", serial]]
        return [call for call in mine if call[: len(words)] == list(words)]

    def forget(self) -> None:
        (self.folder / "calls.jsonl").unlink(missing_ok=True)


@dataclass
class Yard:
    """A deployment whose replicas are two scripted engines, and the phones."""

    deployment: Deployment
    engines: list[OutsidePhone]
    phones: Phones
    folder: Path

    def leave(self, task: str, **agent: Any) -> str:
        asked = {"program": "phone-agent", "task": task, "device": SERIAL, **agent}
        with self.deployment.client() as client:
            made = client.post("/v1/tasks", json={"agent": asked, "model": MODEL})
        assert made.status_code == 202, made.text
        return str(made.json()["id"])

    def may_ask(self) -> bool:
        """Both policy servers know the key."""
        with self.deployment.client() as client:
            return all(client.get("/v1/tasks").status_code == 200 for _ in range(8))

    def task(self, name: str, wait_s: int = 0) -> Any:
        with self.deployment.client() as client:
            return client.get(f"/v1/tasks/{name}", params={"wait": wait_s} if wait_s else {}).json()

    def steps(self, name: str) -> list[Any]:
        with self.deployment.client() as client:
            return list(client.get(f"/v1/tasks/{name}/steps").json()["data"])

    def cancel(self, name: str) -> Any:
        with self.deployment.client() as client:
            return client.post(f"/v1/tasks/{name}/cancel").json()

    def ended(self, name: str) -> Any:
        """The task once it has ended; the logs when it does not."""
        task = self.task(name, 60)
        assert task["state"] not in ("queued", "leased"), (task, self.deployment.logs())
        return task

    def hold(self, step: int | str) -> None:
        """From now on no engine answers the request of this step; `middle-STEP`: beyond the half of its answer."""
        (self.folder / f"hold-{step}").touch()

    def let_go(self, step: int | str) -> None:
        (self.folder / f"hold-{step}").unlink(missing_ok=True)

    def asked(self, task: str, step: int) -> list[Any]:
        """The requests of this step of a task that engines got."""
        log = self.folder / "asked.jsonl"
        told = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [one for one in told if one["step"] == step and one["task"].startswith(task)]

    def until_asked(self, task: str, step: int, times: int = 1) -> Any:
        """The newest such request, once there are so many."""
        try:
            wait_for(lambda: len(self.asked(task, step)) >= times, 30, f"step {step} of {task}")
        except AssertionError as late:
            with self.deployment.client() as client:
                raise AssertionError(f"{late}; {client.get('/v1/tasks').json()}; {self.deployment.logs()}") from None
        return self.asked(task, step)[-1]

    def processes(self, name: str) -> list[int]:
        """Of one run, found without gonogo's help."""
        mark, found = f"GONOGO_RUN={name}".encode(), []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark in environment and state != "Z":
                found.append(int(entry))
        return found

    def workers_of_agents(self) -> list[int]:
        """The processes that attend runs."""
        found = []
        for pid in self.deployment.left():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"gonogo.tasks.agents.main" in words:
                found.append(pid)
        return found
