"""The ledger: whatever workers do and however they die, each task has exactly one end, and nothing is lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gonogo.runtimes.paths import StatePaths
from gonogo.store.faults import StoreFull, StoreFuture, StoreUnreadable
from gonogo.tasks import leases, ledger
from gonogo.tasks.database import Database, GroupWriter
from gonogo.tasks.leases import LeaseLost, Machine
from gonogo.tasks.nouns import MOST_ATTEMPTS, MOST_LOSSES, Counts, Ended, NewTask, Postponed, State, Task
from gonogo.tasks.places import open_queue
from gonogo.tasks.reconcile import KEPT_S, Reconciler

ALL_RANKS = (0, 1)


class Clock:
    """A machine whose time a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.machine = Machine(boot="this", clock=lambda: self.now)


def new(name: str, owner: str = "alice", **changes: Any) -> NewTask:
    given: dict[str, Any] = {
        "task_id": name,
        "owner": owner,
        "url": "/v1/chat/completions",
        "model": None,
        "tokens": 1,
        "prompt": b"sealed",
        "created_at": 1.0,
        "expires_at": 1e9,
    }
    return NewTask(**{**given, **changes})


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(tmp_path / "tasks" / "tasks.db")


def names(taken: Any) -> list[str]:
    return [one.task.task_id for one in taken]


def take(c: sqlite3.Connection, lease: int, most: int = 10, now: float = 2.0, alone: bool = True) -> Any:
    return leases.take(c, lease, most, now, ranks=ALL_RANKS, alone=alone)


def done(task: Task, result: bytes = b"answer") -> Ended:
    return Ended(number=task.number, state=State.DONE, status=200, result=result)


def test_a_task_is_recorded_once_for_its_idempotency_key_and_each_owner_has_keys_of_its_own(database: Database) -> None:
    with database.writing() as c:
        first = ledger.add(c, new("one", idempotency_key="k"))
        with pytest.raises(ledger.KeyUsedTwice) as known:
            ledger.add(c, new("two", idempotency_key="k"))
        assert known.value.task == first
        ledger.add(c, new("three", owner="bob", idempotency_key="k"))
        assert ledger.task(c, "one", "bob") is None and ledger.task(c, "one", "alice") == first
        assert ledger.counts(c) == Counts(queued=2)


def test_owners_take_turns_and_single_tasks_go_before_the_lines_of_batches(database: Database) -> None:
    with database.writing() as c:
        for number in range(3):
            ledger.add(c, new(f"line{number}", owner="alice", batch_id="b", line=number))
        for owner, name in [("alice", "a1"), ("alice", "a2"), ("alice", "a3"), ("bob", "b1")]:
            ledger.add(c, new(name, owner=owner))
        lease = leases.begin(c, Clock().machine, "w", os.getpid())
        assert names(take(c, lease, 3)) == ["a1", "b1", "a2"]
        assert names(take(c, lease, 9)) == ["a3", "line0", "line1", "line2"]
        assert names(take(c, lease)) == []


def test_of_two_workers_that_hold_a_task_one_after_the_other_only_the_second_ones_answer_is_kept(
    database: Database,
) -> None:
    clock = Clock()
    with database.writing() as c:
        task = ledger.add(c, new("one"))
        slow, quick = (leases.begin(c, clock.machine, "w", os.getpid()) for _ in range(2))
        take(c, slow)
        clock.now += leases.LEASE_S - 1
        leases.renew(c, clock.machine, quick)
        clock.now += 2
        assert leases.sweep(c, clock.machine, 3.0) == 1
        (again,) = take(c, quick)
        assert again.task.losses == 1
        assert not leases.finish(c, slow, done(task, b"too late"), 4.0)
        with pytest.raises(LeaseLost):
            leases.renew(c, clock.machine, slow)
        with pytest.raises(LeaseLost):
            take(c, slow)
        assert leases.finish(c, quick, done(task, b"right"), 5.0)
        assert not leases.finish(c, quick, done(task, b"twice"), 6.0)
        assert ledger.result(c, task.number) == b"right"


