"""Metering with a real store and real files: what was served is what is counted, whoever is killed, and when."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from gonogo.control.metering import Meter, logs_of
from gonogo.facts.usage import PROBES, Usage
from gonogo.gateway.access_log import KEPT_FILES, rotate_log
from gonogo.gateway.log_writer import LogWriter
from gonogo.runtimes.paths import StatePaths
from gonogo.security.keys import KeyRow
from gonogo.store import open_store
from gonogo.store.faults import StaleEpoch
from gonogo.store.metering import ALL_S, DAY_S, HOUR_S, MINUTE_S
from gonogo.store.store import Store

BEGIN = 1_795_686_780.0  # 2026-11-26T09:53:00Z
VICTIM = Path(__file__).with_name("metering_victim.py")


def access_line(number: int, **changes: Any) -> dict[str, Any]:
    """A line as Envoy writes it: `number` makes its id and its second."""
    second = number % 60
    line = {
        "attempts": 1,
        "cached_tokens": None,
        "completion_tokens": 7,
        "content_type": "application/json",
        "details": "via_upstream",
        "duration_ms": 100,
        "first_byte_ms": 90,
        "flags": "-",
        "key_id": f"key-{number % 3}",
        "method": "POST",
        "path": "/v1/chat/completions",
        "prompt_tokens": 5,
        "replica": "svc/1/0",
        "request_id": f"r-{number}",
        "revision": "svc/1",
        "sent_ms": 1,
        "status": 200,
        "time": f"2026-11-26T09:53:{second:02d}.000Z",
        "upstream_cluster": "svc/1",
    }
    return {**line, **changes}


def relayed_line(number: int, **changes: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(("completion_tokens", "prompt_tokens", "replica"))
    return access_line(number, upstream_cluster="relay", content_type="text/event-stream", **unknown, **changes)


def stream_line(number: int, **changes: Any) -> dict[str, Any]:
    attempts = [{"replica": "svc/1/0", "tokens": 11, "end": "done"}]
    line = {
        "request_id": f"r-{number}",
        "key_id": f"key-{number % 3}",
        "revision": "svc/1",
        "attempts": attempts,
        "prompt_tokens": 3,
        "completion_tokens": 11,
        "ttft_ms": 20.5,
        "itl_ms": {"p50": 5, "p95": 9, "max": 20},
        "stall_ms": None,
        "continued": 0,
        "status": "done",
        "http_status": 200,
    }
    return {**line, **changes}


class Clock:
    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    found = StatePaths.of(tmp_path / "state")
    found.make()
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(paths: StatePaths, clock: Clock) -> Iterator[Store]:
    opened = open_store(paths.database, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def meter(paths: StatePaths, store: Store) -> Meter:
    return meter_of(paths, store)


def meter_of(paths: StatePaths, store: Store) -> Meter:
    epoch = store.acquire_lease("test")
    return Meter(paths, store, lambda: store.change(epoch=epoch, actor="control", principal="control"))


@pytest.fixture
def write(paths: StatePaths) -> Callable[..., None]:
    writers = {name: LogWriter(path) for name, path in logs_of(paths).items()}
    return lambda name, *lines: [writers[name].write(line) for line in lines]


def total(store: Store) -> Usage:
    return sum((row.usage for row in store.usage(ALL_S, 0, 1)), Usage())


def test_each_request_is_in_a_row_of_its_minute_hour_day_and_of_all(
    store: Store, meter: Meter, write: Callable[..., None]
) -> None:
    write("access", access_line(0), access_line(3), access_line(1), access_line(2, time="2026-11-26T10:00:00.000Z"))
    meter.step()
    minutes = store.usage(MINUTE_S, 0, 2e9)
    seen = [(row.at - BEGIN, row.key_id, row.service, row.usage.requests) for row in minutes]
    assert seen == [(0, "key-0", "svc", 2), (0, "key-1", "svc", 1), (420, "key-2", "svc", 1)]
    for span_s in (MINUTE_S, HOUR_S, DAY_S, ALL_S):
        rows = store.usage(span_s, 0, 2e9)
        assert sum((row.usage for row in rows), Usage()) == total(store)
        assert all(row.at % span_s == 0 for row in rows if span_s)
    assert (total(store).prompt_tokens, total(store).completion_tokens) == (20, 28)


def test_the_two_lines_of_a_stream_are_one_request_whichever_comes_first(
    store: Store, meter: Meter, write: Callable[..., None]
) -> None:
    write("access", relayed_line(0))
    write("relay-1", stream_line(1))
    meter.step()
    assert total(store).requests == 0, "each waits for its other half"
    write("relay-0", stream_line(0))
    write("access", relayed_line(1))
    meter.step()
    assert (total(store).requests, total(store).streamed, total(store).completion_tokens) == (2, 2, 22)
    meter.step()
    assert total(store).requests == 2


def test_a_half_whose_other_half_never_comes_counts_alone_in_the_end(
    store: Store, meter: Meter, clock: Clock, write: Callable[..., None]
) -> None:
    write("access", relayed_line(0))
    write("relay-0", stream_line(1, status="lost"))
    meter.step()
    clock.now += 14
    meter.step()
    assert total(store).requests == 0
    clock.now += 2
    meter.step()
    assert total(store).outcomes == {"failed": 2}
    assert total(store).completion_tokens == 11
    meter.step()
    assert total(store).requests == 2


def test_a_stream_that_was_continued_is_told_once(store: Store, meter: Meter, write: Callable[..., None]) -> None:
    attempts = [{"replica": "svc/1/0", "tokens": 4, "end": "died"}, {"replica": "svc/1/1", "tokens": 7, "end": "done"}]
    write("relay-0", stream_line(0, continued=1, attempts=attempts, stall_ms=640.2), stream_line(1))
    write("access", relayed_line(0), relayed_line(1))
    meter.step()
    (event,) = store.events(kind="StreamContinued")
    assert (event.service, event.revision, event.detail["stall_ms"], event.detail["request"]) == ("svc", 1, 640, "r-0")
    assert total(store).continued == 1


def test_keys_of_probes_are_one(paths: StatePaths, store: Store, write: Callable[..., None]) -> None:
    epoch = store.acquire_lease("test")
    pinned = KeyRow(
        key_id="key-0",
        secret_hash="a" * 64,
        name="probe",
        service="svc",
        revision=1,
        scopes=("inference",),
        created_at=BEGIN,
        expires_at=BEGIN + 600,
        revoked_at=None,
    )
    with store.change(epoch=epoch, actor="control", principal="control") as change:
        change.add_key(pinned)
    write("access", access_line(0), access_line(1))
    newer = Meter(paths, store, lambda: store.change(epoch=epoch, actor="control", principal="control"))
    newer.step()
    assert {row.key_id for row in store.usage(ALL_S, 0, 1)} == {PROBES, "key-1"}


def test_lines_that_say_nothing_are_counted_and_stop_nothing(
    paths: StatePaths, store: Store, meter: Meter, write: Callable[..., None]
) -> None:
    paths.access_log.write_bytes(b'{"attempts":1,"reque\n\xff\xfe\n\n[]\n')
    write("access", access_line(0))
    meter.step()
    assert total(store).requests == 1
    assert (store.logs()["access"].lines, store.logs()["access"].malformed) == (5, 4)


def test_old_spans_go_and_the_sum_of_all_stays(
    store: Store, meter: Meter, clock: Clock, write: Callable[..., None]
) -> None:
    write("access", access_line(0))
    meter.step()
    clock.now += 27 * HOUR_S
    write("access", access_line(1, time="2026-11-27T12:00:00.000Z"))
    meter.step()
    spans = {span_s: len(store.usage(span_s, 0, 2e9)) for span_s in (MINUTE_S, HOUR_S, DAY_S, ALL_S)}
    assert spans == {MINUTE_S: 1, HOUR_S: 2, DAY_S: 2, ALL_S: 2}


def test_a_control_whose_lease_was_taken_counts_nothing_and_the_next_one_counts_it(
    paths: StatePaths, store: Store, meter: Meter, write: Callable[..., None]
) -> None:
    write("access", access_line(0))
    other = meter_of(paths, store)
    with pytest.raises(StaleEpoch):
        meter.step()
    other.step()
    assert total(store).requests == 1


def test_what_was_rotated_while_control_was_dead_is_counted(
    paths: StatePaths, store: Store, meter: Meter, write: Callable[..., None]
) -> None:
    chance = random.Random(3)
    served = 0
    for _ in range(KEPT_FILES):
        for _ in range(chance.randrange(1, 9)):
            write("access", relayed_line(served))
            write(f"relay-{served % 2}", stream_line(served))
            served += 1
        for path in logs_of(paths).values():
            rotate_log(path, limit_bytes=0)
    write("access", access_line(served))
    while meter.step():
        pass
    assert total(store).requests == served + 1
    assert all(log.gaps == 0 for log in store.logs().values())


def test_killed_at_any_moment_it_loses_nothing_and_doubles_nothing(tmp_path: Path, clock: Clock) -> None:
    """SIGKILL at every statement, before and after it, before and after the commit; then it is started again."""

    def fill(folder: Path) -> None:
        paths = StatePaths.of(folder)
        paths.make()
        access, relay = LogWriter(paths.access_log), LogWriter(paths.gateway / "relay-0.log")
        for number in range(6):
            access.write(access_line(number))
        rotate_log(paths.access_log, limit_bytes=0)
        access.write(relayed_line(6))
        relay.write(stream_line(6, continued=1))
        relay.write(stream_line(7))
        access.write(relayed_line(8))

    def victim(*numbers: int) -> list[str]:
        words = [sys.executable, str(VICTIM), str(tmp_path), *map(str, numbers)]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=240).stdout.split()

    fill(tmp_path / "0")
    (steps,) = victim(0)
    moments = list(range(1, int(steps) + 1))
    for number in moments:
        fill(tmp_path / str(number))
    assert victim(*moments) == ["killed"] * len(moments)
    assert len(moments) > 100
    seen = set()
    for number in (0, *moments):
        paths = StatePaths.of(tmp_path / str(number))
        LogWriter(paths.access_log).write(relayed_line(7))  # the halves that were not there yet
        LogWriter(paths.gateway / "relay-0.log").write(stream_line(8))
        opened = open_store(paths.database, clock=clock)
        with_relays = meter_of(paths, opened)
        while with_relays.step():
            pass
        used = total(opened)
        told = len(opened.events(kind="StreamContinued"))
        seen.add(json.dumps([used.requests, used.outcomes, used.prompt_tokens, used.completion_tokens, told]))
        opened.close()
    assert seen == {json.dumps([9, {"answered": 9}, 6 * 5 + 3 * 3, 6 * 7 + 3 * 11, 1])}
