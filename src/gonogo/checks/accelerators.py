"""Condition 1, hardware: how well the accelerators of this host are. They advise, whichever engine runs. Pure.

Not here: whether they are what was wished for (`profile`), and how fast they were measured to be (`measured`).
"""

from __future__ import annotations

from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.facts.accelerator import Accelerator
from gonogo.facts.host import HostFacts
from gonogo.facts.world import World
from gonogo.spec import Revision

MIB = 1024**2
HELD_BYTES = 256 * MIB
"""A process that holds less is a desktop's, and takes no room from a model."""
SHARED_MEMORY_NEEDED_BYTES = 1024 * MIB
"""NCCL and the processes of one replica pass buffers here; a container gets 64 MiB when nobody asks for more."""
NO_ACCELERATOR, UNSEEN = "NoAccelerator", "AcceleratorsUnseen"


def accelerators_well(_: Revision, world: World) -> Iterator[Finding]:
    """Does the driver answer, and is each GPU whole, free and without errors?"""
    host = world.host
    if host is None or (host.driver is None and not host.accelerators):
        yield _not_asked(host)
        return
    wrong = [*driver_trouble(host), *(one for card in host.accelerators or () for one in _of_card(card))]
    yield from wrong
    if wrong or not host.accelerators:
        return
    values: dict[str, Value] = {"count": len(host.accelerators), "name": host.accelerators[0].name}
    yield Finding(reason="AcceleratorsWell", verdict=Verdict.PASS, subject=f"host/{host.name}", values=values)


def driver_trouble(host: HostFacts) -> Iterator[Finding]:
    """What the driver's tool said instead of readings."""
    driver = host.driver
    if driver is None or driver.trouble is None:
        return
    values: dict[str, Value] = {"words": driver.words, "why": f"driver_{driver.trouble}"}
    yield Finding(reason="DriverTrouble", verdict=Verdict.UNKNOWN, subject="accelerators/driver", values=values)


def faults(card: Accelerator) -> Iterator[Finding]:
    """What makes a GPU unfit for work: it is lost, has a fault, or errors in its memory that were not corrected."""
    health, subject = card.health, f"accelerator/{card.index}"
    if health.trouble is not None:
        values: dict[str, Value] = {"index": card.index, "name": card.name, "words": health.trouble}
        yield Finding(reason="AcceleratorLost", verdict=Verdict.FAIL, subject=f"{subject}/driver", values=values)
    if health.recovery is not None:
        values = {"index": card.index, "name": card.name, "action": health.recovery}
        yield Finding(reason="AcceleratorFault", verdict=Verdict.FAIL, subject=f"{subject}/driver", values=values)
    if health.uncorrected_errors or health.remap_pending or health.remap_failed:
        state = "failed" if health.remap_failed else "pending" if health.remap_pending else None
        values = {
            "index": card.index,
            "name": card.name,
            "errors": health.uncorrected_errors or 0,
            "why": f"remap_{state}" if state else "remap_none",
        }
        yield Finding(reason="AcceleratorErrors", verdict=Verdict.FAIL, subject=f"{subject}/memory", values=values)


def _of_card(card: Accelerator) -> Iterator[Finding]:
    yield from faults(card)
    subject = f"accelerator/{card.index}"
    base: dict[str, Value] = {"index": card.index, "name": card.name}
    holders = [one for one in card.processes or () if (one.memory_bytes or 0) >= HELD_BYTES]
    if holders:
        named = ", ".join(f"{one.name} (pid {one.pid}) {(one.memory_bytes or 0) // MIB} MiB" for one in holders[:4])
        values: dict[str, Value] = {**base, "holders": named, "more": len(holders) - 4 if len(holders) > 4 else None}
        yield Finding(reason="AcceleratorHeld", verdict=Verdict.FAIL, subject=f"{subject}/processes", values=values)
    if card.partitioned:
        sizes = ", ".join(
            "?" if one.memory_total_bytes is None else f"{one.memory_total_bytes / 1024**3:.1f}"
            for one in card.slices or ()
        )
        values = {**base, "slices": len(card.slices or ()), "sizes": sizes or None}
        yield Finding(reason="AcceleratorPartitioned", verdict=Verdict.FAIL, subject=f"{subject}/mig", values=values)
    if card.health.slowdowns:
        values = {
            **base,
            "slowdowns": ", ".join(card.health.slowdowns),
            "temperature_c": None if card.health.temperature_c is None else round(card.health.temperature_c),
        }
        yield Finding(reason="AcceleratorThrottled", verdict=Verdict.FAIL, subject=f"{subject}/clock", values=values)


def shared_memory(_: Revision, world: World) -> Iterator[Finding]:
    """Is there room in /dev/shm for what the processes of a replica on GPUs pass between them?"""
    host = world.host
    if host is None or not host.accelerators:
        yield _not_asked(host)
        return
    seen = host.shared_memory
    if seen is None:
        yield Finding(reason="SharedMemoryUnknown", verdict=Verdict.UNKNOWN, subject=f"host/{host.name}")
        return
    enough = seen.total_bytes >= SHARED_MEMORY_NEEDED_BYTES
    yield Finding(
        reason="SharedMemoryEnough" if enough else "SharedMemorySmall",
        verdict=Verdict.PASS if enough else Verdict.FAIL,
        subject=f"host/{host.name}",
        values={"total_mib": seen.total_bytes // MIB, "needed_mib": SHARED_MEMORY_NEEDED_BYTES // MIB},
    )


def _not_asked(host: HostFacts | None) -> Finding:
    subject = "host/local" if host is None else f"host/{host.name}"
    none_there = host is not None and host.accelerators == ()
    why: dict[str, Value] = {"why": NO_ACCELERATOR if none_there else UNSEEN}
    return Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values=why)


CHECKS = (
    Check(
        name="accelerators_well",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT, Stage.LIVE),
        blocks=False,
        reasons=(
            "AcceleratorsWell",
            "DriverTrouble",
            "AcceleratorLost",
            "AcceleratorFault",
            "AcceleratorErrors",
            "AcceleratorHeld",
            "AcceleratorPartitioned",
            "AcceleratorThrottled",
        ),
        ask=accelerators_well,
    ),
    Check(
        name="shared_memory",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=False,
        reasons=("SharedMemoryEnough", "SharedMemorySmall", "SharedMemoryUnknown"),
        ask=shared_memory,
    ),
)