def test_a_dead_workers_tasks_wait_again_at_once_and_a_living_ones_do_not(database: Database) -> None:
    clock, process = Clock(), subprocess.Popen(["sleep", "60"])
    with database.writing() as c:
        for name in ("one", "two"):
            ledger.add(c, new(name))
        theirs, mine = (
            leases.begin(c, clock.machine, "w", process.pid),
            leases.begin(c, clock.machine, "w", os.getpid()),
        )
        assert names(take(c, theirs, 1)) == ["one"] and names(take(c, mine, 1)) == ["two"]
        assert leases.sweep(c, clock.machine, 3.0) == 0
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert leases.sweep(c, clock.machine, 3.0) == 1, "a zombie is dead already"
        process.wait(10)
        assert leases.renew(c, clock.machine, mine) and leases.holders(c, clock.machine) == (("w", 1),)


def test_after_a_restart_of_the_machine_every_lease_is_over(database: Database) -> None:
    clock = Clock()
    with database.writing() as c:
        ledger.add(c, new("one"))
        take(c, leases.begin(c, clock.machine, "w", os.getpid()))
        assert leases.sweep(c, Machine(boot="other", clock=lambda: 0.0), 3.0) == 1


def test_a_task_that_outlives_no_worker_is_dead_after_some_and_runs_alone_before(database: Database) -> None:
    clock = Clock()
    with database.writing() as c:
        poison = ledger.add(c, new("poison"))
        ledger.add(c, new("innocent"))
        together = []
        for _ in range(MOST_LOSSES):
            lease = leases.begin(c, clock.machine, "w", os.getpid())
            together.append(names(take(c, lease)))
            clock.now += leases.LEASE_S + 1
            leases.sweep(c, clock.machine, 3.0)
        assert together == [["poison", "innocent"]] * 2 + [["poison"]] * (MOST_LOSSES - 2)
        assert ledger.task(c, "innocent").losses == 2  # type: ignore[union-attr]
        (letter,) = ledger.dead(c, 10)
        assert (letter.number, letter.reason, letter.losses) == (poison.number, "worker_lost", MOST_LOSSES)
        lease = leases.begin(c, clock.machine, "w", os.getpid())
        assert take(c, lease, alone=False) == (), "it is a suspect, and the worker holds something else"
        assert names(take(c, lease)) == ["innocent"]


def test_an_answer_that_may_pass_is_tried_again_later_and_not_for_ever(database: Database) -> None:
    clock = Clock()
    with database.writing() as c:
        task = ledger.add(c, new("one"))
        lease = leases.begin(c, clock.machine, "w", os.getpid())
        now, states = 2.0, []
        for _ in range(MOST_ATTEMPTS):
            take(c, lease, now=now)
            later = Postponed(number=task.number, not_before=now + 9, counts=True, reason="engine", message="500")
            states.append(leases.postpone(c, lease, later, now))
            assert take(c, lease, now=now + 8) == () and not leases.wanting(c, now + 8)
            now += 10
        assert states == [State.QUEUED] * (MOST_ATTEMPTS - 1) + [State.DEAD]
        assert ledger.retry(c, [task.number], now, 60.0) == 1
        assert names(take(c, lease, now=now)) == ["one"]


def test_no_room_at_the_gateway_uses_up_no_attempt(database: Database) -> None:
    with database.writing() as c:
        task = ledger.add(c, new("one"))
        lease = leases.begin(c, Clock().machine, "w", os.getpid())
        for now in range(2, 20):
            take(c, lease, now=float(now))
            later = Postponed(number=task.number, not_before=0.0, counts=False, reason="busy", message="429")
            assert leases.postpone(c, lease, later, float(now)) is State.QUEUED


def test_a_clock_that_was_set_back_does_not_make_a_task_wait_for_hours(database: Database) -> None:
    clock = Clock()
    with database.writing() as c:
        task = ledger.add(c, new("one"))
        lease = leases.begin(c, clock.machine, "w", os.getpid())
        take(c, lease, now=9e6)
        later = Postponed(number=task.number, not_before=9e6 + 5, counts=False, reason="busy", message="429")
        leases.postpone(c, lease, later, 9e6)
        assert not leases.wanting(c, 5.0)
        leases.sweep(c, clock.machine, 5.0)
        assert leases.wanting(c, 5.0)


def test_what_is_cancelled_or_expired_takes_no_answer_any_more(database: Database) -> None:
    with database.writing() as c:
        running, waiting = ledger.add(c, new("running", expires_at=50.0)), ledger.add(c, new("waiting"))
        lease = leases.begin(c, Clock().machine, "w", os.getpid())
        take(c, lease, 1)
        assert ledger.expire(c, 49.0, 10) == 0 and ledger.expire(c, 50.0, 10) == 1
        assert ledger.cancel(c, [waiting.number, running.number], 51.0) == 1
        assert not leases.finish(c, lease, done(running), 52.0)
        assert leases.renew(c, Clock().machine, lease) == frozenset()
        assert ledger.task(c, "running").reason == "expired"  # type: ignore[union-attr]


