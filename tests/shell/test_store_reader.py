"""The policy servers' read-only view of the store."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

from gonogo.security.keys import KeyRow
from gonogo.spec import Spec
from gonogo.store import open_reader, open_store
from gonogo.store.faults import StoreFuture, StoreUnreadable
from gonogo.store.migrations import SCHEMA_VERSION
from gonogo.store.reader import Reader
from gonogo.store.store import Store

KEY = KeyRow(
    key_id="0000000001",
    secret_hash="a" * 64,
    name="laptop",
    service=None,
    revision=None,
    scopes=("inference", "models"),
    created_at=1000.0,
    expires_at=None,
    revoked_at=None,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "gonogo.db", clock=lambda: 1_700_000_000.0)
    yield store
    store.close()


@pytest.fixture
def reader(store: Store) -> Iterator[Reader]:
    reader = open_reader(store.path)
    yield reader
    reader.close()


def serve(store: Store) -> int:
    epoch = store.acquire_lease("control")
    with store.change(epoch=epoch, actor="control", principal="alice") as change:
        change.add_revision(Spec(service="m", model="x"))
        change.set_serving("m", 1)
    return epoch


def add_key(store: Store) -> None:
    with store.change(epoch=None, actor="cli", principal="alice") as change:
        change.add_key(KEY)


def test_the_reader_sees_what_the_store_sees(store: Store, reader: Reader) -> None:
    serve(store)
    add_key(store)
    assert reader.policy_view() == store.policy_view()
    assert dict(reader.policy_view().serving) == {"m": 1}
    assert reader.policy_view().keys == {KEY.key_id: KEY}


def test_a_reader_that_has_not_looked_yet_has_something_to_see(reader: Reader) -> None:
    assert reader.changed()
    reader.policy_view()
    assert not reader.changed()


def test_a_new_or_revoked_key_and_a_promotion_are_changes(store: Store, reader: Reader) -> None:
    reader.policy_view()
    add_key(store)
    assert reader.changed()
    reader.policy_view()
    with store.change(epoch=None, actor="cli", principal="alice") as change:
        change.revoke_key(KEY.key_id)
    assert reader.changed()
    assert reader.policy_view().keys[KEY.key_id].revoked_at == 1_700_000_000.0
    serve(store)
    assert reader.changed()


def test_what_else_is_written_is_no_change(store: Store, reader: Reader) -> None:
    epoch = serve(store)
    reader.policy_view()
    with store.change(epoch=epoch, actor="control", principal="alice") as change:
        change.event("ReplicaReady", "m", 1)
    assert not reader.changed()
    add_key(store)
    assert reader.changed()


def test_asking_whether_something_changed_is_cheap(store: Store, reader: Reader) -> None:
    reader.policy_view()
    begun = time.perf_counter()
    assert not any(reader.changed() for _ in range(1000))
    assert time.perf_counter() - begun < 0.5


def test_the_reader_writes_nothing(store: Store, reader: Reader) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connected().execute("DELETE FROM keys")


def test_the_reader_opens_when_nobody_else_has_the_store_open(store: Store) -> None:
    add_key(store)
    store.close()
    reader = open_reader(store.path)
    assert list(reader.policy_view().keys) == [KEY.key_id]
    reader.close()


def test_a_missing_store_is_told_and_seen_again_when_it_is_back(store: Store, reader: Reader) -> None:
    add_key(store)
    reader.policy_view()
    store.close()
    away = store.path.with_name("away")
    store.path.rename(away)
    with pytest.raises(StoreUnreadable, match="No such file"):
        reader.changed()
    with pytest.raises(StoreUnreadable):
        reader.policy_view()
    away.rename(store.path)
    assert reader.changed()
    assert list(reader.policy_view().keys) == [KEY.key_id]


def test_another_file_in_its_place_is_followed(store: Store, reader: Reader, tmp_path: Path) -> None:
    reader.policy_view()
    store.close()
    reader.close()
    other = open_store(tmp_path / "other" / "gonogo.db", clock=lambda: 0.0)
    add_key(other)
    other.close()
    reader.policy_view()
    shutil.copy(other.path, tmp_path / "copy")
    for left in ("gonogo.db-wal", "gonogo.db-shm"):
        (tmp_path / left).unlink(missing_ok=True)
    (tmp_path / "copy").rename(store.path)
    assert reader.changed()
    assert list(reader.policy_view().keys) == [KEY.key_id]


def test_a_store_that_is_none_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "gonogo.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StoreUnreadable, match="not a database"):
        open_reader(tmp_path / "gonogo.db")
    with pytest.raises(StoreUnreadable, match="No such file"):
        open_reader(tmp_path / "none.db")


def test_a_store_of_a_newer_gonogo_is_refused(store: Store) -> None:
    store.close()
    raw = sqlite3.connect(store.path)
    raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raw.close()
    with pytest.raises(StoreFuture, match=f"schema version {SCHEMA_VERSION + 1}"):
        open_reader(store.path)


def test_a_policy_server_does_not_pay_for_what_it_does_not_use() -> None:
    code = "import sys, gonogo.store.reader; print(sorted({'sqlalchemy', 'pydantic', 'yaml'} & set(sys.modules)))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
