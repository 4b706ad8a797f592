"""How busy each GPU is, as `nvidia-smi --query-gpu` prints it: one line a card, fields between commas. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

MIB = 1024 * 1024
COMMAND = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw",
    "--format=csv,noheader,nounits",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilization:
    """One GPU now. `busy`: the share of the last second in which a kernel ran, 0 to 1. None: the driver does not say
    (MIG, unified memory)."""

    index: int
    uuid: str
    name: str
    busy: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_c: float | None
    power_w: float | None = None


def parse_utilization(text: str) -> tuple[Utilization, ...]:
    """The cards that were described; what is no such line is none."""
    found = []
    for line in text.splitlines()[:64]:
        fields = [field.strip() for field in line.split(",")]
        if len(fields) not in (7, 8) or not fields[0].isdecimal() or not fields[1].startswith("GPU-"):
            continue
        percent, used, total, celsius, watts = map(_number, [*fields[3:], ""][:5])
        found.append(
            Utilization(
                index=int(fields[0]),
                uuid=fields[1],
                name=fields[2],
                busy=None if percent is None else percent / 100,
                memory_used_bytes=None if used is None else int(used) * MIB,
                memory_total_bytes=None if total is None else int(total) * MIB,
                temperature_c=celsius,
                power_w=watts,
            )
        )
    return tuple(found)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII) else None
