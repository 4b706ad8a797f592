"""Condition 1, hardware: memory, cores, instruction sets, disk. Pure."""

from __future__ import annotations

from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.checks.room import away, memory_held, others
from gonogo.engines.asked import LLAMACPP, cards_of_replica, engine_name
from gonogo.engines.size import replicas_wanted
from gonogo.engines.table import memory_of
from gonogo.facts.world import World
from gonogo.spec import Revision

GIB, MIB = 1024**3, 1024**2
NEEDED_INSTRUCTIONS = {"x86_64": ("avx2", "fma", "f16c")}
"""What the engine's wheel was compiled for, by machine; without them it dies with SIGILL at the first token."""
DISK_NEEDED_BYTES = 128 * MIB
"""The database, its log, and two generations of every log file."""


def memory_fits(revision: Revision, world: World) -> Iterator[Finding]:
    """Do all replicas fit into the memory that is available, with what they hold already counted in?"""
    subject = f"service/{revision.service}"
    model = world.model_of(revision.spec)
    available = world.host.memory_available_bytes if world.host else None
    if model is not None and model.problem is not None:  # `model_readable` says why; this question does not arise
        why = {"why": "model_readable"}
        yield Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values=why)
        return
    if cards_of_replica(revision.spec):
        why = {"why": "cards_fit"}
        yield Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values=why)
        return
    if model is None or available is None:
        yield Finding(reason="MemoryUnknown", verdict=Verdict.UNKNOWN, subject=subject)
        return
    replicas = replicas_wanted(revision, world)
    plan = memory_of(revision.spec, model, world.host, replicas)
    beside = others(revision, world)
    held = memory_held([one for one in world.replicas or () if one.name.service == revision.service]) - memory_held(
        beside
    )
    need = plan.total_bytes * replicas
    values: dict[str, Value] = {
        "needed_gib": round(need / GIB, 2),
        "available_gib": round((available + held) / GIB, 2),
        "replicas": replicas,
        "terms": " + ".join(f"{term.name} {term.size_bytes / MIB:.0f}" for term in plan.terms),
    }
    if need <= available + held:
        yield Finding(reason="MemoryFits", verdict=Verdict.PASS, subject=subject, values=values)
    elif need <= available + held + memory_held(beside):
        values |= {"held_gib": round(memory_held(beside) / GIB, 2), **away(beside)}
        yield Finding(reason="NoRoomBeside", verdict=Verdict.FAIL, subject=subject, values=values)
    else:
        yield Finding(reason="MemoryTooSmall", verdict=Verdict.FAIL, subject=subject, values=values)


def cores_enough(revision: Revision, world: World) -> Iterator[Finding]:
    """Does each replica get a core of its own?"""
    host = world.host
    if host is None or host.cores is None:
        yield Finding(reason="CoresUnknown", verdict=Verdict.UNKNOWN, subject="host/local")
        return
    replicas = replicas_wanted(revision, world)
    values = {"cores": host.cores, "replicas": replicas, "threads": max(1, host.cores // replicas)}
    fits = replicas <= host.cores
    yield Finding(
        reason="CoresEnough" if fits else "CoresTooFew",
        verdict=Verdict.PASS if fits else Verdict.FAIL,
        subject=f"host/{host.name}",
        values=values,
    )


def cpu_can_run_engine(revision: Revision, world: World) -> Iterator[Finding]:
    """Has the CPU the instruction sets that the engine was built for?"""
    if engine_name(revision.spec) != LLAMACPP:
        why = {"why": "engine_environment"}
        yield Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject="host/local", values=why)
        return
    host = world.host
    if host is None or host.instruction_sets is None or host.machine is None:
        yield Finding(reason="CpuUnknown", verdict=Verdict.UNKNOWN, subject="host/local")
        return
    missing = [name for name in NEEDED_INSTRUCTIONS.get(host.machine, ()) if name not in host.instruction_sets]
    values = {"cpu": host.cpu_model or host.machine, "missing": ", ".join(missing)}
    yield Finding(
        reason="CpuTooOld" if missing else "CpuSupported",
        verdict=Verdict.FAIL if missing else Verdict.PASS,
        subject=f"host/{host.name}",
        values=values,
    )


def disk_space(_: Revision, world: World) -> Iterator[Finding]:
    """Is there room for the state: database, events, logs?"""
    disks = world.host.disks if world.host else None
    state = world.state.path if world.state else None
    disk = next((disk for disk in disks or () if disk.path == state), None)
    if disk is None:
        yield Finding(reason="DiskUnknown", verdict=Verdict.UNKNOWN, subject="host/local", values={"path": state})
        return
    values: dict[str, Value] = {
        "path": disk.path,
        "free_mib": disk.free_bytes // MIB,
        "needed_mib": DISK_NEEDED_BYTES // MIB,
    }
    enough = disk.free_bytes >= DISK_NEEDED_BYTES
    yield Finding(
        reason="DiskSpaceEnough" if enough else "DiskTooFull",
        verdict=Verdict.PASS if enough else Verdict.FAIL,
        subject=f"disk{disk.path}",
        values=values,
    )


CHECKS = (
    Check(
        name="memory_fits",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("MemoryFits", "MemoryTooSmall", "NoRoomBeside", "MemoryUnknown"),
        ask=memory_fits,
    ),
    Check(
        name="cores_enough",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=False,
        reasons=("CoresEnough", "CoresTooFew", "CoresUnknown"),
        ask=cores_enough,
    ),
    Check(
        name="cpu_can_run_engine",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("CpuSupported", "CpuTooOld", "CpuUnknown"),
        ask=cpu_can_run_engine,
    ),
    Check(
        name="disk_space",
        condition=Condition.HARDWARE,
        stages=(Stage.PREFLIGHT, Stage.LIVE),
        blocks=True,
        reasons=("DiskSpaceEnough", "DiskTooFull", "DiskUnknown"),
        ask=disk_space,
    ),
)
