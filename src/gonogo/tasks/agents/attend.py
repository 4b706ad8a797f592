"""One run from its start to its end, in a thread of its own: prepared, begun, heard step by step, ended, judged.

What it did up to there stays done on the device; its task ends with what `verdict` says. Not here: who takes runs and
writes their ends into the ledger (`main`).
"""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping

from gonogo.runtimes.paths import StatePaths
from gonogo.security.keyring import KeyFileError
from gonogo.security.sealing import SealError
from gonogo.tasks.agents import processes, runs, tools
from gonogo.tasks.agents.keys import NotNow, RunKeys, mint_one
from gonogo.tasks.agents.nouns import Step, bounded, cut
from gonogo.tasks.agents.processes import AgentProcess, NoEvent
from gonogo.tasks.agents.runs import TakenRun
from gonogo.tasks.agents.shown import place_of
from gonogo.tasks.agents.tools import Missing
from gonogo.tasks.agents.verdict import Verdict, Why, judge
from gonogo.tasks.bodies import Bodies
from gonogo.tasks.database import Database
from gonogo.tasks.nouns import State

READY_WITHIN_S = 60.0
LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What runs are attended with. `held` says whether our lease still holds the run, as the ledger has it now."""

    paths: StatePaths
    database: Database
    bodies: Bodies
    keys: RunKeys
    lease: int
    held: Callable[[int], bool]
    stopping: threading.Event = field(default_factory=threading.Event)
    wall: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """How it went. `verdict` None: it is not ours any more; `later`: it could not begin, and waits again."""

    verdict: Verdict | None
    result: bytes | None = field(default=None, repr=False)
    later: bool = False


def attend(bench: Bench, taken: TakenRun) -> Attended:
    """Run it. Whatever happens, its processes are gone when this returns."""
    folder = tools.folder_of(bench.paths, taken.task_id)
    try:
        order = bench.bodies.open(taken.task_id, "prompt", taken.prompt)["body"]
    except (SealError, KeyFileError) as error:
        return _not_begun(State.DEAD, "cannot_be_opened", str(error))
    minted = mint_one()
    with bench.database.writing() as c:
        runs.set_key(c, taken.run.number, minted.key_id)
    try:
        return _Attendance(bench, taken, folder).run(order, minted)
    except Missing as missing:
        return _not_begun(State.FAILED, missing.code, missing.message)
    except NotNow:
        return Attended(verdict=None, later=True)
    finally:
        while not processes.end_all(bench.paths.root, taken.task_id):
            pass  # the device is not given to another run before
        shutil.rmtree(folder, ignore_errors=True)


def _not_begun(state: State, reason: str, message: str) -> Attended:
    return Attended(verdict=Verdict(state=state, reason=reason, message=message))


class _Attendance:
    def __init__(self, bench: Bench, taken: TakenRun, folder: Path) -> None:
        self._bench, self._taken, self._folder = bench, taken, folder
        self._steps = 0

    def run(self, order: Mapping[str, Any], minted: Any) -> Attended:
        bench, run = self._bench, self._taken.run
        found = tools.find_tools(run.program, bench.paths)
        store = bench.keys.store()
        try:
            base_url, ca_file = tools.gateway_of(store, order["model"], bench.paths)
        finally:
            store.close()
        tools.require_device(found.adb, run.device)
        bench.keys.make(minted, self._taken.owner, order["model"], run.time_limit_s)
        bench.keys.wait_until_known(minted, lambda: self._lost)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        surroundings = tools.environment(found, bench.paths, self._folder, self._taken.task_id, ca_file)
        process = AgentProcess(tools.command(run.program, found), surroundings, self._folder)
        told = {name: order[name] for name in ("task", "device", "max_steps", "lang", "model")}
        try:
            end, why = self._heard(process, {**told, "base_url": base_url, "api_key": minted.text})
        finally:
            code = process.end()
        if self._lost:
            return Attended(verdict=None)
        verdict = judge(run, self._steps, end, code, why)
        return Attended(verdict=verdict, result=self._result(end, process.printed()))

    @property
    def _lost(self) -> bool:
        """Cancelled, too late, taken for dead, or this worker ends."""
        return self._bench.stopping.is_set() or not self._bench.held(self._taken.run.number)

    def _heard(self, process: AgentProcess, order: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Why | None]:
        """The last event, and why we ended it; both None when it ended by itself."""
        ends, begun = time.monotonic() + READY_WITHIN_S, False
        while not self._lost:
            gone = process.ended()  # before it is heard: what it said last is in the pipe
            try:
                events = process.look(LOOK_EVERY_S)
            except NoEvent:
                return None, Why.PROTOCOL
            for event in events:
                if event["event"] == "ready" and not begun:
                    begun, ends = True, time.monotonic() + self._taken.run.time_limit_s
                    if not self._ours_now():
                        return None, None
                    process.order(order)
                elif event["event"] == "end":
                    return event, None
                elif event["event"] == "step":
                    self._keep(event)
            if self._steps > self._taken.run.max_steps:
                return None, Why.STEP_LIMIT
            if gone and not events:
                return None, None
            if time.monotonic() > ends:
                return None, Why.TIME_LIMIT if begun else Why.NOT_READY
        return None, None

    def _ours_now(self) -> bool:
        """Asked of the ledger once the process is there: from here on, who ends our lease finds it by its marks."""
        with self._bench.database.reading() as c:
            return self._taken.run.number in runs.still_held(c, self._bench.lease)

    def _keep(self, event: Mapping[str, Any]) -> None:
        self._steps += 1
        kept = ("success", "action", "thinking", "message")
        self._write({**{name: bounded(event.get(name)) for name in kept}, "output": event["output"]}, self._steps)

    def _write(self, body: Mapping[str, Any], number: int) -> None:
        bench, run = self._bench, self._taken.run
        place = place_of(run.attempt, number)
        step = Step(
            attempt=run.attempt,
            step=number,
            at=bench.wall(),
            body=bench.bodies.seal(self._taken.task_id, place, body),
        )
        with bench.database.writing() as c:
            runs.add_step(c, bench.lease, run.number, step)

    def _result(self, end: Mapping[str, Any] | None, printed: str) -> bytes:
        told = end or {}
        said = told.get("message")
        result = {
            "message": None if said is None else cut(str(said)),
            "steps": self._steps,
            "restarts": self._taken.losses,
            "output": told.get("output", "") + printed,
        }
        return self._bench.bodies.seal(self._taken.task_id, "result", result)