def test_whose_window_ends_is_told_whether_it_ran_waited_or_was_to_be_tried_again(database: Database) -> None:
    with database.writing() as c:
        for name in ("again", "asked", "asked-again"):
            ledger.add(c, new(name, expires_at=50.0))
        lease = leases.begin(c, Clock().machine, "w", os.getpid())
        taken = {one.task.task_id: one.task.number for one in take(c, lease, now=45.5)}
        for name in ("again", "asked-again"):
            busy = Postponed(number=taken[name], not_before=46.0, counts=False, reason="busy", message="It was full.")
            leases.postpone(c, lease, busy, 46.0)
        c.execute("UPDATE tasks SET not_before = 99 WHERE task_id = 'again'")
        assert names(take(c, lease, now=47.0)) == ["asked-again"]
        ledger.add(c, new("waiting", expires_at=50.0))
        assert ledger.expire(c, 50.2, 10) == 4
        told = {row["task_id"]: row["message"] for row in c.execute("SELECT task_id, message FROM tasks")}
    late = "The task was not done before its window ended: "
    assert told == {
        "waiting": late + "it had not been its turn.",
        "again": late + "it waited to be tried again. It was full.",
        "asked": late + "it was being asked when its time was up, first taken 4.5 s before.",
        "asked-again": late + "it was being asked when its time was up, first taken 4.5 s before."
        " Before that: It was full.",
    }


def test_while_draining_nothing_new_begins_and_what_runs_is_finished(database: Database) -> None:
    with database.writing() as c:
        task = ledger.add(c, new("one"))
        ledger.add(c, new("two"))
        lease = leases.begin(c, Clock().machine, "w", os.getpid())
        take(c, lease, 1)
        leases.drain(c, True, 3.0)
        assert take(c, lease) == () and not leases.wanting(c, 4.0)
        assert leases.finish(c, lease, done(task), 4.0)
        leases.drain(c, False, 5.0)
        assert names(take(c, lease)) == ["two"]


def test_a_worker_that_ends_gives_back_what_it_had_not_begun(database: Database) -> None:
    with database.writing() as c:
        ledger.add(c, new("one"))
        lease = leases.begin(c, Clock().machine, "w", os.getpid())
        take(c, lease)
        leases.end(c, lease)
        other = leases.begin(c, Clock().machine, "w", os.getpid())
        assert other > lease, "a number is never used again: it is the fencing token"
        (again,) = take(c, other)
        assert (again.task.losses, again.task.attempts) == (0, 0)


