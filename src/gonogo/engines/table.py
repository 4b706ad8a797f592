"""The table of engines: one line each. A new engine is one file beside this one and one line here."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Mapping

from gonogo.engines.asked import (
    EXTERNAL,
    LLAMACPP,
    SGLANG,
    VLLM,
    VLLM_CPU,
    capacity_on,
    cards_of_replica,
    cpu_memory,
    engine_name,
    settings_of,
)
from gonogo.engines.hardware import Hardware, HardwareError, hardware_here
from gonogo.engines.llamacpp import LlamaCpp
from gonogo.engines.memory import MemoryPlan
from gonogo.engines.model import Engine
from gonogo.engines.settings import EngineSettings, replica_plan
from gonogo.engines.sglang import SGLang
from gonogo.engines.vllm import Vllm
from gonogo.facts.host import HostFacts
from gonogo.facts.model import ModelFacts
from gonogo.spec import Spec

ENGINES: Mapping[str, Callable[[str, EngineSettings], Engine]] = {VLLM: Vllm, VLLM_CPU: Vllm, SGLANG: SGLang}
"""Engine name → its adapter, made with the Python that runs it on the replica's host, and with its settings.

llama.cpp is not among them: it takes what it needs from the spec and the model file, and its program is our own.
"""
EXTERNAL_LIMIT_S = 30.0
"""External replicas run already: so long may it take until the gateway has found one of them well."""


def engine_for(
    spec: Spec | None,
    interpreter: str = "python",
    model: ModelFacts | None = None,
    host: HostFacts | None = None,
    runner: str | None = None,
) -> Engine:
    """The engine that serves this spec; None asks for the default one, llama.cpp.

    `interpreter`: the path, on the replica's host, of the Python of the environment that holds the engine; `runner`:
    the path of our program for llama.cpp where that Python has no gonogo. Both matter for `launch` only, and so do
    `model` and `host`.
    """
    name = LLAMACPP if spec is None else engine_name(spec)
    if spec is None or name == LLAMACPP:
        return LlamaCpp(interpreter, runner)
    return ENGINES[name](interpreter, settings_of(spec, model, cards_here(host)))


def load_limit_s(spec: Spec) -> float:
    """Seconds that a replica may take from its start to its first token: the spec's, else the engine's."""
    if spec.external:
        return EXTERNAL_LIMIT_S
    own = spec.engine.load_limit_s if spec.engine is not None else None
    return own if own is not None else engine_for(spec).load_limit_s


def memory_of(spec: Spec, model: ModelFacts, host: HostFacts | None, replicas: int) -> MemoryPlan:
    """The memory of one of so many replicas: of its cards together, or of the host where it computes on the processor.

    Raises ValueError for a model that was not read, for cards that were not seen, for external replicas; ConfigError.
    """
    name = engine_name(spec)
    if name == EXTERNAL:
        raise ValueError("external replicas hold nothing of this host's memory")
    if name == LLAMACPP:
        return LlamaCpp().memory(spec, model, replicas)
    if not cards_of_replica(spec):
        return cpu_memory(spec, model)
    hardware = cards_here(host)
    if hardware is None:
        raise ValueError("no accelerators were seen that a plan can be made for")
    return replica_plan(settings_of(spec, model, hardware))


def cards_here(host: HostFacts | None) -> Hardware | None:
    """The accelerators of a host that a plan can be made for, as idle ones; None: none, or not observed.

    What is in use on them now is mostly held by replicas of ours: a plan of one of them must not depend on that.
    """
    try:
        return replace(hardware_here(host.accelerators if host is not None else None), free_bytes=None)
    except HardwareError:
        return None


__all__ = ["ENGINES", "capacity_on", "cards_here", "engine_for", "load_limit_s", "memory_of"]
