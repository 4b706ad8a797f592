"""The load of benchmarks/rolling.py counts what fails: a benchmark whose load sees nothing shows nothing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from rolling_load import Load, Request, Target

from tests.shell.outside_engine import OutsideEngine
from tests.shell.test_external_behind_envoy import certificate

EIGHT = "one two three four five six seven eight"


def waited(load: Load, enough: int) -> tuple[Request, ...]:
    ends = time.monotonic() + 20
    while len(load.requests) < enough:
        assert time.monotonic() < ends, load.requests
        time.sleep(0.02)
    return tuple(load.requests)


def test_right_answers_are_right_whole_and_streamed_and_a_dead_server_is_seen(tmp_path: Path) -> None:
    ca, crt, key = certificate(tmp_path, "server", "127.0.0.1")
    with OutsideEngine("m", "--certificate", crt, "--key", key) as engine:
        with Load(engine.port, ca, (Target(service="m", key="k"),), tokens=8) as load:
            before = waited(load, 40)
            assert [one.wrong for one in before if one.wrong] == []
            assert {one.streamed for one in before} == {True, False}
            engine.kill()
            count = len(load.requests)
            after = waited(load, count + 10)[count + 4 :]
            assert all(one.wrong for one in after)
        with engine, Load(engine.port, ca, (Target(service="other", key="k"),), tokens=8) as load:
            assert all(one.wrong.startswith("404") for one in waited(load, 4))


def whole(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def stream(text: str, end: str = "data: [DONE]\n\n") -> bytes:
    pieces = [{"choices": [{"delta": {"content": one}}]} for one in (text[:7], text[7:])]
    return ("".join(f"data: {json.dumps(one)}\n\n" for one in pieces) + end).encode()


@pytest.mark.parametrize(
    ("status", "body", "streamed", "wrong"),
    [
        (200, whole(EIGHT), False, ""),
        (200, stream(EIGHT), True, ""),
        (503, b"{}", False, "503"),
        (200, whole(EIGHT + " nine"), False, "another text"),
        (200, stream(EIGHT.replace("five ", "")), True, "another text"),
        (200, stream(EIGHT, end=""), True, "without its end"),
        (200, b"", True, "without its end"),
    ],
)
def test_what_counts_as_failed(status: int, body: bytes, streamed: bool, wrong: str, tmp_path: Path) -> None:
    ca, _, _ = certificate(tmp_path, "server", "127.0.0.1")
    with Load(1, ca, (), tokens=8) as load:
        seen = load._judged(status, body, streamed)
    assert (wrong in seen) if wrong else seen == ""
