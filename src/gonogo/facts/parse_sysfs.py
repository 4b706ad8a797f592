"""Reads what /sys and the kernel say of a host: PCI devices, NUMA nodes, disks, whether the clock is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gonogo.facts.accelerator import OtherAccelerator
from gonogo.facts.parse_system import KIB

NVIDIA = "NVIDIA"
MAKERS = {"0x10de": NVIDIA, "0x1002": "AMD", "0x19e5": "Ascend"}
"""PCI vendor ids of those who make accelerators that an engine may need. The PCI ID Repository; Huawei is 0x19e5."""
CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")
"""PCI base and sub class: VGA, 3D and other display controllers, processing accelerators."""
UNSYNCHRONISED = 0x0040
"""STA_UNSYNC of adjtimex(2): set by the kernel until, and whenever, nobody corrects the clock."""
SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """The three files of one directory of /sys/bus/pci/devices."""

    vendor: str
    device: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """One disk. `kind`: nvme, ssd (does not rotate), hdd, or None where the kernel does not say; size in bytes."""

    name: str
    kind: str | None
    size_bytes: int


def accelerators_on_bus(devices: tuple[PciDevice, ...]) -> tuple[OtherAccelerator, ...]:
    """Accelerators by maker and device id; whoever makes something else is left out."""
    found: dict[tuple[str, str], int] = {}
    for one in devices:
        maker = MAKERS.get(one.vendor.strip().lower())
        if maker is not None and one.kind.strip().lower()[:6] in CLASSES:
            key = (maker, one.device.strip().lower())
            found[key] = found.get(key, 0) + 1
    return tuple(
        OtherAccelerator(maker=maker, name=f"{maker} {device}", count=count, seen_by="PCI bus")
        for (maker, device), count in sorted(found.items())
    )


def parse_node_list(text: str) -> tuple[int, ...] | None:
    """`0-1,3` of /sys/devices/system/node/online; None when it is no list."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part, re.ASCII)
        if found is None:
            return None
        low, high = int(found.group(1)), int(found.group(2) or found.group(1))
        numbers.extend(range(low, high + 1))
    return tuple(numbers)


def parse_node_memory(text: str) -> int | None:
    """Bytes of `Node 0 MemTotal:  131929124 kB` in a node's meminfo."""
    found = re.search(r"MemTotal:\s+(\d{1,15}) kB", text)
    return int(found.group(1)) * KIB if found else None


def block_device(name: str, size_text: str, rotational_text: str | None) -> BlockDevice | None:
    """A disk from /sys/block, whose `size` counts sectors of 512 bytes on every disk; None: no disk of its own.

    A virtual disk (virtio, Xen) says "rotates" whatever lies below it: its kind is not known.
    """
    if re.match(r"(loop|ram|zram|sr|fd|dm-|md|nbd)", name) or not size_text.strip().isdigit():
        return None
    kinds = {"0": "ssd", "1": "hdd"}
    kind = kinds.get((rotational_text or "").strip()) if not name.startswith(("vd", "xvd")) else None
    kind = "nvme" if name.startswith("nvme") else kind
    size = int(size_text) * SECTOR_BYTES
    return BlockDevice(name=name, kind=kind, size_bytes=size) if size else None


def clock_kept(returned: int, status: int) -> bool | None:
    """Whether somebody keeps the clock right, of what adjtimex(2) gave back; None when it could not be asked."""
    return None if returned < 0 else not status & UNSYNCHRONISED
