"""What the store says when the disk is full, the file damaged, foreign, newer, locked or not ours."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from gonogo.security.verify import verify_chain
from gonogo.store import open_reader, open_store
from gonogo.store import sqlite as store_sqlite
from gonogo.store.faults import StoreBusy, StoreError, StoreFull, StoreFuture, StoreNotWritable, StoreUnreadable
from gonogo.store.migrations import SCHEMA_VERSION
from gonogo.store.store import Store
from tests.shell.small_disk import small_disk as mounted

TMPFS_BYTES = 2**20


def opened(path: Path) -> Store:
    return open_store(path, clock=lambda: 1_700_000_000.0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    with mounted(tmp_path / "small", TMPFS_BYTES) as place:
        yield place


def fill(store: Store, epoch: int) -> int:
    """Write until the store says that it is full; how many changes were acknowledged."""
    for number in range(10_000):
        try:
            with store.change(epoch=epoch, actor="control", principal="p") as change:
                change.event("ReplicaReady", "m", 1, filler="x" * 4000)
        except StoreFull as full:
            assert str(store.path) in str(full)
            assert f"{full.free_bytes} bytes are free" in str(full)
            assert full.free_bytes < TMPFS_BYTES
            assert "make room" in full.remedy
            return number
    raise AssertionError("1 MiB held 40 MB")


def test_a_full_disk_stops_writes_with_a_clear_error_and_nothing_else(small_disk: Path) -> None:
    store = opened(small_disk / "gonogo.db")
    epoch = store.acquire_lease("control")
    reader = open_reader(store.path)
    written = fill(store, epoch)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 512)
    with pytest.raises(StoreFull), store.change(epoch=epoch, actor="control", principal="p") as change:
        change.event("ReplicaReady", "m", 1, filler="x" * 100_000)

    assert len(store.events()) == written + 1
    assert store.lease() is not None
    assert reader.policy_view().version == 1
    report = verify_chain(store.path)
    assert (report.length, report.problem) == (written + 1, None)

    ballast.unlink()
    reader.close()
    store.close()
    with sqlite3.connect(small_disk / "gonogo.db") as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


def test_writing_goes_on_when_there_is_room_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    store = opened(small_disk / "gonogo.db")
    epoch = store.acquire_lease("control")
    ballast.write_bytes(b"x" * (TMPFS_BYTES // 2))
    written = fill(store, epoch)
    ballast.unlink()
    with store.change(epoch=epoch, actor="control", principal="p") as change:
        change.event("ReplicaReady", "m", 1, filler="x" * 4000)
    assert len(store.events()) == written + 2
    assert verify_chain(store.path).problem is None
    store.close()


def test_a_store_cannot_be_made_on_a_full_disk_and_says_so(small_disk: Path) -> None:
    with (small_disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 512)
    with pytest.raises(StoreFull, match="make room"):
        opened(small_disk / "gonogo.db")


def test_a_file_that_is_no_database_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "gonogo.db"
    path.write_bytes(os.urandom(20_000))
    with pytest.raises(StoreUnreadable, match="not a database") as fault:
        opened(path)
    assert str(path) in str(fault.value)
    assert "put back a copy" in fault.value.remedy


def test_a_damaged_database_is_unreadable_and_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "gonogo.db"
    store = opened(path)
    epoch = store.acquire_lease("control")
    for _ in range(300):
        with store.change(epoch=epoch, actor="control", principal="p") as change:
            change.event("ReplicaReady", "m", 1, filler="x" * 500)
    store.close()
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(path.stat().st_size - 8192))
    damaged = path.read_bytes()
    with pytest.raises(StoreUnreadable, match="malformed"):
        opened(path).events()
    assert verify_chain(path).broken_at is not None
    assert path.read_bytes() == damaged


def test_a_cut_database_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "gonogo.db"
    store = opened(path)
    store.acquire_lease("control")
    store.close()
    os.truncate(path, 10_000)
    with pytest.raises(StoreUnreadable):
        opened(path).events()


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "gonogo.db"
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE keys (x)")
    raw.close()
    with pytest.raises(StoreUnreadable, match="database of another program"):
        opened(path)


def test_a_store_of_a_newer_gonogo_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "gonogo.db"
    opened(path).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 2}")
    raw.close()
    with pytest.raises(StoreFuture, match=f"version {SCHEMA_VERSION + 2}.*up to {SCHEMA_VERSION}") as fault:
        opened(path)
    assert (fault.value.seen_version, fault.value.expected_version) == (SCHEMA_VERSION + 2, SCHEMA_VERSION)


def test_a_spec_of_another_version_is_told_and_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "gonogo.db"
    store = opened(path)
    raw = sqlite3.connect(path)
    raw.execute("INSERT INTO services VALUES ('m', 1, NULL, NULL, 0, NULL)")
    raw.execute("INSERT INTO revisions VALUES ('m', 1, 'd', '{\"service\": \"m\", \"novel\": 1}', 0, NULL, NULL)")
    raw.commit()
    raw.close()
    with pytest.raises(StoreUnreadable, match="another version of gonogo"):
        store.services()
    store.close()


def test_a_lock_that_stays_is_told_after_a_bounded_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sqlite, "BUSY_TIMEOUT_S", 0.2)
    store = opened(tmp_path / "gonogo.db")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="locked by another process for"):
        store.acquire_lease("control")
    assert store.events() == (), "reading does not wait for the writer"
    other.execute("ROLLBACK")
    assert store.acquire_lease("control") == 1
    other.close()
    store.close()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


AS_NOBODY = """
import os, gonogo.store.store, gonogo.store.reader, sqlalchemy.dialects.sqlite
from gonogo.store import open_store, open_reader
os.setgid(65534); os.setuid(65534)
try:
    {action}
except Exception as fault:
    print(type(fault).__name__, fault)
"""


@pytest.mark.parametrize(
    ("mode", "action", "fault"),
    [
        (0o600, "open_store({path!r}, clock=lambda: 1.0).events()", StoreUnreadable),
        (0o600, "open_reader({path!r})", StoreUnreadable),
        (0o644, "open_store({path!r}, clock=lambda: 1.0).acquire_lease('x')", StoreNotWritable),
    ],
)
def test_a_store_of_another_user_is_told(open_directory: Path, mode: int, action: str, fault: type[StoreError]) -> None:
    if os.getuid() != 0:
        pytest.skip("becoming another user needs root")
    path = open_directory / "gonogo.db"
    holder = opened(path)
    holder.acquire_lease("control")
    for file in open_directory.glob("gonogo.db*"):
        file.chmod(mode)
    code = AS_NOBODY.format(action=action.format(path=str(path)))
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert seen.stdout.startswith(fault.__name__ + " "), seen
    assert str(path) in seen.stdout
    holder.close()


def test_only_paths_and_sqlite_urls_are_stores(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="postgresql"):
        open_store("postgresql://host/name", clock=lambda: 1.0)
    open_store(f"sqlite:///{tmp_path}/a b?.db", clock=lambda: 1.0).close()
    assert (tmp_path / "a b?.db").exists()
