"""This host on a terminal: what was seen of it, and what was measured, one line each. Judges nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Iterator

from gonogo.api.report.facts import SHOWN_SETS
from gonogo.api.report.numbers import size
from gonogo.facts.measured import NO_TORCH

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.facts.accelerator import Accelerator
    from gonogo.facts.host import HostFacts, Installed, Tools
    from gonogo.facts.measured import AcceleratorMeasured, CpuMeasured, Measured, StorageMeasured
    from gonogo.facts.parse_sysfs import BlockDevice

GB, GIGA, TERA = 10**9, 1e9, 1e12
Row = tuple[str, str]


def print_host(session: Session, host: HostFacts) -> None:
    """The facts of this host, then what was measured."""
    _print(session, "host.title", list(_seen(session, host)))
    if host.measured is not None:
        _print(session, "host.measured", list(_measured(session, host.measured)))


def _print(session: Session, title: str, rows: list[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    session.line()
    session.out.print(session.told(title), style="bold", markup=False)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for label, value in rows:
        table.add_row(Text(f"   {label}", style="dim"), Text(value))
    session.out.print(table)


def _seen(session: Session, host: HostFacts) -> Iterator[Row]:
    def row(name: str, *values: str | None) -> Row:
        told = [value for value in values if value]
        return session.told(f"host.{name}"), " · ".join(told) or session.told("host.unseen")

    sets = [name for name in SHOWN_SETS if name in (host.instruction_sets or ())]
    nodes = len(host.numa_nodes) if host.numa_nodes is not None else None
    cores = session.told("host.cores", cores=host.cores, nodes=nodes) if host.cores is not None else None
    yield row(
        "system",
        host.os_name,
        f"Linux {host.kernel}" if host.kernel else None,
        f"glibc {host.glibc}" if host.glibc else None,
        f"Python {host.python}" if host.python else None,
    )
    yield row("processor", host.cpu_model or host.machine, cores, " ".join(sets) or None)
    yield row("memory", _memory(session, host), _shared(host))
    yield row("accelerators", *_accelerators(session, host))
    if host.accelerators:
        yield row("links", _links(host))
    disks = [f"{one.name} {one.size_bytes // GB} GB{f' ({one.kind})' if one.kind else ''}" for one in _disks(host)]
    yield row("disks", ", ".join(disks) or None)
    if host.tools is not None:
        yield row("tools", *_tools(session, host.tools))
    yield row("limits", _limits(session, host))


def _memory(session: Session, host: HostFacts) -> str | None:
    if host.memory_total_bytes is None:
        return None
    free, total = size(host.memory_available_bytes), size(host.memory_total_bytes)
    return session.told("host.memory_value", free=free, total=total)


def _shared(host: HostFacts) -> str | None:
    seen = host.shared_memory
    return f"/dev/shm {size(seen.total_bytes)}" if seen is not None else None  # noqa: S108 (a name to show)


def _accelerators(session: Session, host: HostFacts) -> Iterator[str]:
    cards, driver = host.accelerators, host.driver
    kinds = Counter((card.name, card.memory_total_bytes, card.compute_capability) for card in cards or ())
    for (name, memory, capability), count in kinds.items():
        parts = [size(memory) if memory is not None else None, f"sm {capability}" if capability else None]
        told = ", ".join(part for part in parts if part)
        yield f"{count} × {name}" + (f" ({told})" if told else "")
    if driver is not None and driver.version is not None:
        yield session.told("host.driver", version=driver.version, cuda=driver.cuda_version)
    if driver is not None and driver.trouble is not None:
        yield session.told("host.no_readings", words=driver.words)
    for other in host.others or ():
        yield f"{other.count} × {other.name} ({other.seen_by})"
    if cards == () and not host.others:
        yield session.told("host.none")


def _links(host: HostFacts) -> str | None:
    kinds = Counter(
        f"NVLink ×{one.nvlinks}" if one.nvlinks is not None else one.kind for one in host.accelerator_links or ()
    )
    first: Accelerator = (host.accelerators or ())[0]
    lanes = first.pcie
    slot = f"PCIe {lanes.most_generation} ×{lanes.width}" if lanes.most_generation and lanes.width else None
    return " · ".join([*(f"{count} × {kind}" for kind, count in kinds.items()), *([slot] if slot else [])]) or None


def _disks(host: HostFacts) -> tuple[BlockDevice, ...]:
    return (host.block_devices or ())[:8]


def _tools(session: Session, tools: Tools) -> Iterator[str]:
    engine = tools.container_engine
    if engine is None:
        yield session.told("host.no_tool", name="Docker")
    elif engine.running:
        yield f"{engine.name.capitalize()} {engine.server_version}"
    else:
        version = engine.client_version or ""
        yield session.told("host.not_running", name=f"{engine.name.capitalize()} {version}".strip())
    named = {"container_toolkit": tools.container_toolkit, "cuda_toolkit": tools.cuda_toolkit, "nccl": tools.nccl}
    for name, found in named.items():
        yield _tool(session, session.told(f"term.{name}"), found)


def _tool(session: Session, name: str, found: Installed | None) -> str:
    if found is None:
        return session.told("host.no_tool", name=name)
    return f"{name} {found.version or '?'}"


def _limits(session: Session, host: HostFacts) -> str:
    kept = {True: "host.clock_kept", False: "host.clock_free", None: "host.clock_unseen"}[host.clock_kept]
    values = {
        "files": _limit(host.open_files_limit),
        "locked": "∞" if (host.locked_memory_limit_bytes or 0) >= 1 << 60 else size(host.locked_memory_limit_bytes),
        "processes": _limit(host.processes_limit),
    }
    return session.told("host.limits_value", **values) + " · " + session.told(kept)


def _limit(value: int | None) -> str:
    if value is None:
        return "?"
    return "∞" if value >= 1 << 60 else f"{value:,}"


def _measured(session: Session, seen: Measured) -> Iterator[Row]:
    yield session.told("host.processor"), _cpu(session, seen.cpu, seen.cpu_problem)
    for tier in seen.storage:
        yield tier.tier, _storage(session, tier)
    for card in seen.accelerators or ():
        yield f"GPU {card.index}", _card(card)
    for link in seen.links:
        yield f"GPU {link.first} → {link.second}", f"{link.bytes_per_s / GIGA:,.1f} GB/s"
    if seen.accelerators is None:
        problem = seen.accelerators_problem
        words = session.told(f"why.{problem}") if problem == NO_TORCH else problem
        yield "GPU", session.told("host.not_measured", words=words)
    if seen.torch_version is not None:
        nccl = f", NCCL {seen.torch_nccl_version}" if seen.torch_nccl_version else ""
        yield "torch", f"{seen.torch_version}{nccl}"


def _cpu(session: Session, seen: CpuMeasured | None, problem: str | None) -> str:
    if seen is None or seen.flops_f32 is None or seen.copy_bytes_per_s is None or seen.add_bytes_per_s is None:
        return session.told("host.not_measured", words=problem)
    return session.told(
        "host.cpu_value",
        gflops=seen.flops_f32 / GIGA,
        threads=seen.threads,
        copy=seen.copy_bytes_per_s / GIGA,
        add=seen.add_bytes_per_s / GIGA,
    )


def _storage(session: Session, seen: StorageMeasured) -> str:
    if seen.problem is not None or seen.sequential_bytes_per_s is None or seen.random_reads_per_s is None:
        return session.told("host.not_measured", words=seen.problem)
    return session.told(
        "host.storage_value",
        path=seen.path,
        mb_s=seen.sequential_bytes_per_s / 1e6,
        reads=seen.random_reads_per_s,
        readers=seen.readers,
        latency_us=(seen.read_latency_s or 0) * 1e6,
        cache=session.told(f"host.cache_{seen.cache}"),
    )


def _card(seen: AcceleratorMeasured) -> str:
    parts = [
        None if seen.flops_fp16 is None else f"{seen.flops_fp16 / TERA:,.1f} TFLOPS FP16",
        None if seen.flops_bf16 is None else f"{seen.flops_bf16 / TERA:,.1f} TFLOPS BF16",
        None if seen.copy_bytes_per_s is None else f"{seen.copy_bytes_per_s / GIGA:,.0f} GB/s",
        seen.problem,
    ]
    return f"{seen.name}: " + ", ".join(part for part in parts if part)
