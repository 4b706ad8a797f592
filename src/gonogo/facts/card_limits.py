"""What an engine finds on a card: memory in all, as it prints it, multiprocessors, and arithmetic in 8 bit. Pure.

Keyed by `AcceleratorClass.name`. Memory is what engines printed in logs; where no log was found it is the class times
the smallest share seen on a card of its kind, and `printed` is False: a plan there is a little pessimistic.
Multiprocessors and 8-bit arithmetic: NVIDIA's architecture whitepapers and data sheets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class CardLimits:
    """`usable_gib`: of memory, before anything runs. `flops_8bit`: dense FP8 or INT8 per second, None: not sourced."""

    usable_gib: float
    printed: bool
    processors: int
    capability: tuple[int, int]
    flops_8bit: float | None

    @property
    def usable_bytes(self) -> int:
        return round(self.usable_gib * GIB)


def _card(usable_gib: float, processors: int, capability: tuple[int, int], tops: float | None) -> CardLimits:
    return CardLimits(
        usable_gib=usable_gib,
        printed=True,
        processors=processors,
        capability=capability,
        flops_8bit=None if tops is None else tops * 1e12,
    )


def _planned(usable_gib: float, processors: int, capability: tuple[int, int], tops: float | None) -> CardLimits:
    limits = _card(usable_gib, processors, capability, tops)
    return CardLimits(
        usable_gib=limits.usable_gib,
        printed=False,
        processors=processors,
        capability=capability,
        flops_8bit=limits.flops_8bit,
    )


CARD_LIMITS: Mapping[str, CardLimits] = {
    "A100 40GB SXM": _card(39.557, 108, (8, 0), 624),
    "A100 80GB SXM": _card(79.25, 108, (8, 0), 624),
    "A100 80GB PCIe": _planned(79.0, 108, (8, 0), 624),
    "H100 SXM 80GB": _card(79.19, 132, (9, 0), 1978),
    "H100 PCIe 80GB": _planned(79.0, 114, (9, 0), 1513),
    "H200 SXM 141GB": _card(139.81, 132, (9, 0), 1978),
    "B200 SXM": _card(178.353, 148, (10, 0), 4500),
    "GB200": _planned(183.0, 148, (10, 0), 5000),
    "L40S": _card(44.39, 142, (8, 9), 733),
    "L4": _card(22.161, 58, (8, 9), 242),
    "T4 16GB": _card(14.741, 40, (7, 5), None),
    "RTX PRO 6000 Blackwell Server": _planned(94.6, 188, (12, 0), 935.6),
    "H20 96GB": _planned(94.5, 78, (9, 0), 296),
    "H800 80GB": _planned(79.0, 132, (9, 0), None),
    "A10 24GB": _planned(22.0, 72, (8, 6), None),
    "RTX 4090 24GB": _card(23.53, 128, (8, 9), 661),
    "RTX 3090 24GB": _card(23.58, 82, (8, 6), None),
    "RTX 5090 32GB": _card(31.4, 170, (12, 0), None),
}
"""Cards that no engine here plans for (AMD, Ascend) are not in it."""
