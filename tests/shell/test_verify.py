"""The independent verifier: each way of changing the log is found, by sequence."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gonogo.security.chain import GENESIS, Draft, canonical, link
from gonogo.security.verify import ChainReport, verify_chain
from gonogo.store import open_store

EVENTS = 30
COLUMNS = "sequence, at_ms, actor, principal, request_id, kind, service, revision, detail, previous_hash, hash"


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real chain of 30 events, closed."""
    path = tmp_path_factory.mktemp("chain") / "gonogo.db"
    store = open_store(path, clock=lambda: 1_700_000_000.5)
    epoch = store.acquire_lease("control")
    for number in range(EVENTS - 1):
        with store.change(epoch=epoch, actor="control", principal="alice", request_id=f"r{number}") as change:
            change.event("ReplicaReady", "m", 1, number=number, rate=number / 7, words="größer 😀 \x00\n", none=None)
    store.close()
    return path


@pytest.fixture
def chain(written: Path, tmp_path: Path) -> Path:
    """A copy to be tampered with."""
    for name in ("gonogo.db", "chain-head"):
        shutil.copy(written.with_name(name), tmp_path / name)
    return tmp_path / "gonogo.db"


def tamper(chain: Path, *statements: str) -> None:
    """As somebody would who can write the file: the triggers are dropped first."""
    raw = sqlite3.connect(chain)
    raw.execute("PRAGMA ignore_check_constraints = 1")
    for trigger in ("events_are_not_changed", "events_are_not_removed", "events_follow_each_other"):
        raw.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    for statement in statements:
        raw.execute(statement)
    raw.commit()
    raw.close()


def rewrite_from(chain: Path, sequence: int) -> None:
    """Change one event and link all that follow anew, with the right hashes: a chain whole in itself."""
    raw = sqlite3.connect(chain)
    rows = raw.execute(f"SELECT {COLUMNS} FROM events ORDER BY sequence").fetchall()
    tamper(chain, f"DELETE FROM events WHERE sequence >= {sequence}")
    head = dataclasses.replace(GENESIS, sequence=sequence - 1, hash=rows[sequence - 2][-1])
    for _, at_ms, actor, _principal, request_id, kind, service, revision, detail, _, _ in rows[sequence - 1 :]:
        draft = Draft(
            at_ms=at_ms,
            actor=actor,
            principal="mallory",
            request_id=request_id,
            kind=kind,
            service=service,
            revision=revision,
            detail=json.loads(detail),
        )
        event = link(draft, head)
        head = event.head
        values = (event.sequence, at_ms, actor, "mallory", request_id, kind, service, revision)
        text = canonical(event.detail).decode()
        raw.execute(
            f"INSERT INTO events ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (*values, text, event.previous_hash, event.hash),
        )
    raw.commit()
    raw.close()


def test_an_untouched_chain_holds(chain: Path) -> None:
    report = verify_chain(chain)
    assert (report.length, report.broken_at, report.problem) == (EVENTS, None, None)
    assert (chain.with_name("chain-head")).read_text() == f"{EVENTS:020d} {report.head_hash}\n"


@pytest.mark.parametrize(
    ("statement", "broken_at", "problem"),
    [
        ("UPDATE events SET principal = 'alicf' WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET at_ms = at_ms + 1 WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET at_ms = 1.5 WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET actor = 'cli' WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET kind = 'ReplicaDied' WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET request_id = NULL WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET service = 'n' WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET revision = 2 WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET revision = 'x' WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET detail = replace(detail, '\"number\":5', '\"number\":6') WHERE sequence = 7", 7, "changed"),
        ("UPDATE events SET detail = replace(detail, ',', ', ') WHERE sequence = 7", 7, "not canonical"),
        ("UPDATE events SET detail = replace(detail, ':5,', ':5.0,') WHERE sequence = 7", 7, "not canonical"),
        ("UPDATE events SET detail = replace(detail, ':5,', ':1e999,') WHERE sequence = 7", 7, "not JSON"),
        ("UPDATE events SET detail = '{' WHERE sequence = 7", 7, "not JSON"),
        ("UPDATE events SET detail = CAST(detail AS BLOB) WHERE sequence = 7", 7, "detail is"),
        ("UPDATE events SET detail = CAST(x'ff' AS TEXT) WHERE sequence = 7", 7, "is not JSON"),
        ("UPDATE events SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET hash = upper(hash) WHERE sequence = 7", 7, "was changed"),
        ("UPDATE events SET previous_hash = hash WHERE sequence = 7", 7, "does not follow"),
        ("DELETE FROM events WHERE sequence = 7", 7, "event 7 is missing"),
        ("DELETE FROM events WHERE sequence = 1", 1, "event 1 is missing"),
        ("DELETE FROM events WHERE sequence = 30", 30, "chain-head remembers event 30"),
        ("DELETE FROM events WHERE sequence > 3", 4, "chain-head remembers event 30"),
        ("DELETE FROM events", 1, "chain-head remembers event 30"),
        ("UPDATE events SET sequence = sequence + 100 WHERE sequence > 7", 8, "event 8 is missing"),
        ("UPDATE events SET sequence = -sequence WHERE sequence = 7", 1, "event 1 is missing: event -7 comes next"),
        ("DROP TABLE events", 1, "unreadable: no such table"),
    ],
)
def test_each_way_of_changing_the_log_is_found(chain: Path, statement: str, broken_at: int, problem: str) -> None:
    tamper(chain, statement)
    report = verify_chain(chain)
    assert report.broken_at == broken_at
    assert report.length == broken_at - 1
    assert report.problem is not None
    assert problem in report.problem


