"""Reads the kernel's own tables: os-release, cpuinfo, meminfo, control groups, mounts, limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping

KIB = 1024
UNLIMITED_BYTES = 1 << 60
"""cgroup v1 writes "no limit" as a number near 2^63."""
ASKED_FOR = frozenset(
    [
        *("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
        *("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
        *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
    ]
)
"""Of the instruction sets that a CPU lists, those that engines are built for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The CPU's name, and those of its instruction sets that engines ask for, sorted."""

    model: str | None
    instruction_sets: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of memory in all, and those that can be had without swapping."""

    total_bytes: int | None
    available_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mounted file system: where, and of what kind."""

    path: str
    kind: str


def parse_os_release(text: str) -> str | None:
    """The name that a person reads: PRETTY_NAME, or NAME and VERSION."""
    fields = dict(re.findall(r"""^([A-Z_]+)=["']?(.*?)["']?$""", text, re.MULTILINE))
    return fields.get("PRETTY_NAME") or " ".join(filter(None, (fields.get("NAME"), fields.get("VERSION")))) or None


def parse_os_id(text: str) -> tuple[str, str] | None:
    """ID and VERSION_ID, like `("ubuntu", "22.04")`; None where either is missing (rolling releases have none)."""
    fields = dict(re.findall(r"""^([A-Z_]+)=["']?(.*?)["']?$""", text, re.MULTILINE))
    name, version = fields.get("ID"), fields.get("VERSION_ID")
    return (name, version) if name and version else None


def parse_boot_id(text: str) -> str | None:
    """The kernel's id of this boot."""
    found = re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text.strip())
    return found.group() if found else None


def parse_cpuinfo(text: str) -> Cpu:
    """x86 (`model name`, `flags`) and Arm (`CPU part`, `Features`), of the first processor."""
    fields: dict[str, str] = {}
    for name, value in re.findall(r"^([^\t:\n]+?)[ \t]*:[ \t]*(.*)$", text, re.MULTILINE):
        fields.setdefault(name.strip(), value.strip())
    model = fields.get("model name") or fields.get("Model")
    if model is None and "CPU implementer" in fields:
        model = f"Arm implementer {fields['CPU implementer']} part {fields.get('CPU part', 'unknown')}"
    flags = fields.get("flags", fields.get("Features"))
    sets = None if flags is None else tuple(sorted(ASKED_FOR & set(flags.split())))
    return Cpu(model=model, instruction_sets=sets)


def parse_meminfo(text: str) -> Memory:
    """MemTotal and MemAvailable (kernels before 3.14 have none)."""
    numbers = {name: int(value) * KIB for name, value in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    return Memory(total_bytes=numbers.get("MemTotal"), available_bytes=numbers.get("MemAvailable"))


def parse_cgroup_paths(text: str) -> Mapping[str, str]:
    """Controller → path of this process's control group; the unified (v2) hierarchy has the key ``""``."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, separator, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if separator and second:
            paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def parse_cpu_max(text: str) -> float | None:
    """cores from cgroup v2's `cpu.max` (`QUOTA PERIOD` or `max PERIOD`); None: no limit, or not readable."""
    fields = text.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields) or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1])


def parse_bytes(text: str) -> int | None:
    """A control group's number of bytes; None: `max`, v1's "no limit", or not readable."""
    number = text.strip()
    return int(number) if number.isdigit() and int(number) < UNLIMITED_BYTES else None


def parse_reclaimable(text: str) -> int | None:
    """Bytes of file cache in `memory.stat` that the kernel gives back when asked."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", text, re.MULTILINE)
    return int(found.group(1)) if found else None


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """The mounted file systems of `mountinfo`, later ones over earlier ones."""
    found = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if separator and len(fields) >= 5 and rest[0]:
            path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), fields[4])
            found.append(Mount(path=path, kind=rest[0]))
    return tuple(found)


def kind_of(path: str, mounts: tuple[Mount, ...]) -> str | None:
    """The kind of file system that holds an absolute path: that of the longest mount point above it."""
    above = [mount for mount in mounts if path == mount.path or path.startswith(mount.path.rstrip("/") + "/")]
    longest = max((len(mount.path) for mount in above), default=0)
    return next((mount.kind for mount in reversed(above) if len(mount.path) == longest), None)


def parse_limits(text: str) -> int | None:
    """How many files this process may open (the soft limit); None: not readable."""
    found = re.search(r"^Max open files +(\d+|unlimited) ", text, re.MULTILINE)
    if found is None:
        return None
    return UNLIMITED_BYTES if found.group(1) == "unlimited" else int(found.group(1))


def tightest(limits: tuple[Memory, ...]) -> Memory:
    """The memory that is left when all of these hold at once; what none of them knows stays unknown."""
    totals = [limit.total_bytes for limit in limits if limit.total_bytes is not None]
    available = [limit.available_bytes for limit in limits if limit.available_bytes is not None]
    return Memory(total_bytes=min(totals, default=None), available_bytes=min(available, default=None))


def cores_usable(allowed: int, quotas: tuple[float, ...]) -> int:
    """Cores this process may use: those it is allowed to run on, or the tightest quota, rounded down, at least one."""
    return max(1, min([allowed, *(int(quota) for quota in quotas)]))
