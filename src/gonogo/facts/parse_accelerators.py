"""Reads what `nvidia-smi` prints. None: it did not answer about its GPUs. (): it answered that there is none."""

from __future__ import annotations

import csv

from gonogo.facts.host import Accelerator

MIB = 1024**2
COMMAND = (
    "nvidia-smi",
    "--query-gpu=index,name,memory.total,memory.used,mig.mode.current",
    "--format=csv,noheader,nounits",
)
NONE_THERE = "No devices were found"


def parse_accelerators(text: str) -> tuple[Accelerator, ...] | None:
    """One accelerator per line. A single line that is not one (an error, half a line) makes the whole unobserved."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and lines[0].strip().rstrip(".") == NONE_THERE:
        return ()
    found = []
    for line in lines:
        accelerator = _one(line)
        if accelerator is None:
            return None
        found.append(accelerator)
    return tuple(found) or None


def _one(line: str) -> Accelerator | None:
    try:
        fields = [field.strip() for field in next(csv.reader([line]))]
    except csv.Error:  # a NUL byte, on Python 3.10
        return None
    if len(fields) != 5 or not fields[0].isdigit() or not fields[1]:
        return None
    return Accelerator(
        index=int(fields[0]),
        name=fields[1],
        memory_total_bytes=_mebibytes(fields[2]),
        memory_used_bytes=_mebibytes(fields[3]),
        partitioned={"enabled": True, "disabled": False}.get(fields[4].lower()),
    )


def _mebibytes(field: str) -> int | None:
    """`[N/A]` (memory shared with the CPU, or MIG) and `[Unknown Error]` are not observed."""
    return int(field) * MIB if field.isdigit() else None
