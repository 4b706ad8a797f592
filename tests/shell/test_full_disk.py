"""A disk without room: what a command says of it and when, and who goes on although nothing can be written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import httpx
import pytest

from gonogo.api.server import application
from gonogo.cli import progress
from gonogo.control.record import Recorder
from gonogo.facts.replica import Deaths, ReplicaName
from gonogo.runtimes.local import LocalRuntime
from gonogo.store.faults import StoreFull
from gonogo.store.room import BEGIN_BYTES, GO_ON_BYTES, require_room
from tests.shell.command_line import gonogo, write_spec
from tests.shell.fake_control import FakeControl, running
from tests.shell.small_disk import small_disk

FULL = {"reason": "StoreFull", "values": {"path": "/s/gonogo.db", "folder": "/s", "free_kib": 7}}


def test_room_is_asked_by_writing_and_nothing_of_it_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256 * 1024) as disk:
        require_room(disk / "gonogo.db", GO_ON_BYTES)
        with pytest.raises(StoreFull) as full:
            require_room(disk / "gonogo.db", BEGIN_BYTES)
        assert full.value.free_bytes == 256 * 1024 and not list(disk.iterdir())


def test_what_else_is_wrong_with_the_place_is_not_taken_for_a_lack_of_room(tmp_path: Path) -> None:
    require_room(tmp_path / "no-such-folder" / "gonogo.db", GO_ON_BYTES)


def test_up_on_a_disk_without_room_for_the_store_starts_nothing_and_says_how_much_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gonogo.cli.up._require_possible", lambda *_: None)
    write_spec(tmp_path)
    with small_disk(tmp_path / "disk", 256 * 1024) as disk:
        ran = gonogo(disk / "state", "up", "--json", cwd=tmp_path)
        assert (ran.code, ran.json["error"]["reason"]) == (4, "StoreFull")
        assert ran.json["error"]["values"]["free_kib"] == 256
        assert str(disk / "state") in ran.json["error"]["remedy"]
        assert not LocalRuntime(disk / "state").scan()


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    write_spec(tmp_path)
    with running(tmp_path / "state") as fake:
        yield fake


@pytest.mark.parametrize(("lang", "said"), [("en", "no room to write to"), ("zh", "已无空间可写")])
def test_up_says_at_once_that_control_cannot_write_and_ends_when_it_stays_so(
    control: FakeControl, monkeypatch: pytest.MonkeyPatch, lang: str, said: str
) -> None:
    monkeypatch.setattr(progress, "STUCK_LIMIT_S", 0.3)
    control.report["status"]["store"], control.polls_until_end = FULL, 10**9
    ran = gonogo(control.paths.root, "up", "--lang", lang)
    assert ran.code == 4
    *before, last, remedy = ran.err.splitlines()
    assert said in before[-1] and said in last and "7 KiB" in last
    assert "/s" in remedy


def test_up_goes_on_when_somebody_made_room_meanwhile(control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> None:
    status, looks = control.status, [0]

    def seen() -> Any:
        looks[0] += 1
        return {**status(), "store": FULL if looks[0] < 4 else None}

    monkeypatch.setattr(control, "status", seen)
    control.polls_until_end = 6
    ran = gonogo(control.paths.root, "up")
    assert ran.code == 0 and "no room to write" in ran.err


def test_while_control_is_away_the_disk_is_looked_at(control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gonogo.api.client.ControlClient.events", _away)
    monkeypatch.setattr("gonogo.cli.progress.newest_sequence", lambda _: 0)
    monkeypatch.setattr("gonogo.store.room.require_room", _no_room)
    control.polls_until_end = 10**9
    ran = gonogo(control.paths.root, "up", "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (4, "StoreFull")


def _away(*_: Any, **__: Any) -> Any:
    from gonogo.api.client import ControlSilent

    raise ControlSilent("nobody")


def _no_room(database: Path, _: int) -> None:
    raise StoreFull(database, 0)


def test_control_answers_a_change_that_it_cannot_record_with_the_reason_and_its_numbers() -> None:
    def remove(*_: Any) -> Any:
        raise StoreFull(Path("/s/gonogo.db"), 7 * 1024)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application(SimpleNamespace(remove=remove)))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
            return await client.delete("/v1/services/svc")

    answer = asyncio.run(ask())
    assert answer.status_code == 507
    assert answer.json()["error"] == {**FULL, "exit_code": 4}


def test_a_process_that_tells_something_into_a_full_log_goes_on() -> None:
    program = "from gonogo.runtimes.tell import tell; [tell('x' * 4000) for _ in range(9)]; print('on')"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False)
    assert (done.returncode, done.stdout) == (0, b"on\n")


def test_control_outlives_the_death_of_a_replica_that_it_cannot_record(capsys: pytest.CaptureFixture[str]) -> None:
    @contextlib.contextmanager
    def full() -> Iterator[Any]:
        raise StoreFull(Path("/s/gonogo.db"), 0)
        yield

    recorder = Recorder(SimpleNamespace(change=full, store=None))  # type: ignore[arg-type]
    death = Deaths(count=2, last_at=time.time(), why="killed", last_log_lines=("the end",))
    recorder.died(ReplicaName.parse("svc/1/0"), death)
    assert "svc/1/0" in capsys.readouterr().err


def test_a_keeper_whose_log_is_full_starts_the_next_control(tmp_path: Path) -> None:
    """Control ends at once here (its state directory is a file), and is started again and again."""
    program = (
        "import sys; from gonogo.control import keeper; from gonogo.runtimes.paths import StatePaths;"
        "keeper.control_command = lambda _: [sys.executable, '-c', 'import os; os.write(1, b\".\"); os._exit(1)'];"
        f"keeper.keep(StatePaths.of({str(tmp_path)!r}))"
    )
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "control-main.log"
    with open("/dev/full", "w") as full:
        keeper = subprocess.Popen([sys.executable, "-c", program], stderr=full, env={**os.environ})
    try:
        deadline = time.monotonic() + 20
        while keeper.poll() is None and (not log.exists() or log.stat().st_size < 3) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert keeper.poll() is None and log.read_bytes().startswith(b"...")
    finally:
        keeper.kill()
        keeper.wait()