def test_two_events_that_changed_places_are_found(chain: Path) -> None:
    tamper(
        chain,
        "UPDATE events SET sequence = 999 WHERE sequence = 7",
        "UPDATE events SET sequence = 7 WHERE sequence = 8",
        "UPDATE events SET sequence = 8 WHERE sequence = 999",
    )
    assert verify_chain(chain).broken_at == 7


def test_an_event_put_in_between_is_found(chain: Path) -> None:
    tamper(
        chain,
        "UPDATE events SET sequence = -sequence WHERE sequence > 7",
        "INSERT INTO events SELECT 8, at_ms, actor, 'mallory', request_id, kind, service, revision, detail, hash,"
        " 'made up' FROM events WHERE sequence = 7",
        "UPDATE events SET sequence = -sequence + 1 WHERE sequence < 0",
    )
    assert verify_chain(chain).broken_at == 8


def test_every_single_byte_of_an_event_counts(chain: Path) -> None:
    """Flip each byte of a row's text in turn, as a text of the same length."""
    raw = sqlite3.connect(chain)
    kept = raw.execute("SELECT detail FROM events WHERE sequence = 20").fetchone()[0]
    tamper(chain)
    for place, character in enumerate(kept):
        other = kept[:place] + chr(ord(character) ^ 1) + kept[place + 1 :]
        raw.execute("UPDATE events SET detail = ? WHERE sequence = 20", (other,))
        raw.commit()
        assert verify_chain(chain).broken_at == 20, place
    raw.execute("UPDATE events SET detail = ? WHERE sequence = 20", (kept,))
    raw.commit()
    raw.close()
    assert verify_chain(chain).problem is None


def test_a_chain_made_anew_is_found_by_the_remembered_head(chain: Path) -> None:
    rewrite_from(chain, 20)
    report = verify_chain(chain)
    assert report.broken_at == EVENTS
    assert report.problem is not None
    assert "another hash than chain-head remembers" in report.problem


def test_a_chain_and_a_head_made_anew_are_beyond_a_chain_without_an_anchor(chain: Path) -> None:
    """What the docstring admits: only a head kept where the writer cannot write finds this."""
    before = verify_chain(chain)
    rewrite_from(chain, 20)
    raw = sqlite3.connect(chain)
    (head,) = raw.execute("SELECT hash FROM events WHERE sequence = 30").fetchone()
    raw.close()
    chain.with_name("chain-head").write_text(f"{30:020d} {head}\n")
    assert verify_chain(chain).problem is None
    assert verify_chain(chain, since=before).problem == "event 30 is another than the one proven before"


@pytest.mark.parametrize("content", [None, "", "x y", "12", "ü"])
def test_a_missing_or_spoiled_head_is_told(chain: Path, content: str | None) -> None:
    head = chain.with_name("chain-head")
    head.unlink()
    if content is not None:
        head.write_text(content)
    report = verify_chain(chain)
    assert report.length == EVENTS
    assert report.broken_at == EVENTS + 1
    assert report.problem is not None
    assert "chain-head" in report.problem


def test_a_head_that_lags_behind_is_no_fault(chain: Path) -> None:
    """As after a crash between the commit and the note of it."""
    raw = sqlite3.connect(chain)
    (hash_of_28,) = raw.execute("SELECT hash FROM events WHERE sequence = 28").fetchone()
    raw.close()
    chain.with_name("chain-head").write_text(f"{28:020d} {hash_of_28}\n")
    assert verify_chain(chain).problem is None


