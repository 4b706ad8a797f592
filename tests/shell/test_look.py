"""Looking at this host: real tables, real sockets, real programs."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import psutil
import pytest

from gonogo.facts.host import Installed
from gonogo.runtimes import programs
from gonogo.runtimes.look import (
    PORTS,
    gateway_binary,
    listening_by_pid,
    look_at_host,
    look_at_installed,
    shares_port,
)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_host_is_seen_as_the_system_says_it_is(tmp_path: Path) -> None:
    host = look_at_host((str(tmp_path),), (), 3)
    assert (host.name, host.kernel, host.machine) == (os.uname().nodename, os.uname().release, os.uname().machine)
    assert host.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert host.cores is not None and 1 <= host.cores <= len(os.sched_getaffinity(0))
    assert host.memory_total_bytes is not None and host.memory_available_bytes is not None
    assert 0 < host.memory_available_bytes < host.memory_total_bytes <= psutil.virtual_memory().total
    assert host.open_files_limit is not None and host.open_files_limit > 0
    assert host.cpu_model and host.instruction_sets and host.os_name
    assert host.accelerators is None and host.installed is None


def test_a_look_takes_under_fifty_milliseconds(tmp_path: Path) -> None:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        look_at_host((str(tmp_path),), (8443,), 64)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.050


def test_cores_outside_the_affinity_do_not_count() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    program += "from gonogo.runtimes.look import look_at_host; print(look_at_host((), (), 0).cores)"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_the_holder_of_a_wanted_port_is_named(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    seen = look_at_host((), (port,), 0).listening
    assert seen is not None
    held = [holder for holder in seen if holder.port == port]
    assert [(one.address, one.pid, one.command) for one in held] == [
        ("127.0.0.1", os.getpid(), Path("/proc/self/comm").read_text().strip())
    ]


def test_the_holder_of_a_port_nobody_asked_about_is_not_searched_for(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    seen = look_at_host((), (), 0).listening
    assert seen is not None
    assert [(one.pid, one.command) for one in seen if one.port == port] == [(None, None)]


def test_a_process_is_seen_with_all_addresses_it_listens_on(listener: socket.socket) -> None:
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        mine = {f"127.0.0.1:{listener.getsockname()[1]}", f"0.0.0.0:{everywhere.getsockname()[1]}"}
        seen = listening_by_pid([os.getpid(), 1 << 22])
    assert list(seen) == [os.getpid()]
    assert mine <= set(seen[os.getpid()])


def test_free_ports_can_be_bound_and_taken_ones_are_left_out() -> None:
    first = look_at_host((), (), 1).free_ports
    assert first is not None and len(first) == 1
    with socket.create_server(("127.0.0.1", first[0])), socket.socket() as bound_only:
        second = look_at_host((), (), 1).free_ports
        assert second is not None
        bound_only.bind(("127.0.0.1", second[0]))  # bound, not listening: no table shows it
        third = look_at_host((), (), 1).free_ports
        assert third is not None
    assert first[0] < second[0] < third[0]
    assert {*first, *second, *third} <= set(PORTS)


def test_the_disk_of_a_directory_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    wanted = str(tmp_path / "state" / "gonogo")
    disks = look_at_host((wanted, "/proc"), (), 0).disks
    assert disks is not None
    assert [disk.path for disk in disks] == [wanted, "/proc"]
    assert disks[0].total_bytes >= disks[0].free_bytes > 0
    assert disks[1].kind == "proc"


def test_engine_and_gateway_say_their_versions() -> None:
    found = {item.name: item for item in look_at_installed()}
    assert set(found) == {"engine", "gateway"}
    assert all(item.version and item.error is None for item in found.values()), found


def test_a_second_look_at_what_is_installed_starts_nothing() -> None:
    look_at_installed()
    began = time.perf_counter()
    assert len(look_at_installed()) == 2
    assert time.perf_counter() - began < 0.050


def test_a_replaced_gateway_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = _program(tmp_path / "envoy", "echo 'envoy  version: abc123/1.40.0/Clean/RELEASE/BoringSSL'")
    monkeypatch.setenv(programs.ENVOY_OVERRIDE, str(binary))
    assert gateway_binary() == str(binary)
    assert _gateway().version == "1.40.0"
    _program(binary, "echo 'no such library' >&2; exit 127")
    os.utime(binary, ns=(1, 1))
    assert _gateway() == Installed(name="gateway", version=None, error="no such library")
    binary.unlink()
    assert "No such file" in str(_gateway().error)


def test_a_program_that_a_signal_ended_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(programs.ENVOY_OVERRIDE, str(_program(tmp_path / "envoy", "kill -ILL $$")))
    assert str(_gateway().error).endswith("was ended by SIGILL")


def _gateway() -> Installed:
    return next(item for item in look_at_installed() if item.name == "gateway")


def test_packages_are_held_against_the_lock_for_this_python() -> None:
    pins = "pytest==0.0.1\npsutil==1.0 ; python_full_version < '3.0'\nno-such-package==1.0\n"
    found = {item.name: item for item in look_at_installed(pins)}
    assert found["pytest"].wanted == "0.0.1" and found["pytest"].version == pytest.__version__
    assert "psutil" not in found
    assert (found["no-such-package"].version, found["no-such-package"].error) == (None, "not installed")


def reusing(port: int = 0) -> socket.socket:
    """A listener as engines make them."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    made.listen()
    return made


SHARES = """
import os, socket, sys
made = socket.socket(); made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
made.bind(("127.0.0.1", int(sys.argv[1]))); made.listen(); print("there", flush=True); sys.stdin.read()
"""


def test_a_port_that_another_program_listens_on_too_is_seen_as_shared() -> None:
    with reusing() as own:
        port = own.getsockname()[1]
        assert not shares_port((os.getpid(),), port)
        command = (sys.executable, "-c", SHARES, str(port))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None and other.stdout.readline() == b"there\n"
            assert shares_port((os.getpid(),), port)
            assert shares_port((other.pid,), port), "each of the two sees it"
            assert not shares_port((os.getpid(), other.pid), port), "two processes of one family"
            assert not shares_port((os.getpid(),), port + 1)
            other.communicate()
        assert not shares_port((os.getpid(),), port)


def test_ports_begin_at_another_place_for_each_state_directory_and_at_the_same_one_each_time() -> None:
    first, again = (look_at_host(("/srv/one/state",), (), 4).free_ports for _ in range(2))
    other = look_at_host(("/srv/another/state",), (), 4).free_ports
    assert first is not None and other is not None
    assert first == again
    assert not set(first) & set(other)
    assert all(port in PORTS for port in (*first, *other))


def test_ports_go_round_at_the_end_of_their_range(monkeypatch: pytest.MonkeyPatch) -> None:
    from gonogo.runtimes import look

    monkeypatch.setattr(look, "_can_bind", lambda port: True)
    found = look_at_host(("/srv/one/state",), (), len(PORTS)).free_ports
    assert found is not None and len(set(found)) >= len(PORTS) - 50, "all but those that somebody listens on"
