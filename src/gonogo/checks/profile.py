"""Is this host what a profile wishes? Asked only where a profile was chosen, and then it blocks. Pure.

The profile reaches these checks when they are made (`gonogo.checks.catalogue.of_host`), and lies neither in the World,
which holds what was seen, nor in the Revision, which holds what a service is: it is the wish of whoever asks.
"""

from __future__ import annotations

from functools import partial
from typing import Iterator, Sequence

from gonogo.checks.accelerators import driver_trouble, faults
from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.facts.accelerator import Accelerator
from gonogo.facts.accelerator_class import GIB, accelerator_class, nominal_gib
from gonogo.facts.host import HostFacts
from gonogo.facts.parse_sysfs import NVIDIA
from gonogo.facts.world import World
from gonogo.spec import Revision
from gonogo.spec.profile import AcceleratorWishes, Profile, TierWishes

GB, TERA = 10**9, 10**12
NOTHING_WISHED = "NothingWished"
TIERS = ("hot", "warm", "cold")


def accelerators_as_asked(profile: Profile, _: Revision, world: World) -> Iterator[Finding]:
    """Are there enough GPUs, each of the class that was asked for, and none with a fault?"""
    wishes, host = profile.accelerators, world.host
    if wishes is None:
        yield nothing_wished()
        return
    if host is None or host.accelerators is None:
        yield from _unseen(host)
        return
    yield _count(wishes, host)
    cards = host.accelerators
    if cards and wishes.memory_gb is not None:
        yield _memory(wishes.memory_gb, cards)
    if cards and wishes.fp16_tflops is not None:
        yield from _speed(wishes.fp16_tflops, cards)
    yield from (one for card in cards for one in faults(card))


def _unseen(host: HostFacts | None) -> Iterator[Finding]:
    trouble = list(driver_trouble(host)) if host is not None else []
    yield from trouble
    if not trouble:
        yield Finding(reason="AcceleratorsUnknown", verdict=Verdict.UNKNOWN, subject="accelerators/count")


def _count(wishes: AcceleratorWishes, host: HostFacts) -> Finding:
    cards = host.accelerators or ()
    values: dict[str, Value] = {"count": len(cards), "wanted": wishes.count, "name": cards[0].name if cards else None}
    others = [one for one in host.others or () if one.maker != NVIDIA]
    if not cards and others:
        values["others"] = ", ".join(f"{one.count} × {one.name} ({one.seen_by})" for one in others)
        reason, verdict = "AcceleratorsOfAnotherMaker", Verdict.FAIL
    elif len(cards) < wishes.count:
        reason, verdict = "AcceleratorsTooFew", Verdict.FAIL
    else:
        reason, verdict = "AcceleratorsEnough", Verdict.PASS
    return Finding(reason=reason, verdict=verdict, subject="accelerators/count", values=values)


