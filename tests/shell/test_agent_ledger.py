"""The ledger's part of agents' runs: one at a time has a device, the lost ones are settled, steps belong to a lease."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gonogo.runtimes.paths import StatePaths
from gonogo.tasks import leases, ledger
from gonogo.tasks.agents import runs
from gonogo.tasks.agents.asked import read_agent
from gonogo.tasks.agents.nouns import MOST_RESTARTS, Step
from gonogo.tasks.agents.processes import RUN_MARK, of_run
from gonogo.tasks.agents.recover import recover
from gonogo.tasks.agents.tools import folder_of
from gonogo.tasks.asked import Wrong, read_request
from gonogo.tasks.database import MIGRATIONS, Database
from gonogo.tasks.leases import Machine
from gonogo.tasks.nouns import Ended, State
from gonogo.tasks.places import Queue, open_queue
from gonogo.tasks.requests import Wish, new_task, record
from tests.shell.policy_parts import until

HERE = Machine.this()


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return open_queue(StatePaths.of(tmp_path / "state"))


def leave(queue: Queue, device: str = "one", key: str | None = None, **agent: Any) -> str:
    asked, run = read_agent({"program": "phone-agent", "task": "打开微信", "device": device, **agent}, "svc")
    wish = Wish(asked=asked, run=run, owner="alice00000", idempotency_key=key)
    with queue.database.writing() as c:
        return record(c, new_task(wish, queue.bodies, 100.0), wish, queue.bodies).task_id


def hire(queue: Queue) -> int:
    with queue.database.writing() as c:
        return leases.begin(c, HERE, "w", os.getpid())


def take(queue: Queue, lease: int, most: int = 8) -> list[str]:
    with queue.database.writing() as c:
        return [one.task_id for one in runs.take(c, lease, most, 200.0)]


def die(queue: Queue, lease: int) -> None:
    """As a worker does that is killed: its lease is swept, what it held is not."""
    with queue.database.writing() as c:
        c.execute("UPDATE leases SET until = 0 WHERE number = ?", (lease,))
        leases.sweep(c, HERE, 300.0)


def state(queue: Queue, name: str) -> tuple[str, str | None]:
    with queue.database.reading() as c:
        task = ledger.task(c, name)
    assert task is not None
    return task.state.value, task.reason


def number_of(queue: Queue, name: str) -> int:
    with queue.database.reading() as c:
        task = ledger.task(c, name)
    assert task is not None
    return task.number


def finish(queue: Queue, lease: int, name: str) -> bool:
    number = number_of(queue, name)
    with queue.database.writing() as c:
        kept = leases.finish(c, lease, Ended(number=number, state=State.DONE, status=None, result=b"x"), 250.0)
        runs.free(c, number, lease)
    return kept


def test_a_run_whose_window_ends_while_its_agent_works_is_told_so(queue: Queue) -> None:
    name = leave(queue)
    take(queue, hire(queue))
    with queue.database.writing() as c:
        assert ledger.expire(c, 1e6, 1) == 1
    with queue.database.reading() as c:
        task = ledger.task(c, name)
    assert task is not None and task.message is not None and "its agent was at work" in task.message


def test_one_run_at_a_time_has_a_device_and_the_others_follow_in_order(queue: Queue) -> None:
    first, second, third, other = (leave(queue), leave(queue), leave(queue), leave(queue, "two"))
    lease, rival = hire(queue), hire(queue)
    assert take(queue, lease) == [first, other]
    assert take(queue, lease) == take(queue, rival) == []
    assert finish(queue, lease, first)
    assert take(queue, rival) == [second]
    assert finish(queue, rival, second)
    assert take(queue, lease) == [third]


def test_the_ledger_itself_refuses_a_second_run_on_a_device(queue: Queue) -> None:
    leave(queue)
    number = number_of(queue, leave(queue))
    take(queue, hire(queue))
    with pytest.raises(sqlite3.IntegrityError), queue.database.writing() as c:
        c.execute("INSERT INTO devices (device, number, lease) VALUES ('one', ?, 1)", (number,))


def test_no_worker_of_requests_takes_a_run_and_nobody_rings_for_one(queue: Queue) -> None:
    name = leave(queue)
    with queue.database.writing() as c:
        lease = leases.begin(c, HERE, "w", os.getpid())
        assert leases.take(c, lease, 10, 200.0, ranks=(0, 1), alone=True) == ()
        assert not leases.wanting(c, 200.0) and runs.wanting(c, 200.0)
    assert take(queue, lease) == [name]
    with queue.database.writing() as c:
        assert not runs.wanting(c, 200.0)
        leases.end(c, lease)
    assert state(queue, name) == ("leased", None), "an orderly end is a loss too: what it did is not undone"


def test_a_lost_run_fails_or_waits_again_as_declared_and_its_device_is_free_with_that(queue: Queue) -> None:
    fails, again = leave(queue), leave(queue, "two", on_worker_death="restart")
    after = leave(queue)
    lease = hire(queue)
    assert take(queue, lease) == [fails, again]
    die(queue, lease)
    assert [state(queue, one) for one in (fails, again)] == [("leased", None)] * 2
    assert take(queue, hire(queue)) == [], "its processes may still be there"
    assert recover(queue, lambda: 400.0) == 2
    assert [state(queue, one) for one in (fails, again)] == [("failed", "worker_lost"), ("queued", "worker_lost")]
    assert take(queue, hire(queue)) == [again, after]
    assert recover(queue, lambda: 400.0) == 0


def test_a_run_that_loses_worker_after_worker_is_dead(queue: Queue) -> None:
    name = leave(queue, on_worker_death="restart")
    for _ in range(MOST_RESTARTS + 1):
        lease = hire(queue)
        assert take(queue, lease) == [name]
        die(queue, lease)
        recover(queue, lambda: 400.0)
    assert state(queue, name) == ("dead", "worker_lost")


def test_the_processes_of_a_lost_run_are_killed_before_its_device_is_free(queue: Queue) -> None:
    name = leave(queue)
    lease = hire(queue)
    take(queue, lease)
    marks = {"GONOGO_STATE": str(queue.paths.root), RUN_MARK: name}
    program = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); os.setsid(); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], env=marks)
    until(lambda: len(of_run(queue.paths.root, name)) == 2)
    folder = folder_of(queue.paths, name)
    folder.mkdir(parents=True)
    (folder / "screenshot.png").write_bytes(b"a screen")
    assert recover(queue, lambda: 400.0) == 0, "its worker lives"
    die(queue, lease)
    assert recover(queue, lambda: 400.0) == 1
    assert of_run(queue.paths.root, name) == () and not folder.exists()
    child.wait(10)


def test_a_cancelled_run_whose_worker_died_stays_cancelled_and_frees_its_device(queue: Queue) -> None:
    name, after = leave(queue), leave(queue)
    lease = hire(queue)
    take(queue, lease)
    with queue.database.writing() as c:
        assert ledger.cancel(c, [number_of(queue, name)], 300.0) == 1
    assert take(queue, hire(queue)) == [], "cancelled, and not yet ended"
    die(queue, lease)
    recover(queue, lambda: 400.0)
    assert state(queue, name)[0] == "cancelled"
    assert take(queue, hire(queue)) == [after]


def test_what_a_worker_says_that_was_taken_for_dead_is_not_kept(queue: Queue) -> None:
    name, _ = leave(queue, on_worker_death="restart"), leave(queue)
    old = hire(queue)
    take(queue, old)
    step = Step(attempt=1, step=1, at=210.0, body=b"sealed")
    with queue.database.writing() as c:
        assert runs.add_step(c, old, number_of(queue, name), step)
    die(queue, old)
    recover(queue, lambda: 400.0)
    new = hire(queue)
    assert take(queue, new) == [name]
    with queue.database.writing() as c:
        number = number_of(queue, name)
        assert not runs.add_step(c, old, number, Step(attempt=1, step=2, at=211.0, body=b"late"))
        assert runs.still_held(c, old) == frozenset() and runs.still_held(c, new) == {number}
        assert runs.add_step(c, new, number, Step(attempt=2, step=1, at=410.0, body=b"sealed"))
        assert [(one.attempt, one.step) for one in runs.steps(c, number, (0, 0), 10)] == [(1, 1), (2, 1)]
        assert [(one.attempt, one.step) for one in runs.steps(c, number, (1, 1), 10)] == [(2, 1)]
    assert not finish(queue, old, name)
    assert take(queue, hire(queue)) == [], "the old one's end frees nothing"


def test_an_idempotency_key_stands_for_the_same_run(queue: Queue) -> None:
    first = leave(queue, key="k")
    assert leave(queue, key="k") == first
    with pytest.raises(Wrong):
        leave(queue, key="k", max_steps=3)
    assert take(queue, hire(queue)) == [first]


def test_task_and_device_lie_sealed_or_where_they_are_needed(queue: Queue) -> None:
    leave(queue, "R58M123ABC")
    kept = b"".join(path.read_bytes() for path in (queue.paths.root / "tasks").glob("tasks.db*"))
    assert "打开微信".encode() not in kept


def test_runs_and_steps_are_forgotten_with_their_tasks(queue: Queue) -> None:
    name = leave(queue)
    lease = hire(queue)
    take(queue, lease)
    number = number_of(queue, name)
    with queue.database.writing() as c:
        runs.add_step(c, lease, number, Step(attempt=1, step=1, at=1.0, body=b"sealed"))
    finish(queue, lease, name)
    with queue.database.writing() as c:
        assert ledger.purge(c, 1e9, 10) == 1
        counts = [c.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("runs", "steps", "devices")]
    assert counts == [0, 0, 0]


def test_a_ledger_of_before_has_its_tasks_after_the_migration(tmp_path: Path) -> None:
    path = tmp_path / "tasks" / "tasks.db"
    Database.open(path).close()
    with closing(sqlite3.connect(path)) as raw:
        for table in ("runs", "steps", "devices"):
            raw.execute(f"DROP TABLE {table}")
        raw.execute("PRAGMA user_version = 1")
        raw.execute(
            "INSERT INTO tasks (task_id, owner, rank, url, tokens, state, created_at, expires_at)"
            " VALUES ('old', 'alice', 0, '/v1/chat/completions', 1, 'queued', 1.0, 1e9)"
        )
        raw.commit()
    with Database.open(path).reading() as c:
        assert c.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert ledger.task(c, "old") is not None and not runs.wanting(c, 2.0)


def test_a_request_beside_runs_is_worked_on_as_before(queue: Queue) -> None:
    leave(queue)
    wish = Wish(asked=read_request("/v1/chat/completions", {"messages": []}), owner="alice00000")
    with queue.database.writing() as c:
        made = record(c, new_task(wish, queue.bodies, 100.0), wish, queue.bodies)
        lease = leases.begin(c, HERE, "w", os.getpid())
        taken = leases.take(c, lease, 10, 200.0, ranks=(0, 1), alone=True)
        assert [one.task.task_id for one in taken] == [made.task_id]
        c.execute("UPDATE leases SET until = 0")
        assert leases.sweep(c, HERE, 300.0) == 1
    assert state(queue, made.task_id)[0] == "queued"
