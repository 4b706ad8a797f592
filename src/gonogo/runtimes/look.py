"""Looks at this host: the only place that reads its tables and asks its programs. Judges nothing.

`look_at_host` is cheap (control asks every few seconds); `look_at_installed`, `look_at_accelerators` and
`look_at_tools` start programs.
"""

from __future__ import annotations

import errno
import os
import platform
import resource
import socket
import zlib
from pathlib import Path
from typing import Callable, Iterable, Mapping, Sequence, TypeVar

from gonogo.facts import table
from gonogo.facts.fact import Fact
from gonogo.facts.host import Disk, HostFacts, PortHolder
from gonogo.facts.parse_network import Listener
from gonogo.facts.parse_system import (
    Memory,
    Mount,
    cores_usable,
    kind_of,
    parse_bytes,
    parse_cpu_max,
    parse_reclaimable,
    tightest,
)
from gonogo.runtimes import look_system
from gonogo.runtimes.look_accelerators import AcceleratorsSeen, look_at_accelerators
from gonogo.runtimes.look_tools import look_at_tools
from gonogo.runtimes.programs import gateway_binary, look_at_installed

__all__ = [
    "AcceleratorsSeen",
    "gateway_binary",
    "listening_by_pid",
    "look_at_accelerators",
    "look_at_host",
    "look_at_installed",
    "look_at_tools",
]

Seen = TypeVar("Seen")
CGROUP_ROOT = Path("/sys/fs/cgroup")
PORTS = range(18100, 20100)
"""Replicas listen on these: below the range that the kernel gives to outgoing connections (32768 and up)."""
PIECE_BYTES, MOST_PIECES = 65536, 1024


def look_at_host(paths: Sequence[str], wanted_ports: Sequence[int], free_ports: int) -> HostFacts:
    """This host now, in under 50 ms. Whatever cannot be read is None; this never raises.

    `paths`: whose file systems to measure (they need not exist yet). `wanted_ports`: ports whose holder is to be named.
    `free_ports`: how many ports for replicas to find. What takes a process to see is not among these facts.
    """
    system = os.uname()
    cpu, limits = _read(table.CPU), _memory()
    listeners = _listeners()
    return HostFacts(
        name=system.nodename,
        boot_id=_read(table.BOOT),
        os_name=_read(table.OS),
        kernel=system.release,
        machine=system.machine,
        python=platform.python_version(),
        cpu_model=cpu.model if cpu else None,
        cores=_cores(),
        instruction_sets=cpu.instruction_sets if cpu else None,
        memory_total_bytes=limits.total_bytes,
        memory_available_bytes=limits.available_bytes,
        open_files_limit=_open_files(),
        disks=tuple(filter(None, (_disk(path, _read(table.MOUNTS) or ()) for path in paths))),
        listening=None if listeners is None else _holders(listeners, frozenset(wanted_ports)),
        free_ports=None if listeners is None else _free_ports(listeners, free_ports, paths),
        os_id=_read(table.OS_ID),
        glibc=look_system.glibc_version(),
        locked_memory_limit_bytes=look_system.limit(resource.RLIMIT_MEMLOCK),
        processes_limit=look_system.limit(resource.RLIMIT_NPROC),
        shared_memory=look_system.shared_memory(),
        numa_nodes=look_system.numa_nodes(),
        block_devices=look_system.block_devices(),
        clock_kept=look_system.clock_is_kept(),
    )


def listening_by_pid(pids: Iterable[int]) -> Mapping[int, tuple[str, ...]]:
    """Pid → the `address:port` texts it listens on, sorted. A process that cannot be looked into has no entry."""
    by_inode = {listener.inode: listener for listener in _listeners() or ()}
    found: dict[int, tuple[str, ...]] = {}
    for pid in pids:
        inodes = _socket_inodes(pid)
        if inodes is not None:
            held = (by_inode[inode] for inode in inodes if inode in by_inode)
            found[pid] = tuple(sorted({f"{one.address}:{one.port}" for one in held}))
    return found


def shares_port(pids: Iterable[int], port: int) -> bool:
    """Whether a socket that none of these processes holds listens on their port too.

    Engines bind with SO_REUSEPORT: two of them on one port both start, and each gets some of the requests.
    """
    listening = {listener.inode for listener in _listeners() or () if listener.port == port}
    for pid in pids:
        listening -= _socket_inodes(pid) or set()
    return bool(listening)


def _read(fact: Fact[Seen]) -> Seen | None:
    text = _text(Path(fact.path)) if fact.path else None
    return None if text is None else fact.parse(text)


def _text(path: Path) -> str | None:
    """The file's text. In pieces: the kernel refuses to fill a huge buffer from some of its tables."""
    pieces: list[bytes] = []
    try:
        with path.open("rb", buffering=0) as file:
            while len(pieces) < MOST_PIECES and (piece := file.read(PIECE_BYTES)):
                pieces.append(piece)
    except OSError:
        return None
    return b"".join(pieces).decode("utf-8", "replace")