def _memory(wanted_gb: int, cards: Sequence[Accelerator]) -> Finding:
    """The smallest card decides. Its class is by its name where that is known, else what it reports, rounded up."""
    known = [(nominal_gib(card.name, card.memory_total_bytes), card) for card in cards]
    sized = [(size, card) for size, card in known if size is not None]
    unsized = [card for size, card in known if size is None]
    subject = "accelerators/memory"
    if unsized:
        values: dict[str, Value] = {"index": unsized[0].index, "name": unsized[0].name, "wanted_gb": wanted_gb}
        return Finding(reason="AcceleratorMemoryUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
    size, card = min(sized, key=lambda one: one[0])
    total = card.memory_total_bytes
    values = {
        "index": card.index,
        "name": card.name,
        "class_gb": round(size),
        "reported_gib": None if total is None else round(total / GIB, 1),
        "wanted_gb": wanted_gb,
    }
    enough = size >= wanted_gb
    return Finding(
        reason="AcceleratorMemoryEnough" if enough else "AcceleratorMemoryTooSmall",
        verdict=Verdict.PASS if enough else Verdict.FAIL,
        subject=subject,
        values=values,
    )


def _speed(wanted_tflops: int, cards: Sequence[Accelerator]) -> Iterator[Finding]:
    """Each kind of card once: exactly what was asked for is enough (an A100 has 312)."""
    for name in dict.fromkeys(card.name for card in cards):
        index = next(card.index for card in cards if card.name == name)
        known = accelerator_class(name)
        values: dict[str, Value] = {"name": name, "wanted_tflops": wanted_tflops}
        subject = f"accelerator/{index}/speed"
        if known is None or known.flops_fp16 is None:
            yield Finding(reason="AcceleratorClassUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
            continue
        enough = known.flops_fp16 >= wanted_tflops * TERA
        yield Finding(
            reason="AcceleratorSpeedEnough" if enough else "AcceleratorTooSlow",
            verdict=Verdict.PASS if enough else Verdict.FAIL,
            subject=subject,
            values={**values, "tflops": round(known.flops_fp16 / TERA, 1), "source": known.source},
        )


def storage_as_asked(profile: Profile, _: Revision, world: World) -> Iterator[Finding]:
    """Is there as much NVMe as was asked for, and is each tier as fast?"""
    storage, found = profile.storage, []
    if storage.nvme_gb is not None:
        found.append(_nvme(storage.nvme_gb, world.host))
    for tier in TIERS:
        wishes: TierWishes | None = getattr(storage, tier)
        if wishes is not None and (wishes.sequential_mb_s is not None or wishes.random_reads_per_s is not None):
            found.append(_tier(tier, wishes, world.host))
    yield from found or [nothing_wished()]


def _nvme(wanted_gb: int, host: HostFacts | None) -> Finding:
    """Disks of a kind that the kernel does not tell may be NVMe below: too few known ones are then not known to be."""
    disks = host.block_devices if host is not None else None
    size = sum(disk.size_bytes for disk in disks or () if disk.kind == "nvme")
    values: dict[str, Value] = {"nvme_gb": size // GB, "wanted_gb": wanted_gb}
    values["disks"] = ", ".join(f"{one.name} {one.size_bytes // GB} GB" for one in (disks or ())[:6]) or None
    if size >= wanted_gb * GB:
        reason, verdict = "NvmeEnough", Verdict.PASS
    elif disks is None or any(disk.kind is None for disk in disks):
        reason, verdict = "NvmeUnknown", Verdict.UNKNOWN
    else:
        reason, verdict = "NvmeTooSmall", Verdict.FAIL
    return Finding(reason=reason, verdict=verdict, subject="storage/nvme", values=values)


def _tier(tier: str, wishes: TierWishes, host: HostFacts | None) -> Finding:
    measured = host.measured if host is not None else None
    seen = next((one for one in measured.storage if one.tier == tier), None) if measured is not None else None
    values: dict[str, Value] = {
        "tier": tier,
        "path": wishes.path,
        "wanted_mb_s": wishes.sequential_mb_s,
        "wanted_reads": wishes.random_reads_per_s,
    }
    subject = f"storage/{tier}"
    if seen is None or seen.problem is not None:
        values["error"] = seen.problem if seen is not None else None
        return Finding(reason="TierNotMeasured", verdict=Verdict.UNKNOWN, subject=subject, values=values)
    megabytes, reads = (seen.sequential_bytes_per_s or 0) / 1e6, seen.random_reads_per_s or 0
    values |= {"mb_s": round(megabytes), "reads": round(reads)}
    enough = megabytes >= (wishes.sequential_mb_s or 0) and reads >= (wishes.random_reads_per_s or 0)
    return Finding(
        reason="TierFastEnough" if enough else "TierTooSlow",
        verdict=Verdict.PASS if enough else Verdict.FAIL,
        subject=subject,
        values=values,
    )


def nothing_wished() -> Finding:
    """The answer of a check that a profile has no wish for."""
    why: dict[str, Value] = {"why": NOTHING_WISHED}
    return Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject="host/local", values=why)


def accelerators_check(profile: Profile) -> Check:
    """The check that asks this profile's wishes of the GPUs."""
    return Check(
        name="accelerators_as_asked",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=(
            *("AcceleratorsEnough", "AcceleratorsTooFew", "AcceleratorsOfAnotherMaker", "AcceleratorsUnknown"),
            *("AcceleratorMemoryEnough", "AcceleratorMemoryTooSmall", "AcceleratorMemoryUnknown"),
            *("AcceleratorSpeedEnough", "AcceleratorTooSlow", "AcceleratorClassUnknown"),
            *("DriverTrouble", "AcceleratorLost", "AcceleratorFault", "AcceleratorErrors"),
        ),
        ask=partial(accelerators_as_asked, profile),
    )


def storage_check(profile: Profile) -> Check:
    """The check that asks this profile's wishes of the storage."""
    return Check(
        name="storage_as_asked",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("NvmeEnough", "NvmeTooSmall", "NvmeUnknown", "TierFastEnough", "TierTooSlow", "TierNotMeasured"),
        ask=partial(storage_as_asked, profile),
    )
