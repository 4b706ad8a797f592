"""Processes on this machine. The process table is the truth: no pid files.

Each process of ours carries `GONOGO_STATE`, `GONOGO_ROLE`, `GONOGO_NAME`, `GONOGO_PORT` and `GONOGO_DEVICES` in its
environment, so a new control process finds and adopts what an earlier one started. Identity is pid + start time + boot
id; a zombie is dead. A process that we start leads a session; its children inherit the marks and belong to it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from gonogo.engines.model import Launch

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_STAT_STATE, _STAT_SESSION, _STAT_UTIME, _STAT_STIME, _STAT_START = 0, 3, 11, 12, 19
LEADERS = ("replica", "policy", "gateway")
"""The roles that `start` starts: only the leader of a session is such a process, its children are a part of it."""
AUTOGROUP_TRIES, AUTOGROUP_PAUSE_S = 3, 0.11
LOG_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of ours. `handle` is opaque outside this file. `devices`: the accelerators that it was given."""

    role: str
    name: str
    port: int | None
    handle: str
    devices: tuple[str, ...] = ()

    @property
    def pid(self) -> int:
        return int(self.handle.partition(":")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """Signs of life of one process: its state letter (T: stopped), and with its children together the CPU seconds used
    so far and the resident bytes.
    """

    state: str
    cpu_s: float
    resident_bytes: int
    age_s: float


def boot_id() -> str:
    """The kernel's id of this boot, first eight digits."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]


class LocalRuntime:
    """Starts, finds, watches and ends the processes of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = str(state_dir)
        self._boot = boot_id()
        self._known: dict[str, Process] = {}
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self, launch: Launch, process: tuple[str, str, int | None], log: Path, devices: tuple[str, ...] = ()
    ) -> Process:
        """Start a process of (role, name, port) in a session of its own; its output goes to the log file."""
        role, name, port = process
        marks = {"GONOGO_STATE": self._state_dir, "GONOGO_ROLE": role, "GONOGO_NAME": name}
        if port is not None:
            marks["GONOGO_PORT"] = str(port)
        if devices:
            marks["GONOGO_DEVICES"] = ",".join(devices)
        environment = {**_inherited(), **launch.environment, **marks}
        rotate(log)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=environment,
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(descriptor)
        _be_nice(child.pid, launch.niceness)
        self._children[child.pid] = child
        started = _stat(child.pid)
        start_time = started[_STAT_START] if started else "0"
        handle = f"{child.pid}:{start_time}:{self._boot}"
        born = Process(role=role, name=name, port=port, handle=handle, devices=devices)
        self._known[born.handle] = born
        return born

    def scan(self) -> tuple[Process, ...]:
        """Look through the whole process table for processes of this state directory."""
        for pid in _pids():
            found = self._read(pid)
            if found is not None:
                self._known[found.handle] = found
        return self.processes()

    def processes(self) -> tuple[Process, ...]:
        """The known processes that are alive, oldest first."""
        for handle in tuple(self._known):
            if not self.alive(handle):
                del self._known[handle]
        return tuple(sorted(self._known.values(), key=lambda one: (int(one.handle.split(":")[1]), one.pid)))

    def alive(self, handle: str) -> bool:
        """Whether exactly this process still runs. A zombie, or another process with its pid, is not it."""
        pid, start_time, boot = handle.split(":")
        if boot != self._boot:
            return False
        self._reap(int(pid))
        fields = _stat(int(pid))
        return fields is not None and fields[_STAT_START] == start_time and fields[_STAT_STATE] not in ("Z", "X")

    def pulse(self, handle: str) -> Pulse | None:
        """Signs of life, None when it is gone."""
        if not self.alive(handle):
            return None
        pid = int(handle.partition(":")[0])
        fields = _stat(pid)
        if fields is None:
            return None
        family = [used for one in (pid, *_descendants(pid)) if (used := _used(one)) is not None]
        if not family:
            return None
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return Pulse(
            state=fields[_STAT_STATE],
            cpu_s=sum(used.ticks for used in family) / _TICKS_PER_SECOND,
            resident_bytes=_resident_pages(family) * resource.getpagesize(),
            age_s=max(0.0, uptime - int(fields[_STAT_START]) / _TICKS_PER_SECOND),
        )

    def family(self, handle: str) -> tuple[int, ...]:
        """The pids of the process and of its children; empty when it is gone."""
        pid = int(handle.partition(":")[0])
        return (pid, *_descendants(pid)) if self.alive(handle) else ()

    def send(self, handle: str, number: signal.Signals) -> bool:
        """Send a signal to exactly this process; False when it is gone. Never hits a process that got its pid."""
        pid = int(handle.partition(":")[0])
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            if not self.alive(handle):
                return False
            signal.pidfd_send_signal(descriptor, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)

    def kill(self, handle: str) -> bool:
        """SIGKILL for exactly this process and for all its children; False when it is gone."""
        children = self._children_of(handle)
        killed = self.send(handle, signal.SIGKILL)
        _kill_each(children)
        return killed

    def _children_of(self, handle: str) -> Mapping[int, str]:
        """Pid → start time of each child, grandchild and so on of a living process."""
        found = {pid: _stat(pid) for pid in self.family(handle)[1:]}
        return {pid: fields[_STAT_START] for pid, fields in found.items() if fields is not None}

    def sweep(self, role: str, name: str) -> int:
        """End what a process of this role and name left behind: children whose leader is gone. How many there were."""
        left = [pid for pid in _pids() if self._is_orphan(pid, role, name)]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return len(left)

    def _is_orphan(self, pid: int, role: str, name: str) -> bool:
        fields = _stat(pid)
        if fields is None or fields[_STAT_STATE] in ("Z", "X") or int(fields[_STAT_SESSION]) == pid:
            return False
        leader = _stat(int(fields[_STAT_SESSION]))
        if leader is not None and leader[_STAT_STATE] not in ("Z", "X"):
            return False
        marks = _marks(pid)
        ours = (marks.get("GONOGO_STATE"), marks.get("GONOGO_ROLE"), marks.get("GONOGO_NAME"))
        return ours == (self._state_dir, role, name)

    def open_watch(self, handle: str) -> int | None:
        """A descriptor (pidfd) that becomes readable when the process ends, None when it is gone. Close it."""
        try:
            descriptor = os.pidfd_open(int(handle.partition(":")[0]))
        except OSError:
            return None
        if self.alive(handle):
            return descriptor
        os.close(descriptor)
        return None

    def end(self, handle: str, patience_s: float) -> bool:
        """SIGTERM, then SIGKILL after `patience_s`, and SIGKILL for children that it left; whether it is gone.

        Blocks; used outside the loop.
        """
        children = self._children_of(handle)
        try:
            if not self.send(handle, signal.SIGTERM) or self._wait_gone(handle, patience_s):
                return True
            self.send(handle, signal.SIGCONT)
            self.kill(handle)
            return self._wait_gone(handle, 5.0)
        finally:
            _kill_each(children)

    def _wait_gone(self, handle: str, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while self.alive(handle):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _reap(self, pid: int) -> None:
        child = self._children.get(pid)
        if child is not None and child.poll() is not None:
            del self._children[pid]

    def _read(self, pid: int) -> Process | None:
        fields = _stat(pid)
        if fields is None or fields[_STAT_STATE] in ("Z", "X"):
            return None
        handle = f"{pid}:{fields[_STAT_START]}:{self._boot}"
        if handle in self._known:
            return self._known[handle]
        marks = _marks(pid)
        if marks.get("GONOGO_STATE") != self._state_dir or not marks.get("GONOGO_ROLE"):
            return None
        if marks["GONOGO_ROLE"] in LEADERS and int(fields[_STAT_SESSION]) != pid:
            return None
        port = marks.get("GONOGO_PORT", "")
        return Process(
            role=marks["GONOGO_ROLE"],
            name=marks.get("GONOGO_NAME", ""),
            port=int(port) if port.isdigit() else None,
            handle=handle,
            devices=tuple(marks["GONOGO_DEVICES"].split(",")) if marks.get("GONOGO_DEVICES") else (),
        )


def rotate(log: Path) -> None:
    """Keep one older copy beside the log once it passes the limit, and empty it.

    Copied, not renamed: the process that writes it holds it open for appending.
    """
    try:
        if log.stat().st_size > LOG_LIMIT_BYTES:
            shutil.copyfile(log, log.with_suffix(".1.log"))
            os.truncate(log, 0)
    except FileNotFoundError:
        return


def tail(log: Path, lines: int, limit_bytes: int = 65536) -> tuple[str, ...]:
    """The last lines of a log file; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit_bytes))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(text.splitlines()[-lines:])


def _inherited() -> dict[str, str]:
    """What a process of ours inherits: paths, locale, Python's and gonogo's own settings. No secrets by accident."""
    kept = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "TZ", "CUDA_HOME")
    own = ("GONOGO_API_KEY", "GONOGO_PORT", "GONOGO_DEVICES")
    prefixes = ("LC_", "PYTHON", "GONOGO_", "XDG_")
    return {
        name: value
        for name, value in os.environ.items()
        if (name in kept or name.startswith(prefixes)) and name not in own
    }


def _be_nice(pid: int, niceness: int) -> None:
    """Let a process go behind others, and its session too: where the kernel groups by session, as most do, the
    niceness of a process counts only within its own, and each of ours has one.
    """
    if not niceness:
        return
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + niceness)
    with contextlib.suppress(OSError):  # it ended already: the next observation says so
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    for _ in range(AUTOGROUP_TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))
        except BlockingIOError:  # without root the kernel takes one such request each 0.1 s
            time.sleep(AUTOGROUP_PAUSE_S)
        except OSError:
            return  # no autogroups here, or it ended
        else:
            return


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the command name (state is the first), None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def _kill_each(processes: Mapping[int, str]) -> None:
    """SIGKILL for each of these (pid → start time) that is still itself."""
    for pid, start_time in processes.items():
        fields = _stat(pid)
        if fields is not None and fields[_STAT_START] == start_time:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


@dataclass(frozen=True, slots=True)
class _Used:
    """CPU ticks, resident pages, and those of them that a file or another process backs too."""

    ticks: int
    resident: int
    shared: int


def _used(pid: int) -> _Used | None:
    """What one process takes, None when it is gone."""
    fields = _stat(pid)
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        return (
            None
            if fields is None
            else _Used(int(fields[_STAT_UTIME]) + int(fields[_STAT_STIME]), int(pages[1]), int(pages[2]))
        )
    except (OSError, IndexError):
        return None


def _resident_pages(family: Sequence[_Used]) -> int:
    """Of a family of processes: libraries that all of them map count once."""
    return sum(used.resident - used.shared for used in family) + max(used.shared for used in family)


def _descendants(pid: int) -> tuple[int, ...]:
    """Children, their children, and so on; a child that is born meanwhile may be missing."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{one}/task")
        except OSError:
            continue
        for thread in threads:
            with contextlib.suppress(OSError):
                children = [int(text) for text in Path(f"/proc/{one}/task/{thread}/children").read_text().split()]
                found += children
                waiting += children
    return tuple(found)


def _marks(pid: int) -> Mapping[str, str]:
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    marks: dict[str, str] = {}
    for item in content.split(b"\0"):
        if item.startswith(b"GONOGO_"):
            name, _, value = item.decode("utf-8", "replace").partition("=")
            marks[name] = value
    return marks
