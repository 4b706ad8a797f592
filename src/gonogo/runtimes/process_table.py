"""What the process table says, read from /proc. Nothing is remembered, nothing is changed; what is gone is None."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Collection, Mapping, Sequence

STATE, SESSION, _UTIME, _STIME, START = 0, 3, 11, 12, 19
"""Where these stand in what `stat_fields` gives."""


def stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the command name (state is the first), None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def living_name(pid: int) -> str | None:
    """What a process calls itself, in at most 15 bytes; None when it is gone or a zombie."""
    fields = stat_fields(pid)
    if fields is None or fields[STATE] in ("Z", "X"):
        return None
    try:
        return Path(f"/proc/{pid}/comm").read_bytes().decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return None


def leader_is_gone(pid: int) -> bool:
    """Whether a living process is in the session of one that is not. The kernel gives a pid to nobody meanwhile."""
    fields = stat_fields(pid)
    if fields is None or fields[STATE] in ("Z", "X") or int(fields[SESSION]) == pid:
        return False
    leader = stat_fields(int(fields[SESSION]))
    return leader is None or leader[STATE] in ("Z", "X")


def writes(pid: int, files: Collection[tuple[int, int]]) -> bool:
    """Whether its standard output or error is one of these files, each as `identity` gives it."""
    return any(identity(Path(f"/proc/{pid}/fd/{number}")) in files for number in (1, 2))


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what a path leads to, None when it is gone."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def pids() -> list[int]:
    """Of every process there is."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """CPU ticks, resident pages, and those of them that a file or another process backs too."""

    ticks: int
    resident: int
    shared: int


def used(pid: int) -> Used | None:
    """What one process takes, None when it is gone."""
    fields = stat_fields(pid)
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return None
    if fields is None or len(pages) < 3:
        return None
    return Used(ticks=int(fields[_UTIME]) + int(fields[_STIME]), resident=int(pages[1]), shared=int(pages[2]))


def resident_pages(family: Sequence[Used]) -> int:
    """Of a family of processes: libraries that all of them map count once."""
    return sum(one.resident - one.shared for one in family) + max(one.shared for one in family)


def descendants(pid: int) -> tuple[int, ...]:
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


def marks_of(pid: int) -> Mapping[str, str]:
    """The variables GONOGO_* in a process's environment; none where it cannot be read or was written over."""
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
