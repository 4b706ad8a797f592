"""Condition 5, security, of a running service: policy servers that decide wrongly, and what else lets people in."""

from __future__ import annotations

import os
import sqlite3
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.drills.harness import (
    SERVICE,
    Second,
    Yard,
    assert_only,
    faulty,
    gonogo,
    handshake,
    own_address,
    spec,
    spec_file,
    until,
    wrong,
)
from tests.shell.small_disk import small_disk


def test_keyless_refused(yard: Yard) -> None:
    """Asked by the command here, for its exit code: blocked with the check, content without it."""
    with yard.faults.broken(policy="no_key_needed"):
        result = yard.gonogo("check", SERVICE, "--live", "--json")
        assert result.code == 3
        assert_only(result.json["answers"], "keyless_refused", "KeylessServed", "service/drill")
        with yard.faults.broken(without=["keyless_refused"]):
            result = yard.gonogo("check", SERVICE, "--live", "--json")
        assert (result.code, wrong(result.json["answers"])) == (0, {})
        assert yard.status_without_key() == 200
    assert yard.status_without_key() == 401


def test_wrong_key_refused(yard: Yard) -> None:
    from gonogo.security.keys import with_other_secret

    def asked() -> int:
        with yard.client() as client:
            client.headers["authorization"] = f"Bearer {with_other_secret(yard.key)}"
            return yard.chat(client).status_code

    with yard.faults.broken(policy="any_secret"):
        assert_only(yard.live(), "wrong_key_refused", "WrongKeyServed", "service/drill")
        assert asked() == 200
    assert asked() == 401


def test_revoked_key_refused(yard: Yard) -> None:
    made = yard.gonogo("keys", "create", "--name", "stolen", "--service", SERVICE, "--json").json
    assert yard.gonogo("keys", "revoke", made["key_id"], "--json").code == 0

    def asked() -> int:
        with yard.client() as client:
            client.headers["authorization"] = f"Bearer {made['api_key']}"
            return yard.chat(client).status_code

    with yard.faults.broken(policy="revocation_ignored"):
        assert_only(yard.live(), "revoked_key_refused", "RevokedKeyServed", "service/drill")
        assert asked() == 200
    assert asked() == 401


def test_old_tls_refused(yard: Yard) -> None:
    assert handshake(yard.port, ssl.TLSVersion.TLSv1_2) is None
    with yard.faults.broken(gateway="old_tls"):
        until(lambda: handshake(yard.port, ssl.TLSVersion.TLSv1_2) == "TLSv1.2", "a client with TLS 1.2 gets in")
        assert_only(yard.live(), "old_tls_refused", "OldTlsAccepted", "service/drill")
    until(lambda: handshake(yard.port, ssl.TLSVersion.TLSv1_2) is None, "TLS 1.2 is refused again")


def test_events_intact(yard: Yard) -> None:
    """The row is put back afterwards: its hash is right again."""
    database = sqlite3.connect(yard.state_dir / "gonogo.db", isolation_level=None, timeout=10)
    triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'events'")
    guards = triggers.fetchall()
    (sequence, told) = database.execute("SELECT sequence, principal FROM events WHERE kind = 'KeyAdded'").fetchone()

    def change(principal: str) -> None:
        for name, _ in guards:
            database.execute(f"DROP TRIGGER {name}")
        database.execute("UPDATE events SET principal = ? WHERE sequence = ?", (principal, sequence))
        for _, sql in guards:
            database.execute(sql)

    change("somebody-else")
    try:
        found = assert_only(yard.live(), "events_intact", "EventsTampered", "events")
        assert found["values"]["broken_at"] == sequence
        # Silent without it: the log is read out with the lie in it, and everything works.
        lie = next(one for one in yard.control.events(after=sequence - 1, limit=1))
        assert lie["principal"] == "somebody-else"
        assert yard.ask_once().status_code == 200
    finally:
        change(told)
        database.close()
    assert wrong(yard.live()) == {}


