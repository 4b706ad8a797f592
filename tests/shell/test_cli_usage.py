"""`gonogo usage` over a real store, without control: a table, JSON, CSV, in both languages; and availability."""

from __future__ import annotations

import csv
import io
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from gonogo.control.metering import Meter
from gonogo.gateway.log_writer import LogWriter
from gonogo.monitoring.usage import availabilities
from gonogo.runtimes.paths import StatePaths
from gonogo.security.keys import KeyRow
from gonogo.store import open_store
from tests.shell.command_line import gonogo
from tests.shell.test_metering import access_line

NOW = time.time()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def served(state: Path, *lines: dict[str, Any]) -> StatePaths:
    """A deployment in which these requests were metered; `key-0` is called `phone`."""
    paths = StatePaths.of(state)
    paths.make()
    store = open_store(paths.database, clock=time.time)
    epoch = store.acquire_lease("test")
    key = KeyRow(
        key_id="key-0",
        secret_hash="a" * 64,
        name="phone",
        service=None,
        revision=None,
        scopes=("inference",),
        created_at=1.0,
        expires_at=None,
        revoked_at=None,
    )
    with store.change(epoch=epoch, actor="control", principal="control") as change:
        change.add_key(key)
    writer = LogWriter(paths.access_log)
    for line in lines:
        writer.write(line)
    Meter(paths, store, lambda: store.change(epoch=epoch, actor="control", principal="control")).step()
    store.close()
    return paths


def at(seconds_ago: float) -> str:
    moment = datetime.fromtimestamp(NOW - seconds_ago, tz=timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def some(state: Path) -> StatePaths:
    return served(
        state,
        *(access_line(number * 3, time=at(60)) for number in range(40)),
        access_line(1, time=at(60), status=429, details="policy_rate_limited"),
        access_line(3, time=at(7200), status=503, flags="UC", details="upstream_reset_before_response_started"),
        access_line(6, time=at(10 * 86400)),
        access_line(9, time=at(60), key_id=None, revision=None, status=401),
    )


def test_a_table_by_key_and_model_with_the_names_of_keys(state: Path) -> None:
    some(state)
    ran = gonogo(state, "usage")
    assert ran.code == 0, ran.err
    phone = next(line for line in ran.out.splitlines() if "phone" in line)
    assert phone.split()[:7] == ["svc", "phone", "41", "1", "0", "205", "287"]
    assert "(no key)" in ran.out
    assert "1h  100.000 %" in ran.out
    assert "1 of 41 failed" in ran.out


def test_json_has_every_number_and_the_window(state: Path) -> None:
    some(state)
    found = gonogo(state, "usage", "--since", "1h", "--json").json
    lines = {one["key_id"]: one for one in found["lines"]}
    assert (lines["key-0"]["requests"], lines["key-0"]["failed"], lines["key-0"]["key"]) == (40, 0, "phone")
    assert (lines["key-1"]["refused"], lines["key-1"]["statuses"]) == (1, {"429": 1})
    measured = found["availability"]["svc"]
    assert {name: (one["asked"], one["failed"]) for name, one in measured.items()} == {
        "1h": (40, 0),
        "24h": (41, 1),
        "30d": (42, 1),
    }
    assert measured["24h"]["low"] < measured["24h"]["share"] < measured["24h"]["high"]
    assert measured["24h"]["budget_left"] < 0


def test_by_day_and_as_csv(state: Path) -> None:
    some(state)
    ran = gonogo(state, "usage", "--since", "30d", "--by", "day", "--csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert {row["at"] for row in rows} >= {str(int((NOW - 10 * 86400) // 86400 * 86400))}
    assert sum(int(row["requests"]) for row in rows) == 44
    assert all(set(row) == set(rows[0]) and None not in row.values() for row in rows)


def test_one_model_alone_and_a_time_in_which_nothing_was_asked(state: Path) -> None:
    some(state)
    assert gonogo(state, "usage", "other", "--json").json["lines"] == []
    assert "没有请求" in gonogo(state, "usage", "other", "--lang", "zh").out


def test_chinese_says_the_same(state: Path) -> None:
    some(state)
    out = gonogo(state, "usage", "--lang", "zh").out
    assert "密钥" in out and "错误预算剩余" in out and "phone" in out


@pytest.mark.parametrize("words", [("--since", "soon"), ("--since", "0h"), ("--by", "week"), ("--since", "99999d")])
def test_what_it_does_not_understand_is_told(state: Path, words: tuple[str, ...]) -> None:
    some(state)
    ran = gonogo(state, "usage", *words)
    assert ran.code == 2
    assert words[1] in ran.err


def test_where_nothing_was_deployed_nothing_is_made(state: Path) -> None:
    assert gonogo(state, "usage").code == 4
    assert not state.exists()


def test_what_probes_asked_is_no_availability(state: Path) -> None:
    paths = some(state)
    store = open_store(paths.database, clock=time.time)
    pinned = KeyRow(
        key_id="key-2",
        secret_hash="b" * 64,
        name="probe",
        service="svc",
        revision=1,
        scopes=("inference",),
        created_at=1.0,
        expires_at=NOW + 600,
        revoked_at=None,
    )
    epoch = store.acquire_lease("test")
    with store.change(epoch=epoch, actor="control", principal="control") as change:
        change.add_key(pinned)
    LogWriter(paths.access_log).write(access_line(2, time=at(60), status=500, details=""))
    Meter(paths, store, lambda: store.change(epoch=epoch, actor="control", principal="control")).step()
    assert availabilities(store, NOW)["svc"]["1h"].failed == 0
    store.close()
    assert "(probes)" in gonogo(state, "usage").out
