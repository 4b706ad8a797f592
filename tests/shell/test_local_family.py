"""An engine is a family: the leader of a session and its children, which are seen, counted and ended as one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Callable, Iterator, Mapping

import psutil
import pytest

from gonogo.engines.model import Launch
from gonogo.runtimes.local import LocalRuntime, Process

PROGRAM = Path(__file__).parent / "fake_family.py"
NAME = "svc/1/0"


def start(runtime: LocalRuntime, folder: Path, *words: str, name: str = NAME) -> tuple[Process, Mapping[str, int]]:
    """A family, and who is who in it."""
    launch = Launch(command=(sys.executable, str(PROGRAM), *words), environment={}, niceness=0)
    log = folder / f"{name.replace('/', '-')}.log"
    process = runtime.start(launch, ("replica", name, 18100), log, devices=("GPU-a", "GPU-b"))
    wait_for(lambda: log.read_text().endswith("}\n"))
    return process, json.loads(log.read_text())


def wait_for(happened: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[LocalRuntime]:
    made = LocalRuntime(tmp_path / "state")
    yield made
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if psutil.Process(pid).environ().get("GONOGO_STATE") == str(tmp_path / "state"):
                os.kill(pid, signal.SIGKILL)


def test_only_the_leader_is_a_replica_although_its_children_inherit_its_marks(
    runtime: LocalRuntime, tmp_path: Path
) -> None:
    process, who = start(runtime, tmp_path)
    assert psutil.Process(who["grandchild"]).environ()["GONOGO_NAME"] == NAME
    fresh = LocalRuntime(tmp_path / "state")
    assert [one.pid for one in fresh.scan()] == [who["leader"]] == [process.pid]
    assert set(runtime.family(process.handle)) == set(who.values())


def test_another_control_learns_port_and_devices_from_the_marks(runtime: LocalRuntime, tmp_path: Path) -> None:
    process, _ = start(runtime, tmp_path)
    (adopted,) = LocalRuntime(tmp_path / "state").scan()
    assert adopted == process
    assert (adopted.role, adopted.name, adopted.port, adopted.devices) == ("replica", NAME, 18100, ("GPU-a", "GPU-b"))


def test_a_part_that_control_starts_itself_inherits_no_devices(
    runtime: LocalRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GONOGO_DEVICES", "GPU-of-somebody-else")
    process = runtime.start(
        Launch(command=("sleep", "60"), environment={}, niceness=0), ("replica", NAME, 1), tmp_path / "log"
    )
    assert process.devices == ()
    assert "GONOGO_DEVICES" not in psutil.Process(process.pid).environ()


def test_kill_ends_the_whole_family_at_once_also_when_it_is_stopped(runtime: LocalRuntime, tmp_path: Path) -> None:
    process, who = start(runtime, tmp_path)
    for pid in who.values():
        os.kill(pid, signal.SIGSTOP)
    assert runtime.kill(process.handle)
    wait_for(lambda: all(gone(pid) for pid in who.values()))
    assert not runtime.kill(process.handle), "it is gone already"
    assert runtime.family(process.handle) == ()


def test_kill_leaves_another_replica_alone(runtime: LocalRuntime, tmp_path: Path) -> None:
    process, _ = start(runtime, tmp_path)
    _, other = start(runtime, tmp_path, name="svc/1/1")
    runtime.kill(process.handle)
    wait_for(lambda: not runtime.alive(process.handle))
    assert not any(gone(pid) for pid in other.values())


def test_sweep_ends_what_a_dead_leader_left_and_nothing_else(runtime: LocalRuntime, tmp_path: Path) -> None:
    process, who = start(runtime, tmp_path, "0", "left")
    other, others = start(runtime, tmp_path, "0", "left", name="svc/1/1")
    elsewhere = LocalRuntime(tmp_path / "another-state")
    (tmp_path / "elsewhere").mkdir()
    twin, twins = start(elsewhere, tmp_path / "elsewhere", "0", "left")
    try:
        assert runtime.sweep("replica", NAME, ()) == 0, "while the leader lives nothing of it is left over"
        os.kill(who["leader"], signal.SIGKILL)
        wait_for(lambda: not runtime.alive(process.handle))
        assert not gone(who["grandchild"]) and not gone(who["left"])
        os.kill(others["leader"], signal.SIGKILL)
        os.kill(twins["leader"], signal.SIGKILL)
        wait_for(lambda: not runtime.alive(other.handle) and not elsewhere.alive(twin.handle))
        assert runtime.sweep("replica", NAME, ()) == 3
        wait_for(lambda: all(gone(pid) for pid in who.values()))
        assert not gone(others["child"]), "another replica's"
        assert not gone(twins["child"]), "another deployment's replica of the same name"
    finally:
        elsewhere.sweep("replica", NAME, ())


def test_orphans_are_not_taken_for_a_replica_by_a_new_control(runtime: LocalRuntime, tmp_path: Path) -> None:
    process, who = start(runtime, tmp_path, "0", "left")
    os.kill(who["leader"], signal.SIGKILL)
    wait_for(lambda: not runtime.alive(process.handle))
    fresh = LocalRuntime(tmp_path / "state")
    assert fresh.scan() == ()
    assert fresh.sweep("replica", NAME, ()) == 3


def test_the_pulse_counts_the_work_of_children_and_shared_pages_once(runtime: LocalRuntime, tmp_path: Path) -> None:
    mib = 64
    process, who = start(runtime, tmp_path, str(mib))
    pulse = runtime.pulse(process.handle)
    assert pulse is not None
    assert pulse.cpu_s >= 1.0, "the child computed for a second, and the leader only waits"
    alone = [psutil.Process(pid).memory_info() for pid in who.values()]
    assert min(one.rss for one in alone) > mib << 20, "each of them shows the memory that all of them share"
    assert mib << 20 < pulse.resident_bytes < 2 * mib << 20


def test_end_of_a_leader_that_ignores_sigterm_takes_its_children_along(runtime: LocalRuntime, tmp_path: Path) -> None:
    process, who = start(runtime, tmp_path)
    os.kill(who["leader"], signal.SIGSTOP)
    assert runtime.end(process.handle, patience_s=0.1)
    wait_for(lambda: all(gone(pid) for pid in who.values()))


def test_a_leader_that_goes_when_asked_leaves_no_child_behind(runtime: LocalRuntime, tmp_path: Path) -> None:
    process, who = start(runtime, tmp_path)
    assert runtime.end(process.handle, patience_s=10.0)
    wait_for(lambda: all(gone(pid) for pid in who.values()))
