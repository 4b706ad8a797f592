"""What a card can do by its data sheet, by the name that its driver prints: memory class, dense FP16, bandwidth.

A figure that nobody could source is None, never a guess; `source` says where the others come from. Dense figures:
what a data sheet gives "with sparsity" is halved. Not here: what a card was measured to do (`gonogo.facts.measured`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

GIB = 1024**3
COMMON_SIZES_GIB = (4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192, 288)
ROUNDING = 1.10
"""A driver reports up to a tenth less than the class of a card (ECC, firmware): 15.0 of 16 GiB, 45.0 of 48."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorClass:
    """One model of card. `nominal_gib` is its memory class; an "80 GB" card reports 79.2 GiB to an engine.

    `flops_fp16` is dense FP16/BF16 with tensor cores, per second; `link_bytes_per_s` one way between two cards.
    """

    name: str
    pattern: str
    nominal_gib: float
    flops_fp16: float | None
    memory_bytes_per_s: float | None
    compute_capability: str | None
    interconnect: str
    link_bytes_per_s: float | None
    source: str


def _card(  # noqa: PLR0913, PLR0917 (a row of the table; its columns stand in this order below)
    name: str,
    pattern: str,
    nominal_gib: float,
    tflops: float | None,
    bandwidth_gb_s: float | None,
    capability: str | None,
    interconnect: str,
    link_gb_s: float | None,
    source: str,
) -> AcceleratorClass:
    return AcceleratorClass(
        name=name,
        pattern=pattern,
        nominal_gib=nominal_gib,
        flops_fp16=None if tflops is None else tflops * 1e12,
        memory_bytes_per_s=None if bandwidth_gb_s is None else bandwidth_gb_s * 1e9,
        compute_capability=capability,
        interconnect=interconnect,
        link_bytes_per_s=None if link_gb_s is None else link_gb_s * 1e9,
        source=source,
    )


_AIC = "NVIDIA's aiconfigurator-core 0.12.0, systems/{}.yaml"
_AMPERE = "NVIDIA Ampere whitepaper, as cited by LLM-Viewer; NVLink: aiconfigurator-core 0.12.0"
CLASSES: tuple[AcceleratorClass, ...] = (
    _card("A100 40GB SXM", r"A100-SXM4-40GB", 40, 312, 1555, "8.0", "NVLink3", 300, _AMPERE),
    _card("A100 80GB SXM", r"A100-SXM4-80GB", 80, 312, 2039, "8.0", "NVLink3", 300, _AIC.format("a100_sxm")),
    _card("A100 80GB PCIe", r"A100 80GB PCIe", 80, 312, 1935, "8.0", "PCIe4", 32, _AIC.format("a100_pcie")),
    _card("H100 SXM 80GB", r"H100 80GB HBM3", 80, 989, 3350, "9.0", "NVLink4", 450, _AIC.format("h100_sxm")),
    _card("H100 PCIe 80GB", r"H100 PCIe", 80, 756.5, 2000, "9.0", "PCIe5", 64, _AIC.format("h100_pcie")),
    _card("H200 SXM 141GB", r"H200", 141, 989, 4800, "9.0", "NVLink4", 450, _AIC.format("h200_sxm")),
    _card("B200 SXM", r"B200", 180, 2250, 7700, "10.0", "NVLink5", 900, _AIC.format("b200_sxm")),
    _card("GB200", r"GB200", 185, 2500, 8000, "10.0", "NVLink5", 900, _AIC.format("gb200")),
    _card("L40S", r"L40S", 45, 362.05, 864, "8.9", "PCIe4", 32, _AIC.format("l40s")),
    _card("L4", r"L4", 24, 121, 300, "8.9", "PCIe4", 32, _AIC.format("l4")),
    _card("T4 16GB", r"T4", 16, 65, 320, "7.5", "PCIe3", 16, "NVIDIA T4 data sheet: 65 TFLOPS FP16, 320 GB/s"),
    _card(
        *("RTX PRO 6000 Blackwell Server", r"RTX PRO 6000 Blackwell Server Edition", 95.6, 467.8, 1792, "12.0"),
        *("PCIe5", 64, _AIC.format("rtx_pro_6000_server")),
    ),
    _card("H20 96GB", r"H20", 96, 148, 4000, "9.0", "NVLink", None, "huggingface.co/hardware/h20; 4.0 TB/s"),
    _card("H800 80GB", r"H800", 80, None, None, "9.0", "NVLink", None, "huggingface.co/hardware/h800: memory only"),
    _card("A10 24GB", r"A10G?", 24, None, 600, "8.6", "PCIe4", None, "RajBhope/gpu-runtime-predictor, A10G"),
    _card(
        *("RTX 4090 24GB", r"GeForce RTX 4090", 24, 330.5, 1008, "8.9", "PCIe4", None),
        "Tom's Hardware, RTX 5090 versus 4090: 1008 GB/s, 661 TFLOPS with sparsity, halved",
    ),
    _card(
        *("RTX 3090 24GB", r"GeForce RTX 3090", 24, None, 936.2, "8.6", "PCIe4", None),
        "384 bit of GDDR6X at 1219 MHz (Lambda's gpu_specs.csv)",
    ),
    _card(
        *("RTX 5090 32GB", r"GeForce RTX 5090", 32, None, 1792, "12.0", "PCIe5", None),
        "Linux Format, May 2025: 1,792 GB/s; its 838 TFLOPS are not dense",
    ),
    _card(
        *("MI300X 192GB", r"AMD Instinct MI300X.*", 192, 1307, 5300, None, "Infinity Fabric", None),
        "llmbook.apartsin.com, appendix G.1; MLPerf 4.1 system file 8xMI300X",
    ),
    _card(
        *("Ascend 910B (64GB class)", r"(Ascend )?910B\S*", 64, None, None, None, "HCCS", None),
        "61.27 GiB in logs of vllm-ascend; public pages disagree on its speed",
    ),
)
"""The pattern is the driver's name without `NVIDIA `, whole: `H100 NVL` and `RTX 4090 Laptop GPU` are other cards."""


def accelerator_class(name: str) -> AcceleratorClass | None:
    """The class of the card that a driver (or rocm-smi, npu-smi) calls `name`; None: none that is known."""
    plain = re.sub(r"^(NVIDIA|Tesla) ", "", name.strip())
    return next((one for one in CLASSES if re.fullmatch(one.pattern, plain)), None)


def nominal_gib(name: str, memory_total_bytes: int | None) -> float | None:
    """The memory class of a card: by its name; else the next common size, if what is reported is just below it.

    None where the driver reports no memory of its own and the name is not known.
    """
    known = accelerator_class(name)
    if known is not None:
        return known.nominal_gib
    if memory_total_bytes is None:
        return None
    seen = memory_total_bytes / GIB
    above = next((size for size in COMMON_SIZES_GIB if seen <= size <= seen * ROUNDING), None)
    return float(above if above is not None else math.ceil(seen))
