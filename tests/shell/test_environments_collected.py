"""Unused environments go, for real: files, processes that run from them, and the store that names them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gonogo.control.collect import collect, uses_here
from gonogo.plan.collect import KEPT_S
from gonogo.runtimes.environment_use import processes_in
from gonogo.runtimes.environments import MARKER, EnvironmentStore, Made
from gonogo.runtimes.paths import StatePaths
from gonogo.spec import Spec
from gonogo.store import open_store
from tests.shell.command_line import gonogo

OLD = time.time() - KEPT_S - 3600


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    made = StatePaths.of(tmp_path / "state")
    made.make()
    return made


def put(paths: StatePaths, name: str, at: float = OLD, engine: str = "llama.cpp") -> Path:
    """A whole environment, made and last used at that time, with a Python that runs."""
    folder = paths.environments / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    made = Made(
        name=name, path=folder, engine=engine, version="2026.9.11063", answered="2026.9.11063", python="3.12",
        lock="0" * 64, packages=1, disk_bytes=5_000_000, made_at=at,
    )  # fmt: skip
    told = {key: value for key, value in asdict(made).items() if key not in ("path", "used_at")}
    (folder / MARKER).write_text(json.dumps(told))
    os.utime(folder / MARKER, (at, at))
    return folder


def deployed(paths: StatePaths, *environments: str) -> None:
    """A service whose revisions had these environments, each promoted in its turn."""
    store = open_store(paths.database, clock=time.time)
    epoch = store.acquire_lease("test")
    for number, name in enumerate(environments, start=1):
        engine = {"name": "llama.cpp", "environment": name}
        asked = Spec.model_validate_json(json.dumps({"service": "svc", "model": "m", "engine": engine}))
        with store.change(epoch=epoch, actor="control", principal="test", request_id=None) as change:
            change.add_revision(asked)
            change.set_serving("svc", number)
    store.close()


def names(paths: StatePaths) -> list[str]:
    return [made.name for made in EnvironmentStore(paths.environments).all()]


def test_what_serves_the_one_before_and_the_newest_stay_and_the_older_one_goes(paths: StatePaths) -> None:
    for number, name in enumerate(("first", "second", "third", "spare")):
        put(paths, name, OLD + number)
    deployed(paths, "first", "second", "third")

    listed = gonogo(paths.root, "env", "list", "--json").json["environments"]
    dry = gonogo(paths.root, "env", "collect", "--dry-run", "--json")
    assert {one["name"]: one["used_by"] for one in listed} == {
        "first": [],
        "second": ["svc/2 before"],
        "third": ["svc/3 serving"],
        "spare": [],
    }
    assert (dry.json["would_go"], dry.json["bytes"], names(paths)) == (
        ["first"],
        5_000_000,
        ["first", "second", "spare", "third"],
    )
    assert gonogo(paths.root, "env", "collect", "--json", "--yes").json["collected"] == ["first"]
    assert names(paths) == ["second", "spare", "third"]
    assert not (paths.environments / "first").exists()


def test_one_that_a_process_runs_from_stays_until_it_ends(paths: StatePaths) -> None:
    folder, _ = put(paths, "old"), put(paths, "newest", OLD + 1)
    running = subprocess.Popen([str(folder / "bin" / "python"), "-c", "import time; time.sleep(60)"])
    try:
        _until(lambda: processes_in(folder) == (running.pid,))
        assert gonogo(paths.root, "env", "collect", "--json", "--yes").json["collected"] == []
        refused = gonogo(paths.root, "env", "remove", "old", "--json", "--yes")
        assert (refused.code, refused.json["error"]["reason"]) == (3, "EnvironmentInUse")
        assert str(running.pid) in refused.json["error"]["message"]
    finally:
        running.kill()
        running.wait()
    assert gonogo(paths.root, "env", "collect", "--json", "--yes").json["collected"] == ["old"]


def test_one_that_a_revision_needs_is_not_removed_by_hand_either(paths: StatePaths) -> None:
    put(paths, "mine")
    deployed(paths, "mine")
    refused = gonogo(paths.root, "env", "remove", "mine", "--json", "--yes")
    assert (refused.code, refused.json["error"]["reason"], names(paths)) == (3, "EnvironmentInUse", ["mine"])


def test_one_that_is_asked_for_while_it_is_being_collected_stays(paths: StatePaths) -> None:
    put(paths, "one"), put(paths, "two", OLD + 1), put(paths, "newest", OLD + 2)
    store = EnvironmentStore(paths.environments)
    gone = collect(store, {}, time.time(), lambda made: store.touch("two") if made.name == "one" else None)  # type: ignore[func-returns-value,arg-type]
    assert ([made.name for made in gone], names(paths)) == (["one"], ["newest", "two"])


def test_what_serves_counts_as_used_now_so_that_it_is_kept_seven_days_after(paths: StatePaths) -> None:
    put(paths, "a"), put(paths, "newest", OLD + 1)
    deployed(paths, "a")
    store = EnvironmentStore(paths.environments)
    assert collect(store, uses_here(paths), time.time(), lambda _: None) == ()
    assert collect(store, {}, time.time() + KEPT_S - 3600, lambda _: None) == (), "taken down, and not seven days ago"
    assert [made.name for made in collect(store, {}, time.time() + KEPT_S + 60, lambda _: None)] == ["a"]


def _until(happened: Any) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)
