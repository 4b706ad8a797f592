"""A fenced process opens no connection and starts no program, and still answers those that come to it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gonogo.runners import fence

TRIED = """
import socket, subprocess, sys, threading
from gonogo.runners.fence import refuse_outward
if sys.argv[1] == "fenced":
    refuse_outward()
inside = socket.create_server(("127.0.0.1", 0))
def tell(name, work):
    try:
        work()
        print(name, "done")
    except OSError as error:
        print(name, error.errno)
def work():
    tell("tcp", lambda: socket.create_connection(inside.getsockname()))
    tell("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9)))
    tell("program", lambda: subprocess.run(["/bin/true"], check=True))
    tell("file", lambda: open("/proc/self/status").read())
work()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def _said(how: str) -> list[str]:
    done = subprocess.run((sys.executable, "-c", TRIED, how), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_a_fenced_process_goes_nowhere_in_no_thread() -> None:
    assert _said("fenced") == 2 * ["tcp 13", "udp 13", "program 13", "file done"]


def test_the_same_process_without_a_fence_does_all_of_it() -> None:
    assert _said("open") == 2 * ["tcp done", "udp done", "program done", "file done"]


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "riscv64")])
def test_where_no_fence_is_known_it_says_so(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(OSError, match=f"no fence is known for {system} on {machine}"):
        fence.refuse_outward()
