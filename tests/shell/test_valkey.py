"""The embedded Valkey as it is run: alone on a private socket, kept over restarts, known by its marks, never hung."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from gonogo.control.part_launch import launch_of
from gonogo.control.parts import PartsWatch
from gonogo.facts.part import VALKEY
from gonogo.runtimes.local import LocalRuntime
from gonogo.runtimes.paths import StatePaths
from tests.shell.policy_parts import until
from tests.shell.valkey_parts import Valkey


def test_it_listens_on_a_private_socket_and_nowhere_else(tmp_path: Path) -> None:
    with Valkey() as valkey:
        assert stat.S_IMODE(valkey.socket.stat().st_mode) == 0o600
        inodes = {os.readlink(link) for link in Path(f"/proc/{valkey.pid}/fd").iterdir() if link.is_symlink()}
        tables = "".join(Path(f"/proc/{valkey.pid}/net/{name}").read_text() for name in ("tcp", "tcp6", "udp", "udp6"))
        mine = [one for one in inodes if one.startswith("socket:[") and f" {one[8:-1]} " in tables]
        assert mine == [], "no TCP or UDP socket"
        for file in valkey.directory.rglob("*"):
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


@pytest.mark.parametrize(
    "command",
    ["FLUSHALL", "SHUTDOWN", "CONFIG GET dir", "KEYS *", "DEBUG SLEEP 0", "MONITOR", "REPLICAOF NO ONE", "SAVE"],
)
def test_what_could_harm_it_is_off(command: str) -> None:
    with Valkey() as valkey, pytest.raises((NoPermissionError, ResponseError)):
        valkey.client().execute_command(*command.split())


def test_what_was_counted_survives_a_stop_and_a_kill_more_than_a_second_later() -> None:
    with Valkey() as valkey:
        valkey.client().incrby("counter", 7)
        assert valkey.end(signal.SIGTERM) == 0, "SIGTERM writes out and ends well"
        valkey.start()
        assert valkey.client().get("counter") == b"7"
        valkey.client().incrby("counter", 1)
        until(lambda: _written(valkey, b"counter"))
        valkey.end(signal.SIGKILL)
        valkey.start()
        assert valkey.client().get("counter") == b"8"


def _written(valkey: Valkey, word: bytes) -> bool:
    return any(word in file.read_bytes() for file in (valkey.directory / "appendonlydir").glob("*.incr.aof"))


def test_a_full_one_refuses_and_forgets_nothing() -> None:
    with Valkey("--maxmemory", "8mb") as valkey:
        client = valkey.client()
        client.set("kept", "1")
        piece = b"x" * (1024 * 1024)
        with pytest.raises(OutOfMemoryError):
            for number in range(12):
                client.set(f"filler{number}", piece)
        assert client.get("kept") == b"1"


def test_control_starts_it_knows_it_by_its_marks_and_sees_that_it_hangs(tmp_path: Path) -> None:
    paths = StatePaths.of(tmp_path / "state")
    os.umask(0o077)
    paths.make()
    runtime = LocalRuntime(paths.root)
    started = runtime.start(launch_of(VALKEY, 0, paths), (VALKEY, "0", None), paths.log(VALKEY, "0"))
    try:
        until(paths.part_socket(VALKEY, 0).exists)
        (found,) = LocalRuntime(paths.root).scan()
        assert (found.role, found.name, found.handle) == (VALKEY, "0", started.handle)
        asyncio.run(_seen_hung(paths, runtime, started))
    finally:
        assert runtime.end(started.handle, 5.0)


async def _seen_hung(paths: StatePaths, runtime: LocalRuntime, started: object) -> None:
    changed = asyncio.Event()
    watch = PartsWatch(paths, runtime, changed.set)
    watch.follow([started])  # type: ignore[list-item]
    await asyncio.sleep(2.5)
    assert not watch.hung(started.handle), "while it answers it is well"  # type: ignore[attr-defined]
    runtime.send(started.handle, signal.SIGSTOP)  # type: ignore[attr-defined]
    await asyncio.wait_for(changed.wait(), 20)
    assert watch.hung(started.handle)  # type: ignore[attr-defined]
    watch.follow([])


def test_a_program_that_is_not_there_dies_with_a_word_and_fails_no_action(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gonogo.runtimes.valkey.valkey_binary", lambda: "/nowhere/valkey-server")
    paths = StatePaths.of(tmp_path / "state")
    launch = launch_of(VALKEY, 0, paths)
    done = subprocess.run(launch.command, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "/nowhere/valkey-server" in done.stderr
