"""The store under several processes at once, and under SIGKILL."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from gonogo.security.keys import KeyRow
from gonogo.security.verify import verify_chain
from gonogo.store import open_store
from gonogo.store.faults import StaleEpoch
from gonogo.store.store import Store

PROCESSES = 4
EVENTS_EACH = 200
KILLS = 12

processes = multiprocessing.get_context("fork")


def key(number: int) -> KeyRow:
    return KeyRow(
        key_id=f"{number:010d}",
        secret_hash=f"{number:064d}",
        name="n",
        service=None,
        revision=None,
        scopes=("inference",),
        created_at=1.0,
        expires_at=None,
        revoked_at=None,
    )


@pytest.fixture(params=["sqlite"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the store of each backend is; PostgreSQL is added to the list when it comes."""
    return tmp_path / "gonogo.db"


def opened(path: Path) -> Store:
    return open_store(path, clock=time.time)


def write_many(path: Path, epoch: int | None, first: int) -> None:
    """Half of the writers are control, half are the CLI."""
    store = opened(path)
    for number in range(first, first + EVENTS_EACH):
        with store.change(epoch=epoch, actor="control" if epoch else "cli", principal=f"p{first}") as change:
            if epoch:
                change.event("ReplicaReady", "m", 1, number=number)
            else:
                change.add_key(key(number))
    store.close()


def test_the_chain_does_not_fork_under_several_writers(path: Path) -> None:
    store = opened(path)
    epoch = store.acquire_lease("control")
    store.close()
    writers = [
        processes.Process(target=write_many, args=(path, epoch if index % 2 else None, index * 1000))
        for index in range(PROCESSES)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * PROCESSES
    report = verify_chain(path)
    assert (report.length, report.problem) == (PROCESSES * EVENTS_EACH + 1, None)
    store = opened(path)
    writers_seen = [event.principal for event in store.events(after=1)]
    assert sorted(writers_seen) == sorted(f"p{index * 1000}" for index in range(PROCESSES) for _ in range(EVENTS_EACH))
    assert writers_seen != sorted(writers_seen), "the writers took turns: nothing was tried"
    assert len(store.keys()) == PROCESSES // 2 * EVENTS_EACH
    store.close()


def first_open(path: Path, start: Connection) -> None:
    start.recv()
    store = opened(path)
    with store.change(epoch=None, actor="cli", principal="p") as change:
        change.add_key(key(os.getpid()))
    store.close()


def test_several_processes_may_make_the_store_at_once(path: Path) -> None:
    starts, openers = [], []
    for _ in range(6):
        ours, theirs = processes.Pipe()
        openers.append(processes.Process(target=first_open, args=(path, theirs)))
        openers[-1].start()
        starts.append(ours)
    for start in starts:
        start.send("now")
    for opener in openers:
        opener.join(60)
    assert [opener.exitcode for opener in openers] == [0] * 6
    assert verify_chain(path).length == 6
    assert verify_chain(path).problem is None


def acknowledge_changes(path: Path, first: int, acknowledged: Connection) -> None:
    """Two changes each time: a key and an event in one transaction. Acknowledged when it returned."""
    store = opened(path)
    epoch = store.acquire_lease("control")
    for number in range(first, first + 100_000):
        with store.change(epoch=epoch, actor="control", principal="p") as change:
            change.add_key(key(number))
            change.event("ReplicaReady", "m", 1, number=number)
        acknowledged.send(number)


def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_nothing_half_done(path: Path) -> None:
    dice = random.Random(2)
    done: set[int] = set()
    for kill in range(KILLS):
        ours, theirs = processes.Pipe(duplex=False)
        writer = processes.Process(target=acknowledge_changes, args=(path, kill * 100_000, theirs))
        writer.start()
        theirs.close()
        for _ in range(dice.randrange(1, 40)):
            done.add(ours.recv())
        time.sleep(dice.random() * 0.004)  # into the middle of some change, wherever that is
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(30)
        while True:
            try:
                done.add(ours.recv())
            except EOFError:
                break
        report = verify_chain(path)
        assert report.problem is None, report
    store = opened(path)
    keys = {int(row.key_id) for row in store.keys(None)}
    told = {event.detail["number"] for event in store.events(limit=10_000, kind="ReplicaReady")}
    assert done <= keys
    assert keys == told, "a key without its event, or an event without its key"
    assert len(keys - done) <= KILLS
    store.close()


def test_a_second_control_takes_over_and_the_first_is_refused(path: Path) -> None:
    store = opened(path)
    epoch = store.acquire_lease("first")
    second = processes.Process(target=lambda: opened(path).acquire_lease("second"))
    second.start()
    second.join(60)
    with (
        pytest.raises(StaleEpoch, match="epoch 1, the current one is 2"),
        store.change(epoch=epoch, actor="control", principal="p"),
    ):
        pass
    store.close()
