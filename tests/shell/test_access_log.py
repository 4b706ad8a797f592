"""The gateway's logs are read by offset and rotated by renaming: no line is lost, and none is read twice."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gonogo.control.log_rotation import rotate_logs
from gonogo.facts.request_record import LINE_BEGINS, parse_request
from gonogo.gateway import access_log
from gonogo.gateway.access_log import KEPT_FILES, LogTail, rotate_log
from gonogo.gateway.log_writer import LogWriter
from gonogo.runtimes.paths import StatePaths
from tests.shell.edge_parts import KEY, Edge


def _append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


class Rotating(RuleBasedStateMachine):
    """A writer that opens the name anew late, a rotation at any moment, and a reader that is killed between reading
    and keeping what it read. What was kept is what was written, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gonogo-log-"))
        self.path = self.folder / "access.log"
        self.descriptor = self._opened()
        self.written: list[bytes] = []
        self.kept: list[bytes] = []
        self.position = None
        self.tail = LogTail(self.path)
        self.pending: list[bytes] = []
        self.renamed = 0

    def _opened(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @rule(words=st.lists(st.binary(max_size=40).map(lambda one: one.replace(b"\n", b"")), max_size=8))
    def write(self, words: list[bytes]) -> None:
        for number, word in enumerate(words):
            line = b"%d:%d:%s" % (len(self.written), number, word)
            os.write(self.descriptor, line[: len(line) // 2])
            os.write(self.descriptor, line[len(line) // 2 :] + b"\n")
            self.written.append(line)

    @precondition(lambda self: self.renamed < KEPT_FILES)
    @rule()
    def rotate(self) -> None:
        self.renamed += rotate_log(self.path, limit_bytes=0)

    @rule()
    def reopen(self) -> None:
        os.close(self.descriptor)
        self.descriptor = self._opened()

    @rule(limit=st.integers(min_value=60, max_value=200))
    def read(self, limit: int) -> None:
        self.pending += self.tail.read(limit)

    @rule()
    def keep(self) -> None:
        self.kept += self.pending
        self.pending, self.position = [], self.tail.position

    @rule()
    def die(self) -> None:
        self.tail.close()
        self.pending, self.tail = [], LogTail(self.path, self.position)

    @rule()
    def catch_up(self) -> None:
        while lines := self.tail.read():
            self.pending += lines
        self.keep()
        self.renamed = 0
        assert self.kept == self.written

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        found = self.kept + self.pending
        assert found == self.written[: len(found)]
        assert self.tail.gaps == 0

    def teardown(self) -> None:
        self.catch_up()
        self.tail.close()
        os.close(self.descriptor)
        shutil.rmtree(self.folder)


TestRotating = Rotating.TestCase
TestRotating.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    _append(path, b"one\ntw")
    tail = LogTail(path)
    assert tail.read() == [b"one"]
    assert tail.read() == []
    _append(path, b"o\n")
    assert tail.read() == [b"two"]


def test_half_a_line_at_the_end_of_a_renamed_file_is_given_up_once_there_is_a_newer_one(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    _append(path, b"one\ntw")
    rotate_log(path, limit_bytes=0)
    tail = LogTail(path)
    assert tail.read() == [b"one"]
    assert tail.read() == []
    _append(path, b"three\n")
    assert [tail.read(), tail.read(), tail.read()] == [[b"tw"], [b"three"], []]


def test_a_line_that_never_ends_holds_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    _append(path, b"x" * 250 + b"\nnext\n")
    tail = LogTail(path)
    found = [line for _ in range(4) for line in tail.read(100)]
    assert b"".join(found[:-1]) == b"x" * 250
    assert found[-1] == b"next"


def test_files_that_went_before_they_were_read_are_told_as_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    _append(path, b"one\n")
    tail = LogTail(path)
    tail.read()
    position = tail.position
    tail.close()
    for number in range(KEPT_FILES + 2):
        _append(path, b"%d\n" % number)
        rotate_log(path, limit_bytes=0)
    late = LogTail(path, position)
    found = [line for _ in range(2 * KEPT_FILES) for line in late.read()]
    assert found == [b"%d" % number for number in range(2, KEPT_FILES + 2)]
    assert late.gaps == 1


def test_a_log_that_somebody_emptied_is_read_from_its_begin(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    _append(path, b"one\ntwo\n")
    tail = LogTail(path)
    tail.read()
    os.truncate(path, 0)
    _append(path, b"new\n")
    assert tail.read() == [b"new"]
    assert tail.gaps == 1


def test_a_copied_directory_is_read_on_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "here" / "access.log"
    path.parent.mkdir()
    _append(path, b"one\ntwo\n")
    rotate_log(path, limit_bytes=0)
    _append(path, b"three\n")
    tail = LogTail(path)
    assert tail.read() == [b"one", b"two"]
    shutil.copytree(path.parent, tmp_path / "there")
    copied = LogTail(tmp_path / "there" / "access.log", tail.position)
    assert copied.read() == [b"three"]
    assert copied.gaps == 0


def test_another_file_that_got_the_same_inode_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    _append(path, b"one\ntwo\n")
    tail = LogTail(path)
    tail.read()
    assert tail.position is not None
    with path.open("r+b") as file:
        file.write(b"eno\nowt\nmore\n")
    later = LogTail(path, tail.position)
    assert later.read() == [b"eno", b"owt", b"more"]
    assert later.gaps == 1


def test_a_tail_from_the_end_gives_what_comes_after(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    _append(path, b"one\nhal")
    tail = LogTail.at_end(path)
    assert tail.read() == []
    _append(path, b"f\ntwo\n")
    assert tail.read() == [b"half", b"two"]
    assert LogTail.at_end(tmp_path / "absent.log").read() == []


def test_only_so_many_renamed_files_are_kept_and_a_small_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    assert rotate_log(path, limit_bytes=3) is False
    for number in range(KEPT_FILES + 3):
        _append(path, b"%d\n" % number)
        assert rotate_log(path, limit_bytes=3) is False
        _append(path, b"%d\n" % number)
        assert rotate_log(path, limit_bytes=3) is True
        assert rotate_log(path, limit_bytes=3) is True, "its writer may not have been told yet"
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == [f"access.{number:08d}.log" for number in range(4, KEPT_FILES + 4)]


def test_a_writer_goes_on_under_the_name_after_a_rotation_and_ends_what_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "relay-0.log"
    _append(path, b'{"half":')
    writer = LogWriter(path)
    writer.write({"one": 1})
    rotate_log(path, limit_bytes=0)
    writer.write({"two": "zwei…"})
    assert path.read_bytes() == b'{"two":"zwei\\u2026"}\n'
    assert LogTail(path).read() == [b'{"half":', b'{"one":1}']
    writer.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_reader_in_another_place_of_the_log_loses_nothing_while_it_is_rotated(tmp_path: Path) -> None:
    """The look at the directory and the opening of a file are two steps: a rename in between is seen and waited for."""
    path = tmp_path / "access.log"
    chance = random.Random(7)
    _append(path, b"0\n")
    tail, found, written = LogTail(path), [], 1
    for _ in range(200):
        rotate_log(path, limit_bytes=0)
        for _ in range(chance.randrange(1, 5)):
            _append(path, b"%d\n" % written)
            written += 1
        found += [line for _ in range(3) for line in tail.read(16)]
    while lines := tail.read():
        found += lines
    assert found == [b"%d" % number for number in range(written)]


class _EdgePaths(StatePaths):
    """The paths of `Edge`: everything in one directory."""

    @property
    def gateway(self) -> Path:
        return self.root

    @property
    def admin_socket(self) -> Path:
        return self.root / "admin.sock"


def test_envoy_loses_no_line_while_its_log_is_rotated_under_load(tmp_path: Path) -> None:
    """What clients were answered is what the log says, whichever moment it is renamed at."""

    async def run() -> None:
        async with Edge(tmp_path) as edge:
            paths = _EdgePaths(tmp_path)
            tail, found, answered = LogTail(paths.access_log), [], []

            async def ask() -> None:
                client = edge.client()
                for _ in range(60):
                    reply = await client.send("GET", "/v1/models", KEY)
                    answered.append(reply.head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode())
                client.close()

            async def rotate(rotations: int) -> None:
                for _ in range(rotations):
                    await asyncio.to_thread(rotate_logs, paths, 0)
                    found.extend(tail.read())
                    await asyncio.sleep(0.02)

            await asyncio.gather(*(ask() for _ in range(6)), rotate(20))
            ends = time.monotonic() + 10
            while len(found) < len(answered) and time.monotonic() < ends:
                found.extend(tail.read())
                await asyncio.sleep(0.02)
            records = [parse_request(line) for line in found]
            assert sorted(one.request_id for one in records if one is not None) == sorted(answered)
            assert len(list(tmp_path.glob("access.0*.log"))) >= 2, "it was rotated while requests ran"
            assert found[0].startswith(LINE_BEGINS)

    asyncio.run(run())


def test_what_is_written_between_the_look_and_the_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.log"
    _append(path, b"one\n")
    tail = LogTail(path)
    assert tail.read() == [b"one"]
    real, looked = access_log._found, []

    def late(asked: Path) -> object:
        found = real(asked)
        if not looked:
            looked.append(found)
            _append(path, b"two\n")
            rotate_log(path, limit_bytes=0)
            _append(path, b"three\n")
        return found

    monkeypatch.setattr(access_log, "_found", late)
    assert [tail.read(), tail.read(), tail.read()] == [[b"two"], [b"three"], []]
