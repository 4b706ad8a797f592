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
from gonogo.facts.part import PARTS
from gonogo.runtimes.process_table import (
    SESSION,
    START,
    STATE,
    descendants,
    identity,
    leader_is_gone,
    living_name,
    marks_of,
    pids,
    resident_pages,
    stat_fields,
    used,
    writes,
)

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
LEADERS = ("replica", "gateway", *PARTS)
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
    so far and the resident bytes. `parts`: its children that live, by pid and by the name that each gave itself.
    """

    state: str
    cpu_s: float
    resident_bytes: int
    age_s: float
    parts: frozenset[tuple[int, str]] = frozenset()


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
        started = stat_fields(child.pid)
        start_time = started[START] if started else "0"
        handle = f"{child.pid}:{start_time}:{self._boot}"
        born = Process(role=role, name=name, port=port, handle=handle, devices=devices)
        self._known[born.handle] = born
        return born

    def scan(self) -> tuple[Process, ...]:
        """Look through the whole process table for processes of this state directory."""
        for pid in pids():
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
        fields = stat_fields(int(pid))
        return fields is not None and fields[START] == start_time and fields[STATE] not in ("Z", "X")

    def pulse(self, handle: str) -> Pulse | None:
        """Signs of life, None when it is gone."""
        if not self.alive(handle):
            return None
        pid = int(handle.partition(":")[0])
        fields = stat_fields(pid)
        if fields is None:
            return None
        children = descendants(pid)
        family = [taken for one in (pid, *children) if (taken := used(one)) is not None]
        if not family:
            return None
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return Pulse(
            state=fields[STATE],
            cpu_s=sum(taken.ticks for taken in family) / _TICKS_PER_SECOND,
            resident_bytes=resident_pages(family) * resource.getpagesize(),
            age_s=max(0.0, uptime - int(fields[START]) / _TICKS_PER_SECOND),
            parts=frozenset((one, name) for one in children if (name := living_name(one)) is not None),
        )

    def family(self, handle: str) -> tuple[int, ...]:
        """The pids of the process and of its children; empty when it is gone."""
        pid = int(handle.partition(":")[0])
        return (pid, *descendants(pid)) if self.alive(handle) else ()

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
        found = {pid: stat_fields(pid) for pid in self.family(handle)[1:]}
        return {pid: fields[START] for pid, fields in found.items() if fields is not None}

    def sweep(self, role: str, name: str | None, logs: Sequence[Path] = ()) -> int:
        """End what processes of this role and name (None: any) left behind: children whose leader is gone. How many.

        They are known by their marks or by the log that they write to: a process that gives itself a name, as vLLM's
        do, writes it over its environment.
        """
        files = {file for log in logs if (file := identity(log)) is not None}
        left = [pid for pid in pids() if leader_is_gone(pid) and (self._marked(pid, role, name) or writes(pid, files))]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return len(left)

    def _marked(self, pid: int, role: str, name: str | None) -> bool:
        marks = marks_of(pid)
        ours = (marks.get("GONOGO_STATE"), marks.get("GONOGO_ROLE"))
        return ours == (self._state_dir, role) and name in (None, marks.get("GONOGO_NAME"))

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
            return self.end_alone(handle, patience_s)
        finally:
            _kill_each(children)

    def end_alone(self, handle: str, patience_s: float) -> bool:
        """The same of a process whose children are to go on: control has started all that runs."""
        if not self.send(handle, signal.SIGTERM) or self._wait_gone(handle, patience_s):
            return True
        self.send(handle, signal.SIGCONT)
        self.send(handle, signal.SIGKILL)
        return self._wait_gone(handle, 5.0)

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
        fields = stat_fields(pid)
        if fields is None or fields[STATE] in ("Z", "X"):
            return None
        handle = f"{pid}:{fields[START]}:{self._boot}"
        if handle in self._known:
            return self._known[handle]
        marks = marks_of(pid)
        if marks.get("GONOGO_STATE") != self._state_dir or not marks.get("GONOGO_ROLE"):
            return None
        if marks["GONOGO_ROLE"] in LEADERS and int(fields[SESSION]) != pid:
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


def _kill_each(processes: Mapping[int, str]) -> None:
    """SIGKILL for each of these (pid → start time) that is still itself."""
    for pid, start_time in processes.items():
        fields = stat_fields(pid)
        if fields is not None and fields[START] == start_time:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
