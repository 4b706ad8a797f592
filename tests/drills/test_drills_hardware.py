"""Condition 1, hardware: too little memory, too few cores, an old CPU, a full disk; all of it real but the CPU."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import time
from pathlib import Path
from typing import Iterator

import pytest

from tests.drills.harness import (
    Yard,
    assert_only,
    faulty,
    gonogo,
    port_of,
    small_disk,
    spec,
    spec_file,
)
from tests.drills.models import HUGE, ModelFiles

MOST_ROUNDS = 6


def test_memory_fits(yard: Yard, models: ModelFiles) -> None:
    """A KV cache of a terabyte: the engine finds out after it has loaded the model, three times."""
    asked = spec(**HUGE, model=str(models.huge), gateway={"port": yard.port})
    found = assert_only(yard.refused(asked), "memory_fits", "MemoryTooSmall", "service/huge")
    assert found["values"]["needed_gib"] > found["values"]["available_gib"]
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1":
        pytest.skip(
            "this kernel promises any memory: without the check the machine would be brought down, not the drill"
        )
    entry = yard.rejected(asked, without="memory_fits")
    assert entry["rejected"]["reason"] == "ReplicaCrashLooping"
    assert entry["rejected"]["detail"]["why"] == "EngineOutOfMemory"


def test_cores_enough(yard: Yard, tmp_path: Path) -> None:
    """Advice only. Two replicas that share a core wait for each other."""
    place = spec_file(tmp_path)
    core = str(min(os.sched_getaffinity(0)))
    result = gonogo(tmp_path / "state", "check", place, before=("taskset", "-c", core))
    assert result.code == 0
    assert_only(result.json["answers"], "cores_enough", "CoresTooFew")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the other half needs a second core to compare with")
    pids = [one["pid"] for one in yard.replicas()]
    apart_s = together_s = float("inf")
    with _favoured(pids):
        for _ in range(MOST_ROUNDS):  # the least of several, as others may work on this machine too
            apart_s = min(apart_s, _both_busy_s(yard))
            with _pinned(pids, int(core)):
                together_s = min(together_s, _both_busy_s(yard))
            if together_s > 1.25 * apart_s:
                return
    pytest.fail(f"{together_s:.2f} s on one core, {apart_s:.2f} s on two")


def test_cpu_can_run_engine(yard: Yard, tmp_path: Path) -> None:
    """A recorded /proc/cpuinfo of a CPU without AVX2 lies over the real one, in a mount namespace of its own.

    A CPU cannot be changed, so the other half is not the real thing: the engine that dies of SIGILL at its start is
    ours. What is real in it is what the user would be told: killed, and not why. That the engine's build has AVX2
    instructions without asking the CPU first is what llama.cpp says of its own build.
    """
    recorded = Path(__file__).parent / "faults" / "cpuinfo-without-avx2.txt"
    covered = ("unshare", *(() if os.getuid() == 0 else ("--map-root-user",)), "--mount", "sh", "-c")
    script = f'mount --bind {recorded} /proc/cpuinfo && exec "$@"'
    result = gonogo(tmp_path / "state", "check", spec_file(tmp_path), before=(*covered, script, "sh"))
    if "mount:" in result.err or "unshare:" in result.err:
        pytest.skip(f"nothing can be mounted here: {result.err.strip()}")
    assert result.code == 3
    found = assert_only(result.json["answers"], "cpu_can_run_engine", "CpuTooOld")
    assert found["values"]["missing"] == "avx2, fma, f16c"
    with yard.faults.broken(engine={"old-cpu/": "dies_of_sigill"}):
        entry = yard.rejected(spec(service="old-cpu", replicas={"min": 1, "max": 1}), without="cpu_can_run_engine")
    assert entry["rejected"]["reason"] == "ReplicaCrashLooping"
    assert entry["rejected"]["detail"]["why"] == "killed"


def test_disk_space(tmp_path: Path) -> None:
    """A disk of one megabyte. Without the check the database is full before the service is up."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        place = spec_file(tmp_path)
        result = gonogo(disk / "state", "up", place, "--yes")
        assert result.code == 3
        assert_only(result.json["answers"], "disk_space", "DiskTooFull", f"disk{disk / 'state'}")
        assert not (disk / "state").exists(), "nothing was started and nothing written"
        with faulty(disk / "state", tmp_path, without=["disk_space"]) as own:
            assert own.run("up", place, "--yes", "--json").code == 0, "proven, and all looks well"
            made = own.run("keys", "create", "--name", "stolen", "--json").json
            own.key, own.port = made["api_key"], port_of(place)
            _fill(disk)
            assert own.run("keys", "revoke", made["key_id"], "--json").code == 4
            with own.client() as client:
                assert own.ask(client).status_code == 200, "a stolen key that cannot be revoked"


def _fill(disk: Path) -> None:
    """What an hour of logs does to a disk of a megabyte."""
    with contextlib.suppress(OSError), (disk / "logs-of-an-hour").open("wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass


def _both_busy_s(yard: Yard) -> float:
    """How long eight answers take when four are asked for at a time, so that neither replica is ever idle."""
    with yard.client() as client, concurrent.futures.ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        asked = [
            pool.submit(yard.chat, client, f"Write one short sentence about the sea. {number}", 24)
            for number in range(4)
        ]
        assert {one.result().status_code for one in asked} == {200}
        return time.monotonic() - began


@contextlib.contextmanager
def _pinned(pids: list[int], core: int) -> Iterator[None]:
    """All threads of these processes on one core."""
    before = {thread: os.sched_getaffinity(thread) for thread in _threads(pids)}
    for thread in before:
        os.sched_setaffinity(thread, {core})
    try:
        yield
    finally:
        for thread in _threads(pids):
            os.sched_setaffinity(thread, before.get(thread) or os.sched_getaffinity(0))


@contextlib.contextmanager
def _favoured(pids: list[int]) -> Iterator[None]:
    """Before everybody else on this machine, so that only the two wait for each other; needs root, and does without."""
    before = {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in _threads(pids)}
    try:
        with contextlib.suppress(PermissionError):
            for thread in before:
                os.setpriority(os.PRIO_PROCESS, thread, -15)
        yield
    finally:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            for thread in _threads(pids):
                os.setpriority(os.PRIO_PROCESS, thread, max(before.values()))


def _threads(pids: list[int]) -> list[int]:
    return [int(thread) for pid in pids for thread in os.listdir(f"/proc/{pid}/task")]
