"""The snapshot that decisions are made by: renewed on change, and no longer trusted when it is old."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gonogo.gateway.policy.snapshot import STALE_AFTER_S, SnapshotSource


@dataclass
class FakeStore:
    """A store whose view is what the test says; counts how often it was read in full."""

    view: Any = "first"
    changed_now: bool = True
    broken: bool = False
    opened: int = 0
    reads: int = 0
    told: list[str] = field(default_factory=list)
    now: float = 100.0
    read_s: float = 0.0

    def open(self, path: Path) -> FakeStore:
        if self.broken:
            raise OSError("gone")
        self.opened += 1
        return self

    def changed(self) -> bool:
        if self.broken:
            raise OSError("gone")
        return self.changed_now

    def policy_view(self) -> Any:
        self.reads += 1
        self.changed_now = False
        self.now += self.read_s
        return self.view

    def close(self) -> None:
        pass


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def source(store: FakeStore) -> SnapshotSource:
    return SnapshotSource(Path("db"), store.open, clock=lambda: store.now, tell=store.told.append)


def test_nobody_is_let_in_before_the_first_look(source: SnapshotSource) -> None:
    assert source.fresh() is None


def test_the_store_is_read_in_full_only_when_something_changed(store: FakeStore, source: SnapshotSource) -> None:
    for _ in range(10):
        source.poll()
    assert (store.reads, store.opened) == (1, 1)
    store.view, store.changed_now = "second", True
    source.poll()
    assert source.fresh() == "second"
    assert store.reads == 2


def test_an_unchanged_store_keeps_the_snapshot_fresh(store: FakeStore, source: SnapshotSource) -> None:
    for _ in range(20):
        source.poll()
        store.now += STALE_AFTER_S / 2
    assert source.fresh() == "first"


def test_the_snapshot_is_good_for_five_seconds_after_the_last_look_and_no_longer(
    store: FakeStore, source: SnapshotSource
) -> None:
    source.poll()
    store.broken = True
    store.now += STALE_AFTER_S
    source.poll()
    assert source.fresh() == "first"
    store.now += 0.001
    source.poll()
    assert source.fresh() is None


def test_a_slow_look_makes_the_snapshot_older_not_younger(store: FakeStore, source: SnapshotSource) -> None:
    store.read_s = STALE_AFTER_S + 1
    source.poll()
    assert source.fresh() is None


def test_trouble_is_told_once_and_so_is_its_end(store: FakeStore, source: SnapshotSource) -> None:
    store.broken = True
    for _ in range(5):
        source.poll()
    store.broken = False
    for _ in range(5):
        source.poll()
    assert [line.split(",")[0].split(" (")[0] for line in store.told] == [
        "the store cannot be read",
        "the store can be read again",
    ]
    assert source.fresh() == "first"
