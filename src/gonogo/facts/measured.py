"""What was measured of a host, beside what it says of itself: speeds per second, each with how it was measured.

Bytes per second count every byte that was read or written, as STREAM does. None: not measured; `problem` says why.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuMeasured:
    """Floating-point operations of an f32 matrix product (numpy), and main memory (copy, add), by `threads` threads."""

    threads: int
    flops_f32: float | None = None
    copy_bytes_per_s: float | None = None
    add_bytes_per_s: float | None = None
    array_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageMeasured:
    """Reads from one storage tier. `cache` says how the page cache was kept out: `direct`, `dropped`, or `in_memory`.

    Random reads are of 4 KiB: `random_reads_per_s` by `readers` threads at once, `read_latency_s` one after the other.
    """

    tier: str
    path: str
    cache: str | None = None
    file_bytes: int | None = None
    write_bytes_per_s: float | None = None
    sequential_bytes_per_s: float | None = None
    random_reads_per_s: float | None = None
    readers: int | None = None
    read_latency_s: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorMeasured:
    """One GPU, by torch in an engine's environment: matrix products in FP16 and BF16, and its memory (copy)."""

    index: int
    name: str
    flops_fp16: float | None = None
    flops_bf16: float | None = None
    copy_bytes_per_s: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkMeasured:
    """A copy from GPU `first` to GPU `second`; `direct`: not by way of the host's memory (None: torch cannot say)."""

    first: int
    second: int
    bytes_per_s: float
    direct: bool | None = None


NO_TORCH = "NoTorch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of `gonogo check --measure`. `accelerators` None: not measured, and `accelerators_problem` says why.

    That is `NO_TORCH` where no Python was found that has torch, else words of the program or of torch.
    """

    at: float
    cpu: CpuMeasured | None = None
    cpu_problem: str | None = None
    storage: tuple[StorageMeasured, ...] = ()
    accelerators: tuple[AcceleratorMeasured, ...] | None = None
    links: tuple[LinkMeasured, ...] = ()
    torch_version: str | None = None
    torch_nccl_version: str | None = None
    accelerators_problem: str | None = None
