"""Does each GPU do what cards of its class do? Asked only after it was measured. Pure.

It advises; where a profile has wishes for GPUs, it blocks like them. A figure that the table of classes lacks is not
judged. Processor, memory and disks have no data sheet here: they are shown, and a profile may wish for their speed.
"""

from __future__ import annotations

from functools import partial
from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.facts.accelerator import AcceleratorLink
from gonogo.facts.accelerator_class import accelerator_class
from gonogo.facts.host import HostFacts
from gonogo.facts.measured import NO_TORCH, AcceleratorMeasured, LinkMeasured
from gonogo.facts.world import World
from gonogo.spec import Revision
from gonogo.spec.profile import MEASURED_PERCENT, Profile

TERA, GIGA = 10**12, 10**9
NVLINK_BYTES_PER_S = 14 * GIGA
"""One NVLink one way, of the slowest that has them (GA102: 14.06 GB/s); data-centre cards have 25 and more."""


def measured_as_its_class(percent: int, _: Revision, world: World) -> Iterator[Finding]:
    """Does each GPU, and each NVLink between two, reach this part of what its class has on paper?"""
    host = world.host
    measured = host.measured if host is not None else None
    if host is None or measured is None:
        yield Finding(reason="NotMeasured", verdict=Verdict.UNKNOWN, subject="accelerators/measured")
        return
    if measured.accelerators is None:
        problem = measured.accelerators_problem
        values: dict[str, Value] = {"why": problem} if problem == NO_TORCH else {"error": problem}
        yield Finding(reason="NotMeasured", verdict=Verdict.UNKNOWN, subject="accelerators/measured", values=values)
        return
    if not measured.accelerators:
        why: dict[str, Value] = {"why": "NoAccelerator"}
        yield Finding(
            reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject="accelerators/measured", values=why
        )
        return
    for card in measured.accelerators:
        yield _card(card, percent)
    for link in measured.links:
        yield from _link(link, host, percent)


def _card(card: AcceleratorMeasured, percent: int) -> Finding:
    known = accelerator_class(card.name)
    flops = max((speed for speed in (card.flops_fp16, card.flops_bf16) if speed is not None), default=None)
    values: dict[str, Value] = {
        "index": card.index,
        "name": card.name,
        "tflops": None if flops is None else round(flops / TERA, 1),
        "gb_s": None if card.copy_bytes_per_s is None else round(card.copy_bytes_per_s / GIGA),
        "percent": percent,
    }
    subject = f"accelerator/{card.index}/measured"
    if flops is None or card.copy_bytes_per_s is None:
        values["error"] = card.problem
        return Finding(reason="NotMeasured", verdict=Verdict.UNKNOWN, subject=subject, values=values)
    if known is None or (known.flops_fp16 is None and known.memory_bytes_per_s is None):
        return Finding(reason="MeasuredClassUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
    sheet = ((flops, known.flops_fp16), (card.copy_bytes_per_s, known.memory_bytes_per_s))
    parts = [seen / paper for seen, paper in sheet if paper is not None]
    values |= {
        "class_tflops": None if known.flops_fp16 is None else round(known.flops_fp16 / TERA, 1),
        "class_gb_s": None if known.memory_bytes_per_s is None else round(known.memory_bytes_per_s / GIGA),
        "reached": int(100 * min(parts)),
    }
    enough = min(parts) >= percent / 100
    return Finding(
        reason="MeasuredAsItsClass" if enough else "MeasuredBelowItsClass",
        verdict=Verdict.PASS if enough else Verdict.FAIL,
        subject=subject,
        values=values,
    )


def _link(link: LinkMeasured, host: HostFacts, percent: int) -> Iterator[Finding]:
    """Only NVLink is judged: what a PCIe path can do depends on bridges that nobody lists."""
    path = _path(link, host)
    if path is None or path.nvlinks is None:
        return
    wanted = path.nvlinks * NVLINK_BYTES_PER_S * percent / 100
    values: dict[str, Value] = {
        "first": link.first,
        "second": link.second,
        "gb_s": round(link.bytes_per_s / GIGA, 1),
        "nvlinks": path.nvlinks,
        "wanted_gb_s": round(wanted / GIGA),
    }
    enough = link.bytes_per_s >= wanted
    yield Finding(
        reason="LinkAsItsKind" if enough else "LinkBelowItsKind",
        verdict=Verdict.PASS if enough else Verdict.FAIL,
        subject=f"accelerator/{link.first}/to/{link.second}",
        values=values,
    )


def _path(link: LinkMeasured, host: HostFacts) -> AcceleratorLink | None:
    pair = tuple(sorted((link.first, link.second)))
    return next((one for one in host.accelerator_links or () if (one.first, one.second) == pair), None)


def measured_check(profile: Profile) -> Check:
    """The check of what was measured; with a profile that wishes for GPUs it blocks."""
    wishes = profile.accelerators
    return Check(
        name="measured_as_its_class",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=wishes is not None,
        reasons=(
            *("MeasuredAsItsClass", "MeasuredBelowItsClass", "MeasuredClassUnknown", "NotMeasured"),
            *("LinkAsItsKind", "LinkBelowItsKind"),
        ),
        ask=partial(measured_as_its_class, MEASURED_PERCENT if wishes is None else wishes.measured_percent),
    )
