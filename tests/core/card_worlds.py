"""Worlds with accelerators: a host's cards, a model known by its configuration, an environment that holds vLLM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gonogo.facts.accelerator import Accelerator
from gonogo.facts.accelerator import Health as CardHealth
from gonogo.facts.catalogue import known_model
from gonogo.facts.environment import EnvironmentMade
from gonogo.facts.host import HostFacts
from gonogo.facts.model import ModelFacts
from gonogo.facts.world import World
from gonogo.spec import Expect, Revision
from gonogo.spec.engine import EngineChoice
from tests.core import worlds

MIB = 1024**2
PHONE = "autoglm-phone-9b"
_KNOWN = known_model("zai-org/GLM-4.1V-9B-Thinking")
assert _KNOWN is not None
MODEL = ModelFacts(
    asked=PHONE,
    path="/models/phone",
    config=_KNOWN.config,
    architecture="glm4v",
    architecture_known=True,
    context_tokens=65536,
    chat_template="{{ messages }}",
)
MADE = EnvironmentMade(
    name="vllm-0.33.0-abc", engine="vllm", version="0.33.0", answered="0.33.0", lock="abc123", python="/e/bin/python"
)


def card(index: int, name: str = "NVIDIA H100 80GB HBM3", mib: int | None = 81559, **changes: Any) -> Accelerator:
    """One idle card."""
    total = None if mib is None else mib * MIB
    fields: dict[str, Any] = {"memory_total_bytes": total, "memory_used_bytes": 0, "memory_free_bytes": total}
    fields |= {"uuid": f"GPU-{index}", "partitioned": False, "compute_capability": "9.0", "health": CardHealth()}
    return Accelerator(index=index, name=name, **{**fields, **changes})


def small_card(index: int, **changes: Any) -> Accelerator:
    return card(index, "NVIDIA GeForce RTX 4090", 24564, compute_capability="8.9", **changes)


def host(*cards: Accelerator) -> HostFacts:
    return replace(worlds.HOST, accelerators=cards)


def world(*cards: Accelerator, **changes: Any) -> World:
    fields: dict[str, Any] = {"host": host(*cards), "models": {PHONE: MODEL}, "environments": {MADE.name: MADE}}
    return worlds.world(**{**fields, **changes})


def choice(**changes: Any) -> EngineChoice:
    fields: dict[str, Any] = {"name": "vllm", "version": "0.33.0", "environment": MADE.name, "share": 0.9}
    return EngineChoice(**{**fields, **changes})


def revision(number: int = 1, engine: EngineChoice | None = None, **changes: Any) -> Revision:
    """A service of the phone agent's model on vLLM, one replica, as it is asked here."""
    fields: dict[str, Any] = {
        "model": PHONE,
        "engine": engine or choice(),
        "replicas": worlds.Replicas(min=1, max=1),
        "expect": Expect(concurrent_requests=4, context_tokens=25480),
    }
    return worlds.revision(number, **{**fields, **changes})