def test_clock_steady(yard: Yard) -> None:
    """The clock is set back for every process of ours at once, as the operating system's would be."""
    yard.well()
    made = yard.gonogo("keys", "create", "--name", "short", "--service", SERVICE, "--expires", "1s", "--json").json

    def asked() -> int:
        with yard.client() as client:
            client.headers["authorization"] = f"Bearer {made['api_key']}"
            return yard.chat(client).status_code

    until(lambda: asked() == 401, "the key has expired")
    with yard.faults.broken(clock_s=-300.0):
        assert_only(yard.wait_known("clock_steady", "ClockJumped"), "clock_steady", "ClockJumped", "host/local")
        assert asked() == 200, "a key that had expired works again"
    yard.wait_known("clock_steady", None)
    assert asked() == 401


def test_engine_on_loopback(yard: Yard) -> None:
    yard.well()
    address = own_address()
    with yard.faults.broken(engine={"drill/1/0": "listens_everywhere"}):
        answers = yard.wait_known("engine_on_loopback", "EngineExposed")
        found = assert_only(answers, "engine_on_loopback", "EngineExposed", "replica/drill/1/0")
        door = found["values"]["addresses"]
        assert door.startswith("0.0.0.0:")
        if address is not None:
            stranger = httpx.get(f"http://{address}:{door.rpartition(':')[2]}/v1/models", trust_env=False)
            assert stranger.status_code == 200, "anybody on the network, without a key"
    yard.wait_known("engine_on_loopback", None)


def test_state_private(yard: Yard) -> None:
    """The modes that a careless `chmod -R` or a restored backup leaves."""
    key = yard.state_dir / "tls" / "ca.key"
    opened = {yard.state_dir: 0o755, key.parent: 0o755, key: 0o644}
    before = {path: path.stat().st_mode & 0o777 for path in opened}
    assert "PRIVATE KEY" not in _as_a_stranger(key)
    for path, mode in opened.items():
        path.chmod(mode)
    try:
        answers = yard.refused(spec(service="other", gateway={"port": yard.port}))
        assert_only(answers, "state_private", "StateExposed", "state")
        assert "PRIVATE KEY" in _as_a_stranger(key), "who has it can pretend to be this gateway"
    finally:
        for path, mode in before.items():
            path.chmod(mode)
    assert wrong(yard.preflight(spec(service="other", gateway={"port": yard.port}))) == {}


def test_state_writable(tmp_path: Path) -> None:
    """A disk that was mounted again for reading only, as Linux does after an error on it."""
    with small_disk(tmp_path / "disk", "256m") as disk:
        place = spec_file(tmp_path)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        result = gonogo(disk / "state", "up", place, "--yes")
        assert result.code == 3
        found = assert_only(result.json["answers"], "state_writable", "StateNotWritable", "state")
        assert found["values"]["path"] == str(disk / "state")
        with faulty(disk / "state", tmp_path, without=["state_writable"]) as own:
            result = own.run("up", place, "--yes", "--json")
        assert result.code == 4, "tried, and only then found out"
        assert result.json["error"]["reason"] == "StateUnusable"


def test_listens_locally(yard: Yard, second: Second) -> None:
    """Advice only: open to the network is what somebody may want, and nobody should do by accident."""
    asked = spec(gateway={"port": yard.port, "address": "0.0.0.0"})
    found = assert_only(yard.preflight(asked), "listens_locally", "ListensPublicly", "gateway")
    assert found["values"]["address"] == "0.0.0.0"
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback: nobody can come from outside")
    assert handshake(second.port, ssl.TLSVersion.TLSv1_3, address) == "TLSv1.3", "anybody gets to the door"
    with pytest.raises(ConnectionRefusedError):
        handshake(yard.port, ssl.TLSVersion.TLSv1_3, address)


def _as_a_stranger(file: Path) -> str:
    """What another user can read of a file; needs root to become somebody else."""
    if os.getuid() != 0:
        pytest.skip("only root can look at a file as somebody else")
    try:
        done = subprocess.run(
            ["cat", file], user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False
        )
    except PermissionError:
        return ""
    return done.stdout