def more(chain: Path, count: int) -> None:
    store = open_store(chain, clock=lambda: 1_700_000_001.0)
    lease = store.lease()
    assert lease is not None
    for _ in range(count):
        with store.change(epoch=lease.epoch, actor="control", principal="alice") as change:
            change.event("ReplicaDied", "m", 1)
    store.close()


def test_going_on_from_a_proven_prefix_gives_the_same_as_a_whole_proof(chain: Path) -> None:
    proven = verify_chain(chain)
    assert verify_chain(chain, since=proven) == proven
    more(chain, 5)
    report = verify_chain(chain, since=proven)
    assert report == verify_chain(chain)
    assert report.length == EVENTS + 5


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE events SET kind = 'ReplicaReady' WHERE sequence = 33", 33),
        ("UPDATE events SET principal = 'x' WHERE sequence = 30", 30),
        ("DELETE FROM events WHERE sequence = 30", 30),
        ("DELETE FROM events WHERE sequence >= 29", 30),
        ("DELETE FROM events WHERE sequence = 35", 35),
    ],
)
def test_going_on_finds_what_happened_since(chain: Path, statement: str, broken_at: int) -> None:
    proven = verify_chain(chain)
    more(chain, 5)
    tamper(chain, statement)
    assert verify_chain(chain, since=proven).broken_at == broken_at


def test_going_on_from_a_broken_report_starts_over(chain: Path) -> None:
    broken = ChainReport(length=3, head_hash="x", broken_at=4, problem="p")
    assert verify_chain(chain, since=broken) == verify_chain(chain)


def test_a_new_store_and_a_missing_one(tmp_path: Path) -> None:
    open_store(tmp_path / "gonogo.db", clock=lambda: 1.0).close()
    assert verify_chain(tmp_path / "gonogo.db") == ChainReport(
        length=0, head_hash="0" * 64, broken_at=None, problem=None
    )
    missing = verify_chain(tmp_path / "none" / "gonogo.db")
    assert missing.broken_at == 1
    assert missing.problem is not None


def test_the_verifier_shares_no_code_with_the_writer() -> None:
    code = (
        "import sys, gonogo.security.verify;"
        "print(sorted(m for m in sys.modules if m.startswith(('gonogo', 'sqlalchemy'))))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "['gonogo', 'gonogo.security', 'gonogo.security.verify']"


@pytest.mark.parametrize(("statement", "exit_code"), [("SELECT 1", 0), ("DELETE FROM events WHERE sequence = 5", 3)])
def test_it_runs_by_itself(chain: Path, statement: str, exit_code: int) -> None:
    tamper(chain, statement)
    command = [sys.executable, "-m", "gonogo.security.verify", str(chain)]
    seen = subprocess.run(command, capture_output=True, text=True, check=False)
    assert seen.returncode == exit_code
    assert ChainReport(**json.loads(seen.stdout)) == verify_chain(chain)


def test_a_hundred_thousand_events_are_proven_within_three_seconds(chain: Path) -> None:
    raw = sqlite3.connect(chain)
    rows, head = [], dataclasses.replace(GENESIS, sequence=EVENTS, hash=verify_chain(chain).head_hash)
    detail = {"replica": "m/1/0", "seconds": 1.25, "why": "its log said: out of memory"}
    draft = Draft(
        at_ms=1, actor="control", principal="a", request_id=None, kind="ReplicaDied", service="m", revision=1,
        detail=detail,
    )  # fmt: skip
    text = canonical(detail).decode()
    for _ in range(100_000):
        event = link(draft, head)
        head = event.head
        rows.append(
            (event.sequence, 1, "control", "a", None, "ReplicaDied", "m", 1, text, event.previous_hash, head.hash)
        )
    raw.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)
    raw.commit()
    raw.close()
    begun = time.process_time()
    report = verify_chain(chain)
    assert time.process_time() - begun < 3
    assert (report.length, report.problem) == (100_000 + EVENTS, None)
    begun = time.process_time()
    assert verify_chain(chain, since=report) == report
    assert time.process_time() - begun < 0.1


@pytest.mark.parametrize("events_after", [1, 27, 40])
def test_events_written_after_a_cut_do_not_cover_it_up(chain: Path, events_after: int) -> None:
    tamper(chain, "DELETE FROM events WHERE sequence > 10")
    more(chain, events_after)
    report = verify_chain(chain)
    assert report.broken_at == min(10 + events_after + 1, EVENTS)
    assert report.problem is not None
    assert "chain-head" in report.problem


def test_a_head_that_was_removed_is_not_quietly_made_again(chain: Path) -> None:
    chain.with_name("chain-head").unlink()
    more(chain, 2)
    assert verify_chain(chain).problem == "chain-head is missing: a cut end could not be seen"
