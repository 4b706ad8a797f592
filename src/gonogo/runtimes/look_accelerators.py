"""Looks for accelerators: asks NVIDIA's driver, names the cards of other makers. Slow: it starts processes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from glob import glob
from typing import Sequence, TypeVar

from gonogo.facts import table
from gonogo.facts.accelerator import Accelerator, AcceleratorLink, Driver, OtherAccelerator
from gonogo.facts.driver_trouble import CLOSED, NO_TOOL, SILENT, UNREADABLE, words_of
from gonogo.facts.fact import Fact
from gonogo.facts.parse_accelerators import with_capabilities
from gonogo.facts.parse_sysfs import NVIDIA, PciDevice, accelerators_on_bus
from gonogo.facts.parse_utilization import Utilization
from gonogo.runtimes.ask import ask

Seen = TypeVar("Seen")
PCI = "/sys/bus/pci/devices"
NODES = {NVIDIA: "/dev/nvidia[0-9]*", "Ascend": "/dev/davinci[0-9]*"}
"""Device files of accelerators that sit on no PCI bus of this system's own (Jetson, containers)."""
MOST_DEVICES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorsSeen:
    """The fields of `HostFacts` that are about accelerators."""

    driver: Driver | None
    accelerators: tuple[Accelerator, ...] | None
    links: tuple[AcceleratorLink, ...] | None
    others: tuple[OtherAccelerator, ...] | None


def look_at_accelerators() -> AcceleratorsSeen:
    """What the driver's own tool says (waiting at most 30 s in all), and what else is there by name.

    No tool, and no such card on the bus: there is none. No tool although there is a card, a tool that finds no device
    although the bus has one (its device file cannot be opened), or one that does not answer: not known, with its words.
    """
    on_bus = _on_bus()
    others = _others(on_bus)
    command = table.ACCELERATORS.command
    there = [one for one in (*(on_bus or ()), *_by_node()) if one.maker == NVIDIA]
    if shutil.which(command[0]) is None:
        if on_bus is not None and not there:
            return AcceleratorsSeen(driver=None, accelerators=(), links=None, others=others)
        driver = _but_there(NO_TOOL, f"{command[0]} is not on the search path", there) if there else None
        return AcceleratorsSeen(driver=driver, accelerators=None, links=None, others=others)
    answer = ask(command, table.ACCELERATORS.timeout_s)
    if answer.problem is not None:
        kind = SILENT if answer.silent else UNREADABLE
        driver = Driver(trouble=kind, words=answer.problem)
        return AcceleratorsSeen(driver=driver, accelerators=None, links=None, others=others)
    seen = table.ACCELERATORS.parse(answer.text)
    found = seen.accelerators
    on_bus_too = [one for one in on_bus or () if one.maker == NVIDIA]
    if found == () and seen.driver.version is None and on_bus_too:
        driver = _but_there(CLOSED, words_of(answer.text), on_bus_too)
        return AcceleratorsSeen(driver=driver, accelerators=None, links=None, others=others)
    if found:
        found = with_capabilities(found, _asked(table.CAPABILITIES) or {})
    links = _asked(table.TOPOLOGY) if found is not None and len(found) > 1 else None
    return AcceleratorsSeen(driver=seen.driver, accelerators=found, links=links, others=others)


def look_at_utilization() -> tuple[Utilization, ...]:
    """How busy the GPUs are now; () where nobody says. Waits at most 5 s."""
    if shutil.which(table.UTILIZATION.command[0]) is None:
        return ()
    return _asked(table.UTILIZATION) or ()


def _but_there(trouble: str, words: str, there: Sequence[OtherAccelerator]) -> Driver:
    """What the tool said, and the card that is there all the same."""
    one = there[0]
    return Driver(trouble=trouble, words=f"{words}; there is {one.count} × {one.name} ({one.seen_by})")


def _asked(fact: Fact[Seen]) -> Seen | None:
    answer = ask(fact.command, fact.timeout_s)
    return fact.parse(answer.text) if answer.problem is None else None


def _others(on_bus: tuple[OtherAccelerator, ...] | None) -> tuple[OtherAccelerator, ...] | None:
    """Cards of AMD and Ascend by the name that their own tool gives them, else by what the bus shows."""
    named: dict[str, tuple[OtherAccelerator, ...]] = {}
    for fact in (*table.AMD, table.ASCEND):
        if shutil.which(fact.command[0]) is not None:
            for one in _asked(fact) or ():
                named.setdefault(one.maker, (one,))
    for one in (*(on_bus or ()), *_by_node()):
        if one.maker != NVIDIA:
            named.setdefault(one.maker, (one,))
    if not named and on_bus is None:
        return None
    return tuple(one for found in named.values() for one in found)


def _by_node() -> tuple[OtherAccelerator, ...]:
    found = ((maker, len(glob(pattern)), pattern) for maker, pattern in NODES.items())
    return tuple(
        OtherAccelerator(maker=maker, name=f"{maker} device", count=count, seen_by=pattern.partition("[")[0])
        for maker, count, pattern in found
        if count
    )


def _on_bus() -> tuple[OtherAccelerator, ...] | None:
    """None: the bus cannot be looked at. A system without a PCI bus has nothing on it."""
    try:
        names = sorted(os.listdir(PCI))[:MOST_DEVICES] if os.path.isdir(PCI) or not os.path.isdir("/sys/bus") else []
    except OSError:
        return None
    devices = [_device(f"{PCI}/{name}") for name in names]
    return accelerators_on_bus(tuple(device for device in devices if device is not None))


def _device(folder: str) -> PciDevice | None:
    texts = []
    for name in ("vendor", "device", "class"):
        try:
            with open(f"{folder}/{name}", encoding="ascii", errors="replace") as file:
                texts.append(words_of(file.read(64)))
        except OSError:
            return None
    return PciDevice(vendor=texts[0], device=texts[1], kind=texts[2])
