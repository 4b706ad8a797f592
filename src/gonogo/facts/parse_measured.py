"""Reads the lines of a measuring runner: JSON objects with a step, a result or a problem. Never raises."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Mapping

from gonogo.facts.measured import AcceleratorMeasured, CpuMeasured, LinkMeasured, StorageMeasured

Line = Mapping[str, Any]
LONGEST_LINE, MOST_DEVICES = 1_000_000, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorsMeasured:
    """What torch measured, and which torch."""

    torch_version: str | None
    nccl_version: str | None
    accelerators: tuple[AcceleratorMeasured, ...]
    links: tuple[LinkMeasured, ...]


def parse_line(text: str) -> Line | None:
    """One line of a runner; None: it is none of ours (a library's warning)."""
    if len(text) > LONGEST_LINE:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.keys() & {"step", "result", "problem"} else None


def cpu_measured(result: Line) -> CpuMeasured | None:
    """The result of `runners.measure_cpu`; None when it is not one."""
    threads = _whole(result.get("threads"))
    if threads is None:
        return None
    return CpuMeasured(
        threads=threads,
        flops_f32=_number(result.get("flops_f32")),
        copy_bytes_per_s=_number(result.get("copy_bytes_per_s")),
        add_bytes_per_s=_number(result.get("add_bytes_per_s")),
        array_bytes=_whole(result.get("array_bytes")),
    )


def storage_measured(tier: str, path: str, result: Line) -> StorageMeasured:
    """The result of `runners.measure_storage` for this tier."""
    cache = result.get("cache")
    return StorageMeasured(
        tier=tier,
        path=path,
        cache=cache if cache in ("direct", "dropped", "in_memory") else None,
        file_bytes=_whole(result.get("file_bytes")),
        write_bytes_per_s=_number(result.get("write_bytes_per_s")),
        sequential_bytes_per_s=_number(result.get("sequential_bytes_per_s")),
        random_reads_per_s=_number(result.get("random_reads_per_s")),
        readers=_whole(result.get("readers")),
        read_latency_s=_number(result.get("read_latency_s")),
    )


def accelerators_measured(result: Line) -> AcceleratorsMeasured:
    """The result of `runners.measure_accelerators`; what is not of its form is left out."""
    cards, links = result.get("accelerators"), result.get("links")
    found = [_card(one) for one in (cards if isinstance(cards, list) else [])[:MOST_DEVICES]]
    joined = [_link(one) for one in (links if isinstance(links, list) else [])[: MOST_DEVICES**2]]
    return AcceleratorsMeasured(
        torch_version=_text(result.get("torch_version")),
        nccl_version=_text(result.get("nccl_version")),
        accelerators=tuple(one for one in found if one is not None),
        links=tuple(one for one in joined if one is not None),
    )


def _card(one: Any) -> AcceleratorMeasured | None:
    index = _whole(one.get("index")) if isinstance(one, dict) else None
    if index is None:
        return None
    return AcceleratorMeasured(
        index=index,
        name=_text(one.get("name")) or "?",
        flops_fp16=_number(one.get("flops_fp16")),
        flops_bf16=_number(one.get("flops_bf16")),
        copy_bytes_per_s=_number(one.get("copy_bytes_per_s")),
        problem=_text(one.get("problem")),
    )


def _link(one: Any) -> LinkMeasured | None:
    if not isinstance(one, dict):
        return None
    first, second, speed = _whole(one.get("first")), _whole(one.get("second")), _number(one.get("bytes_per_s"))
    if first is None or second is None or speed is None:
        return None
    direct = one.get("direct")
    return LinkMeasured(
        first=first, second=second, bytes_per_s=speed, direct=direct if isinstance(direct, bool) else None
    )


def _number(value: Any) -> float | None:
    """A speed: positive and finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: Any) -> str | None:
    return value[:300] if isinstance(value, str) and value else None