def _groups(controller: str) -> list[Path]:
    """This process's control group and those above it: in the unified hierarchy (v2), and the controller's own (v1)."""
    paths = _read(table.CGROUP) or {}
    roots = [(CGROUP_ROOT, paths.get("")), (CGROUP_ROOT / "unified", paths.get(""))]
    roots.append((CGROUP_ROOT / controller, paths.get(controller)))
    found = []
    for root, path in roots:
        place = root / path.lstrip("/") if path is not None else None
        while place is not None and place.is_relative_to(root):
            found.append(place)
            place = place.parent
    return found


def _value(place: Path, names: Sequence[str], parse: Callable[[str], Seen | None]) -> Seen | None:
    """What the first of these files in a control group says, None when none says anything."""
    for name in names:
        text = _text(place / name)
        if text is not None:
            return parse(text)
    return None


def _cores() -> int | None:
    try:
        allowed = len(os.sched_getaffinity(0))
    except OSError:
        return None
    quotas = []
    for group in _groups("cpu"):
        quota, period = (
            _value(group, ["cpu.cfs_quota_us"], parse_bytes),
            _value(group, ["cpu.cfs_period_us"], parse_bytes),
        )
        quotas.append(_value(group, ["cpu.max"], parse_cpu_max))
        quotas.append(quota / period if quota and period else None)
    return cores_usable(allowed, tuple(quota for quota in quotas if quota is not None))


def _memory() -> Memory:
    """The machine's memory, or less where a control group sets a limit."""
    machine = _read(table.MEMORY) or Memory(total_bytes=None, available_bytes=None)
    groups = []
    for group in _groups("memory"):
        limit = _value(group, ["memory.max", "memory.limit_in_bytes"], parse_bytes)
        if limit is None:
            continue
        used = _value(group, ["memory.current", "memory.usage_in_bytes"], parse_bytes)
        cached = _value(group, ["memory.stat"], parse_reclaimable) or 0
        available = None if used is None else max(0, limit - max(0, used - cached))
        groups.append(Memory(total_bytes=limit, available_bytes=available))
    return tightest((machine, *groups))


def _open_files() -> int | None:
    limit = look_system.limit(resource.RLIMIT_NOFILE)
    return limit if limit is not None else _read(table.OPEN_FILES)


def _disk(path: str, mounts: tuple[Mount, ...]) -> Disk | None:
    """The file system that holds the path, or would hold it once it is made."""
    place = Path(os.path.realpath(path))
    for candidate in (place, *place.parents):
        try:
            seen = os.statvfs(candidate)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        kind = kind_of(str(candidate), mounts)
        return Disk(
            path=path,
            kind=kind,
            total_bytes=seen.f_blocks * seen.f_frsize,
            free_bytes=seen.f_bavail * seen.f_frsize,
        )
    return None


def _listeners() -> tuple[Listener, ...] | None:
    tables = [_read(fact) for fact in table.TCP]
    if tables[0] is None:
        return None
    return tuple(listener for found in tables for listener in found or ())


def _holders(listeners: Iterable[Listener], wanted: frozenset[int]) -> tuple[PortHolder, ...]:
    every = sorted(set(listeners), key=lambda one: (one.port, one.address, one.inode))
    owners = _owners({listener.inode for listener in every if listener.port in wanted})
    return tuple(
        PortHolder(
            address=listener.address,
            port=listener.port,
            pid=owners.get(listener.inode),
            command=_command(owners.get(listener.inode)),
        )
        for listener in every
    )


def _owners(inodes: set[int]) -> dict[int, int]:
    """Inode → pid, looking through the process table only as long as a holder is missing."""
    owners: dict[int, int] = {}
    for entry in os.listdir("/proc") if inodes else ():
        if not entry.isdigit():
            continue
        for inode in (_socket_inodes(int(entry)) or set()) & inodes:
            owners.setdefault(inode, int(entry))
        if len(owners) == len(inodes):
            break
    return owners


def _socket_inodes(pid: int) -> set[int] | None:
    directory = f"/proc/{pid}/fd"
    found = set()
    try:
        descriptors = os.listdir(directory)
    except OSError:
        return None
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{directory}/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def _command(pid: int | None) -> str | None:
    """The process's name (not its arguments, which may hold secrets)."""
    text = None if pid is None else _text(Path(f"/proc/{pid}/comm"))
    return text.strip() or None if text else None


def _free_ports(listeners: Iterable[Listener], count: int, paths: Sequence[str]) -> tuple[int, ...]:
    """They begin at another place for each state directory: an engine may bind its port a minute after it was chosen,
    and two deployments of one host would meet at the first ones.
    """
    taken = {listener.port for listener in listeners}
    first = zlib.crc32(paths[0].encode()) % len(PORTS) if paths else 0
    found: list[int] = []
    for port in (*PORTS[first:], *PORTS[:first]):
        if len(found) == count:
            break
        if port not in taken and _can_bind(port):
            found.append(port)
    return tuple(found)


def _can_bind(port: int) -> bool:
    """Also false for a port that is bound and not listening, or kept back by the kernel."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno not in (errno.EADDRINUSE, errno.EACCES)
    return True
