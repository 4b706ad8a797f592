"""Looks at what the kernel and the C library say of this host beyond processor and memory. Cheap: a few small files."""

from __future__ import annotations

import ctypes
import os
import resource

from gonogo.facts.host import NumaNode, SharedMemory
from gonogo.facts.parse_sysfs import (
    BlockDevice,
    block_device,
    clock_kept,
    parse_node_list,
    parse_node_memory,
)
from gonogo.facts.parse_system import UNLIMITED_BYTES

SHARED_MEMORY = "/dev/shm"  # noqa: S108 (the place itself is what is looked at)
NODES = "/sys/devices/system/node"
BLOCK = "/sys/block"
LONGEST_FILE = 65536
STRUCT_TIMEX_BYTES, STATUS_AT = 256, 40
"""`struct timex` of 64-bit Linux has 208 bytes; `status` follows five words of 8 bytes."""


def glibc_version() -> str | None:
    """The C library's version; None where it is another library."""
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None
    return told.removeprefix("glibc ") if told and told.startswith("glibc ") else None


def limit(which: int) -> int | None:
    """A soft limit of this process (`resource.RLIMIT_…`), a huge number where there is none; None: not readable."""
    try:
        soft, _ = resource.getrlimit(which)
    except (OSError, ValueError):
        return None
    return UNLIMITED_BYTES if soft == resource.RLIM_INFINITY else soft


def shared_memory() -> SharedMemory | None:
    """Size and free space of /dev/shm."""
    try:
        seen = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return SharedMemory(total_bytes=seen.f_blocks * seen.f_frsize, free_bytes=seen.f_bavail * seen.f_frsize)


def numa_nodes() -> tuple[NumaNode, ...] | None:
    """The nodes that are there, each with its memory."""
    online = parse_node_list(_text(f"{NODES}/online") or "")
    if online is None:
        return None
    memories = ((index, _text(f"{NODES}/node{index}/meminfo")) for index in online)
    return tuple(NumaNode(index=index, memory_bytes=parse_node_memory(text or "")) for index, text in memories)


def block_devices() -> tuple[BlockDevice, ...] | None:
    """The disks of this machine, without partitions and without what is no disk of its own."""
    try:
        names = sorted(os.listdir(BLOCK))
    except OSError:
        return None
    found = (
        block_device(name, _text(f"{BLOCK}/{name}/size") or "", _text(f"{BLOCK}/{name}/queue/rotational"))
        for name in names
    )
    return tuple(one for one in found if one is not None)


def clock_is_kept() -> bool | None:
    """Whether the kernel says that somebody keeps its clock right (adjtimex; reads only, needs no rights)."""
    buffer = ctypes.create_string_buffer(STRUCT_TIMEX_BYTES)
    try:
        returned = ctypes.CDLL(None).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    return clock_kept(returned, int.from_bytes(buffer.raw[STATUS_AT : STATUS_AT + 4], "little"))


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(LONGEST_FILE)
    except OSError:
        return None