def test_writes_of_many_threads_share_a_flush_and_one_that_fails_undoes_only_itself(database: Database) -> None:
    writer = GroupWriter(database)

    def add(number: int) -> None:
        futures = [writer.write(lambda c, i=i: ledger.add(c, new(f"{number}-{i}"))) for i in range(20)]
        twice = writer.write(
            lambda c: (ledger.add(c, new(f"{number}-x")), ledger.add(c, new(f"{number}-x", line=1 // 0)))
        )
        for future in futures:
            future.result(30)
        with pytest.raises(ZeroDivisionError):
            twice.result(30)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    with database.reading() as c:
        assert ledger.counts(c).queued == 160


def test_a_full_disk_is_told_to_all_who_wait_for_the_flush_and_nothing_is_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = Database._connect

    def small(self: Database) -> sqlite3.Connection:
        made = connect(self)
        made.execute("PRAGMA max_page_count = 120")
        return made

    monkeypatch.setattr(Database, "_connect", small)
    database = Database.open(tmp_path / "tasks" / "tasks.db")
    writer = GroupWriter(database)
    kept = 0
    with pytest.raises(StoreFull):
        for number in range(100):
            writer.write(lambda c, n=number: ledger.add(c, new(str(n), prompt=bytes(20_000)))).result(30)
            kept += 1
    with database.reading() as c:
        assert ledger.counts(c).queued == kept > 0
        assert c.execute("SELECT count(*) FROM bodies").fetchone()[0] == kept
    with database.writing() as c:
        ledger.forget(c, [1, 2])
    writer.write(lambda c: ledger.add(c, new("fits again", prompt=bytes(20_000)))).result(30)
    writer.close()


def test_the_file_is_its_owners_alone_and_a_newer_or_foreign_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks" / "tasks.db"
    database = Database.open(path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with database.writing() as c:
        c.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreFuture, match="version 99"):
        Database.open(path)
    with database.writing() as c:
        c.execute("PRAGMA application_id = 7")
    with pytest.raises(StoreUnreadable, match="another program"):
        Database.open(path)


class Workers(RuleBasedStateMachine):
    """Workers that take, answer, give back, hang, die and come too late, in any order."""

    @initialize()
    def begin(self) -> None:
        self.database = Database(Path(":memory:"))
        self.clock, self.now = Clock(), 10.0
        self.held: dict[int, list[Task]] = {}
        self.kept: dict[int, list[bytes]] = {}
        self.made = 0
        with self.database.writing() as c:
            self.database._migrate(c)

    @rule(owner=st.sampled_from("ab"), batch=st.booleans())
    def add(self, owner: str, batch: bool) -> None:
        with self.database.writing() as c:
            self.made += 1
            ledger.add(c, new(str(self.made), owner=owner, **({"batch_id": "b"} if batch else {})))

    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        with self.database.writing() as c:
            lease = leases.begin(c, self.clock.machine, "w", os.getpid())
            self.held[lease] = [one.task for one in take(c, lease, most, self.now)]

    @rule(data=st.data(), counts=st.booleans(), ends=st.booleans())
    def answer(self, data: st.DataObject, counts: bool, ends: bool) -> None:
        """Also by a lease that was lost long ago."""
        having = [(lease, task) for lease, tasks in self.held.items() for task in tasks]
        if not having:
            return
        lease, task = data.draw(st.sampled_from(having))
        with self.database.writing() as c:
            if ends:
                result = f"{lease}".encode()
                if leases.finish(c, lease, done(task, result), self.now):
                    self.kept.setdefault(task.number, []).append(result)
            else:
                later = Postponed(number=task.number, not_before=self.now, counts=counts, reason="r", message="m")
                leases.postpone(c, lease, later, self.now)

    @rule()
    def all_hang(self) -> None:
        self.clock.now += leases.LEASE_S + 1
        with self.database.writing() as c:
            leases.sweep(c, self.clock.machine, self.now)

    @rule()
    def one_ends(self) -> None:
        for lease in list(self.held)[:1]:
            with self.database.writing() as c:
                leases.end(c, lease)

    @invariant()
    def nothing_is_lost_and_nothing_has_two_ends(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.reading() as c:
            assert ledger.counts(c).total == self.made
            for number, results in self.kept.items():
                assert len(results) == 1 and ledger.result(c, number) == results[0]
            holding = c.execute("SELECT count(*) FROM tasks WHERE (state = 'leased') IS NOT (lease IS NOT NULL)")
            assert holding.fetchone()[0] == 0
            orphans = c.execute(
                "SELECT count(*) FROM tasks WHERE lease IS NOT NULL AND lease NOT IN (SELECT number FROM leases)"
            )
            assert orphans.fetchone()[0] == 0


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_what_ended_long_ago_is_forgotten_and_dead_letters_stay(tmp_path: Path) -> None:
    queue = open_queue(StatePaths.of(tmp_path / "state"))
    with queue.vault.write("file-orphan") as writing:
        writing.finish()
    os.utime(tmp_path / "state" / "tasks" / "files" / "file-orphan", (1.0, 1.0))
    with queue.database.writing() as c:
        lease = leases.begin(c, Clock().machine, "w", os.getpid())
        for name in ("old", "young", "dead"):
            task = ledger.add(c, new(name))
            take(c, lease)
            state = State.DEAD if name == "dead" else State.DONE
            ended = Ended(number=task.number, state=state, status=200, result=b"r")
            leases.finish(c, lease, ended, KEPT_S if name == "young" else 2.0)
    bell: Any = None
    reconciler = Reconciler(
        queue=queue,
        bell=bell,
        machine=Clock().machine,
        tell=print,
        wall=lambda: KEPT_S + 3.0,
        stopping=threading.Event(),
    )
    reconciler.tidy()
    with queue.database.reading() as c:
        assert [ledger.task(c, name) is None for name in ("old", "young", "dead")] == [True, False, False]
        assert c.execute("SELECT count(*) FROM bodies").fetchone()[0] == 2
    assert list((tmp_path / "state" / "tasks" / "files").iterdir()) == []
