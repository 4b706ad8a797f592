"""What was seen of one host. `None` everywhere means "not observed", never "none there"."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One GPU as its driver reports it. `partitioned`: in MIG mode, so that it cannot be used as a whole."""

    index: int
    name: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    partitioned: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system that holds one path of ours."""

    path: str
    kind: str | None
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PortHolder:
    """Somebody listening on a TCP port. `pid` and `command` are None when the holder is another user's."""

    address: str
    port: int
    pid: int | None
    command: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One program or package that a deployment needs: the version it printed, or the error it gave instead."""

    name: str
    version: str | None
    error: str | None
    wanted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """One host. Memory in bytes; `cores` are those this process may use (affinity, cgroup quota rounded down)."""

    name: str
    boot_id: str | None = None
    os_name: str | None = None
    kernel: str | None = None
    machine: str | None = None
    python: str | None = None
    cpu_model: str | None = None
    cores: int | None = None
    instruction_sets: tuple[str, ...] | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    open_files_limit: int | None = None
    disks: tuple[Disk, ...] | None = None
    listening: tuple[PortHolder, ...] | None = None
    free_ports: tuple[int, ...] | None = None
    accelerators: tuple[Accelerator, ...] | None = None
    installed: tuple[Installed, ...] | None = None
    clock_jump_s: float | None = None
