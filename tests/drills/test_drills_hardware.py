"""Condition 1, hardware: too little memory, too few cores, an old CPU, a full disk; all of it real but the CPU."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
from pathlib import Path
from typing import Iterator, Sequence

import httpx
import pytest

from tests.drills.harness import (
    Yard,
    assert_only,
    faulty,
    gonogo,
    port_of,
    spec,
    spec_file,
)
from tests.drills.models import HUGE, ModelFiles
from tests.shell.small_disk import small_disk

SEA = "Write one short sentence about the sea."


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
    pids, ports = ([one[what] for one in yard.replicas()] for what in ("pid", "port"))
    with _favoured(pids):
        apart = _waiting_per_work(pids, ports)
        with _pinned(pids, int(core)):
            together = _waiting_per_work(pids, ports)
    assert together > 0.5, "for each second of work a client waits half a second more, for the other replica's client"
    assert together > 2 * apart


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
    """A disk of three megabytes, half of which a deployment takes. Without the check it is full within the hour."""
    with small_disk(tmp_path / "disk", "3m") as disk:
        place = spec_file(tmp_path)
        result = gonogo(disk / "state", "up", place, "--yes")
        assert result.code == 3
        assert_only(result.json["answers"], "disk_space", "DiskTooFull", f"disk{disk / 'state'}")
        assert not (disk / "state").exists(), "nothing was started and nothing written"
        with faulty(disk / "state", tmp_path, without=["disk_space"]) as own:
            brought_up = own.run("up", place, "--yes", "--json")
            assert brought_up.code == 0, "proven, and all looks well"
            own.last_up = brought_up.json
            made = own.run("keys", "create", "--name", "stolen", "--json").json
            own.key, own.port = made["api_key"], port_of(place)
            _fill(disk)
            assert own.run("keys", "revoke", made["key_id"], "--json").code == 4
            with own.client() as client:
                assert own.ask(client).status_code == 200, "a stolen key that cannot be revoked"


def test_up_on_a_disk_that_fills_while_it_deploys_ends_within_seconds_and_says_how_much_is_free(tmp_path: Path) -> None:
    """Wherever it becomes full: before control can begin, while the revision is asked for, while replicas start."""
    with small_disk(tmp_path / "disk", "700k") as disk:
        place = spec_file(tmp_path)
        with faulty(disk / "state", tmp_path, without=["disk_space"]) as own:
            ended = own.run("up", place, "--yes", "--json", timeout_s=60.0)
            assert ended.code == 4, ended.err
            refused = ended.json["error"]
            assert (refused["reason"], refused["values"]["free_kib"]) == ("StoreFull", 0)
            assert str(disk / "state") in refused["remedy"]


def _fill(disk: Path) -> None:
    """What an hour of logs does to so small a disk."""
    with contextlib.suppress(OSError), (disk / "logs-of-an-hour").open("wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass


def _waiting_per_work(pids: list[int], ports: list[int]) -> float:
    """Seconds that busy replicas were kept from a core, for each second that they had one, as the kernel counts.

    Asked past the gateway, whose choice of a replica is a game of chance with so few requests.
    """
    question = {"messages": [{"role": "user", "content": SEA}], "max_tokens": 16, "temperature": 0}

    def answers(port: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            for _ in range(3):
                assert client.post("/v1/chat/completions", json=question).status_code == 200

    before = _worked_and_waited(pids)
    with concurrent.futures.ThreadPoolExecutor(len(ports)) as pool:
        for done in [pool.submit(answers, port) for port in ports]:
            done.result()
    worked, waited = (after - then for after, then in zip(_worked_and_waited(pids), before, strict=True))
    return waited / worked


def _worked_and_waited(pids: list[int]) -> tuple[int, int]:
    """Nanoseconds, over all threads that live now; the ones that compute live as long as their process."""
    worked = waited = 0
    for pid, thread in _threads(pids):
        with contextlib.suppress(FileNotFoundError):
            found = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()
            worked, waited = worked + int(found[0]), waited + int(found[1])
    return worked, waited


@contextlib.contextmanager
def _pinned(pids: list[int], core: int) -> Iterator[None]:
    """All threads of these processes on one core."""
    everywhere = os.sched_getaffinity(0)
    _pin(pids, {core})
    try:
        yield
    finally:
        _pin(pids, everywhere)


def _pin(pids: list[int], cores: set[int]) -> None:
    for _, thread in _threads(pids):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)


@contextlib.contextmanager
def _favoured(pids: list[int]) -> Iterator[None]:
    """Before everybody else on this machine, so that the two wait for each other only; needs root, and does without.

    By session: with autogroups, which most systems have, a process's own niceness counts within its session only.
    """
    places = [Path(f"/proc/{pid}/autogroup") for pid in pids]
    before = [place.read_text().split()[-1] if place.exists() else None for place in places]
    _renice(places, ["-15"] * len(places))
    try:
        yield
    finally:
        _renice(places, before)


def _renice(places: list[Path], niceness: Sequence[str | None]) -> None:
    for place, nice in zip(places, niceness, strict=True):
        if nice is not None:
            with contextlib.suppress(OSError):
                place.write_text(nice)


def _threads(pids: list[int]) -> list[tuple[int, int]]:
    return [(pid, int(thread)) for pid in pids for thread in os.listdir(f"/proc/{pid}/task")]
