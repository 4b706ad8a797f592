"""What was seen of one host. `None` everywhere means "not observed", never "none there"."""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.facts.accelerator import Accelerator, AcceleratorLink, Driver, OtherAccelerator
from gonogo.facts.measured import Measured
from gonogo.facts.parse_sysfs import BlockDevice
from gonogo.facts.parse_tools import ContainerEngine

__all__ = ["Accelerator", "Disk", "HostFacts", "Installed", "NumaNode", "PortHolder", "SharedMemory", "Tools"]


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
class SharedMemory:
    """The memory file system of POSIX shared memory: what processes of one replica pass between them lies there."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """One NUMA node and the memory that is its own."""

    index: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Programs around an engine. None: not there. An `Installed` with an error: there, and it gave no version."""

    container_engine: ContainerEngine | None = None
    container_toolkit: Installed | None = None
    cuda_toolkit: Installed | None = None
    nccl: Installed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """One host. Memory in bytes; `cores` are those this process may use (affinity, cgroup quota rounded down).

    `accelerators` are the GPUs whose driver answered: None is not known, () is none. `others` are cards by name only.
    `os_id` is like ("ubuntu", "22.04"). Limits count; `locked_memory_limit_bytes` is memory that may not be swapped.
    """

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
    os_id: tuple[str, str] | None = None
    glibc: str | None = None
    locked_memory_limit_bytes: int | None = None
    processes_limit: int | None = None
    shared_memory: SharedMemory | None = None
    numa_nodes: tuple[NumaNode, ...] | None = None
    block_devices: tuple[BlockDevice, ...] | None = None
    clock_kept: bool | None = None
    driver: Driver | None = None
    accelerator_links: tuple[AcceleratorLink, ...] | None = None
    others: tuple[OtherAccelerator, ...] | None = None
    tools: Tools | None = None
    measured: Measured | None = None
