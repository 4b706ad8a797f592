"""What was seen of accelerators: each GPU, the driver below them, how two of them are joined, other makers' cards.

Not here: what a class of card can do by its data sheet (`accelerator_class`), and what one really did (`measured`).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorProcess:
    """A process that holds memory of a GPU. `memory_bytes` None: the driver does not say (another user's, WSL)."""

    pid: int
    name: str
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorSlice:
    """One MIG instance of a GPU."""

    index: int
    memory_total_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a GPU's driver says of its health. Uncorrected errors are counted since the driver was loaded.

    `slowdowns` are why the hardware holds the clock down now: idling and the power limit are not among them. `trouble`
    holds the driver's own words where it gives an error instead of readings ("GPU is lost"). `recovery`: what the
    driver asks for after a fault ("Reset", "Reboot"), None: nothing, or an older driver, which does not say.
    """

    ecc_enabled: bool | None = None
    uncorrected_errors: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    slowdowns: tuple[str, ...] | None = None
    temperature_c: float | None = None
    power_limit_w: float | None = None
    persistence: bool | None = None
    recovery: str | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PcieLink:
    """A GPU's own link: what it runs at now (an idle card steps down) and the most that both ends can do."""

    generation: int | None = None
    width: int | None = None
    most_generation: int | None = None
    most_width: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One GPU as its driver reports it. `partitioned`: in MIG mode, so that it cannot be used as a whole.

    Memory is None where the driver has none of its own to report (GB10, Jetson: shared with the CPU).
    """

    index: int
    name: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    partitioned: bool | None = None
    memory_free_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    uuid: str | None = None
    bus: str | None = None
    compute_capability: str | None = None
    slices: tuple[AcceleratorSlice, ...] | None = None
    processes: tuple[AcceleratorProcess, ...] | None = None
    health: Health = field(default_factory=Health)
    pcie: PcieLink = field(default_factory=PcieLink)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The GPU driver. `cuda_version` is the newest CUDA that it runs, which is not the toolkit that is installed.

    `trouble` is the kind of failure (a word of `gonogo.facts.driver_trouble`), `words` what the tool itself said.
    """

    version: str | None = None
    cuda_version: str | None = None
    trouble: str | None = None
    words: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorLink:
    """How GPU `first` and GPU `second` are joined. `kind`: NVLink, or the worst of the path (PIX PXB PHB NODE SYS).

    `nvlinks` is how many NVLinks are bonded; None where the path is no NVLink.
    """

    first: int
    second: int
    kind: str
    nvlinks: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherAccelerator:
    """Cards of a maker whose driver is not asked for readings: named, never guessed at.

    `name` is what the maker's own tool, or the PCI bus, calls them; `seen_by` is where that stands.
    """

    maker: str
    name: str
    count: int
    seen_by: str
