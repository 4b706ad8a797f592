"""Condition 2, software: an engine that cannot be loaded, no gateway, other packages than locked, few open files."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.drills.harness import (
    Faults,
    Yard,
    assert_only,
    gonogo,
    install_broken_engine,
    spec,
    spec_file,
    until,
)

SMUGGLED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabXX0\r\n\r\n"
"""A chunk of two bytes that does not end with a line break: to some servers another request begins there."""
STRICT = """            if data != self._bytes_to_discard[: len(data)]:
                raise LocalProtocolError(
                    f"malformed chunk footer: {data!r} (expected {self._bytes_to_discard!r})"
                )
"""
"""What h11 0.16 added."""
CONNECTIONS = 300


def test_engine_installed(yard: Yard, tmp_path: Path) -> None:
    """The engine's library does not fit the system's: its import fails."""
    install_broken_engine(tmp_path / "packages")
    faults = Faults(tmp_path / "faults.json")
    with faults.broken(engine={"": "cannot_be_loaded"}):
        environment = {"PYTHONPATH": str(tmp_path / "packages"), "GONOGO_DRILL": str(faults.place)}
        result = gonogo(tmp_path / "state", "up", spec_file(tmp_path), **environment)
    assert result.code == 3
    found = assert_only(result.json["answers"], "engine_installed", "EngineBroken", "host/local")
    assert "undefined symbol" in found["values"]["error"]
    with yard.faults.broken(engine={"unloadable/": "cannot_be_loaded"}):
        entry = yard.rejected(spec(service="unloadable", replicas={"min": 1, "max": 1}), without="engine_installed")
    assert entry["rejected"]["reason"] == "ReplicaCannotStart"
    assert entry["rejected"]["detail"]["why"] == "EngineNotInstalled"


def test_gateway_installed(yard: Yard, tmp_path: Path) -> None:
    """Envoy's file is no program. A running Envoy does not notice; the next start of it does."""
    no_program = tmp_path / "envoy"
    no_program.write_text("<html>404</html>")
    no_program.chmod(0o755)
    result = gonogo(tmp_path / "state", "up", spec_file(tmp_path), GONOGO_ENVOY=str(no_program))
    assert result.code == 3
    assert_only(result.json["answers"], "gateway_installed", "GatewayBroken", "host/local")
    yard.well()
    binary = Path(yard.environment["GONOGO_ENVOY"])
    real = binary.readlink()
    after = yard.last_event()
    try:
        binary.unlink()
        shutil.copy(no_program, binary)
        (pid,) = yard.control.status()["processes"]["gateway"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: yard.failed_actions(after) >= 2, "control tries again and again to start the gateway")
        with pytest.raises(httpx.ConnectError):
            yard.ask_once()
    finally:
        binary.unlink()
        binary.symlink_to(real)
    until(lambda: _answers(yard), "the gateway is back")


def test_environment_locked(yard: Yard, tmp_path: Path) -> None:
    """Advice only. h11 as it was before 0.16, which let requests be smuggled past a proxy (CVE-2025-43859)."""
    old = tmp_path / "packages"
    _install_old_h11(old)
    result = gonogo(tmp_path / "state", "check", spec_file(tmp_path), PYTHONPATH=str(old))
    assert result.code == 0
    found = assert_only(result.json["answers"], "environment_locked", "EnvironmentDrifted", "host/local")
    assert found["values"]["drifted"].startswith("h11 0.14.0")
    assert "LocalProtocolError" not in _read_by_h11(old), "the smuggled request is taken, and nobody says so"
    assert "RemoteProtocolError" in _read_by_h11(None)


def test_open_files(yard: Yard, tmp_path: Path) -> None:
    """A limit of 256, as some systems have it for services: the gateway holds that many clients and no more."""
    result = gonogo(tmp_path / "state", "up", spec_file(tmp_path), before=("prlimit", "--nofile=256"))
    assert result.code == 3
    found = assert_only(result.json["answers"], "open_files", "OpenFilesTooFew", "host/local")
    assert found["values"]["limit"] == 256
    (pid,) = yard.control.status()["processes"]["gateway"]
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert _clients_held(yard) < 256
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: _answers(yard), "the gateway answers again")
    assert _clients_held(yard) == CONNECTIONS


def _answers(yard: Yard) -> bool:
    try:
        return yard.ask_once().status_code == 200
    except httpx.HTTPError:
        return False


def _clients_held(yard: Yard) -> int:
    """How many clients get through the handshake while those before them stay connected, until one does not."""
    context = ssl.create_default_context(cafile=str(yard.state_dir / "tls" / "ca.crt"))
    held: list[ssl.SSLSocket] = []
    try:
        while len(held) < CONNECTIONS:
            plain = socket.create_connection(("127.0.0.1", yard.port), timeout=2)
            try:
                held.append(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            except OSError:
                plain.close()
                break
        return len(held)
    finally:
        for one in held:
            one.close()


def _install_old_h11(packages: Path) -> None:
    found = find_spec("h11")
    assert found is not None and found.submodule_search_locations
    shutil.copytree(found.submodule_search_locations[0], packages / "h11")
    readers = packages / "h11" / "_readers.py"
    text = readers.read_text()
    assert text.count(STRICT) == 1, "h11 reads chunks in another way now: mend this drill"
    readers.write_text(text.replace(STRICT, ""))
    about = packages / "h11-0.14.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: h11\nVersion: 0.14.0\n")


def _read_by_h11(packages: Path | None) -> str:
    """What a server makes of the smuggled request, with these packages in front."""
    program = (
        "import h11, sys; server = h11.Connection(h11.SERVER); server.receive_data(sys.stdin.buffer.read())\n"
        "try: print([type(server.next_event()).__name__ for _ in range(3)])\n"
        "except h11.ProtocolError as error: print(type(error).__name__)"
    )
    environment = {**os.environ, **({"PYTHONPATH": str(packages)} if packages else {})}
    done = subprocess.run(
        [sys.executable, "-c", program], input=SMUGGLED, capture_output=True, check=True, env=environment
    )
    return done.stdout.decode()
