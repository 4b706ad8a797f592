"""From what a spec asks of its engine to the settings that it is started with, and the plan of its memory. Pure.

A spec without `engine` is served by llama.cpp. What a deployed revision does not fix is as the engine has it: `gonogo
up` writes what it chose into the revision. Not here: choosing (`gonogo.plan.choose`).
"""

from __future__ import annotations

import math

from packaging.version import Version as PackageVersion

from gonogo.engines.capacity import Capacity, capacity_of, model_of
from gonogo.engines.hardware import Hardware
from gonogo.engines.memory import MemoryPlan, Term
from gonogo.engines.planners import PLANNERS, Planner
from gonogo.engines.serving import Serving, Version
from gonogo.engines.settings import EngineSettings, half_on_old_cards
from gonogo.engines.vllm_cache import token_bytes
from gonogo.facts.architecture import Scheme
from gonogo.facts.model import ModelFacts
from gonogo.facts.parse_config import parse_config
from gonogo.spec import Spec
from gonogo.spec.engine import EngineChoice, KvCache
from gonogo.spec.recipe import Recipe
from gonogo.spec.recipe_parts import EngineNeeds
from gonogo.spec.recipes import recipe_of_hub_id, recipes
from gonogo.spec.vision_tokens import FAMILIES, most_tokens

LLAMACPP, VLLM, VLLM_CPU, SGLANG = "llama.cpp", "vllm", "vllm-cpu", "sglang"
EXTERNAL = "external"
"""What serves a spec of external replicas: some OpenAI-compatible server, nobody says which."""
ON_CARDS = (VLLM, SGLANG)
MIB = 1024**2
PAGE_TOKENS = 128
"""Tokens of one block of vLLM's cache on the processor (`platforms/cpu.py`, 0.32.0)."""
SPARE_PAGES = 16
DEFAULT_SEQUENCES = 16
CPU_RUNTIME_BYTES = 1500 * MIB
"""Beside weights and cache of 3 MiB two replicas of vLLM 0.32.0 (torch 2.13.0, x86_64) were resident with 1,478 and
1,481 MiB after their probes, 1,483 MiB after 150 requests of 8 clients: 423, 407 and 430 MiB of the server, EngineCore
and Worker each for itself, and 212 MiB of libraries that all three map."""
ENCODER_COPIED = ("--mm-encoder-tp-mode", "data")
"""vLLM's flag for an image encoder that each card holds whole."""


def engine_name(spec: Spec) -> str:
    """The engine that serves this spec."""
    if spec.external:
        return EXTERNAL
    return spec.engine.name if spec.engine is not None else LLAMACPP


def cards_of_replica(spec: Spec) -> int:
    """Accelerators that one replica takes; 0: it computes on the processor."""
    choice = spec.engine
    return choice.tensor * choice.pipeline if choice is not None and choice.name in ON_CARDS else 0


def recipe_of(spec: Spec) -> Recipe | None:
    """The recipe of a spec's model, by its own name or its hub id."""
    return recipes().get(spec.model) or (recipe_of_hub_id(spec.model) if spec.model.count("/") == 1 else None)


def needs_of(spec: Spec) -> EngineNeeds | None:
    """What the recipe says of this engine; None: no recipe, or it says nothing."""
    recipe = recipe_of(spec)
    return recipe.engines.get(_family(engine_name(spec))) if recipe is not None else None


def settings_of(spec: Spec, model: ModelFacts | None = None, hardware: Hardware | None = None) -> EngineSettings:
    """The settings of a spec whose engine is not llama.cpp. Raises ValueError for a spec that names none.

    With `model` also the cache of an engine on the processor; with `hardware` also the arithmetic of old cards and the
    plan of the memory.
    """
    choice = _choice(spec)
    serving = serving_of(spec)
    on_cards = choice.name in ON_CARDS
    planned = capacity_on(spec, model, hardware) if on_cards and model is not None and hardware is not None else None
    return EngineSettings(
        version=choice.version or _planner(choice).newest_text,
        serving=serving,
        needs=needs_of(spec),
        quantization=choice.quantization,
        dtype=half_on_old_cards(hardware.limits.capability) if on_cards and hardware is not None else None,
        planned=planned.memory if planned is not None else None,
        cache_bytes=None if on_cards else _cache_bytes(serving, model),
    )


def serving_of(spec: Spec) -> Serving:
    """What a spec asks of one replica, in the engine's own terms."""
    choice, recipe, needs = _choice(spec), recipe_of(spec), needs_of(spec)
    images = recipe.images if recipe is not None else None
    flags = [(flag.flag, flag.value) for flag in needs.flags] if needs is not None else []
    on_cards = choice.name in ON_CARDS
    return Serving(
        version=_version(choice),
        context_tokens=spec.expect.context_tokens,
        share=choice.share,
        sequences=choice.sequences or (None if on_cards else min(DEFAULT_SEQUENCES, spec.expect.concurrent_requests)),
        batch_tokens=choice.batch_tokens,
        tensor=choice.tensor,
        pipeline=choice.pipeline,
        kv_bytes=1.0 if choice.kv_cache is KvCache.FP8 else None,
        scheme=Scheme(method=choice.quantization, skipped=frozenset({"vision"})) if choice.quantization else None,
        image_tokens=most_tokens(FAMILIES[images.family], images.max_pixels) if images is not None else None,
        images=images.most_per_request if images is not None else None,
        encoder_copied=ENCODER_COPIED in flags,
        graphs=choice.graphs and on_cards,
    )


def capacity_on(spec: Spec, model: ModelFacts, hardware: Hardware) -> Capacity:
    """Whether one replica fits on idle cards of this kind, and for how many requests.

    Raises ConfigError for a configuration that cannot be read, ValueError for a model that has none.
    """
    if model.config is None:
        raise ValueError(f"no configuration was read of {model.asked!r}")
    planned = model_of(model.asked, model.config, model.tensors)
    return capacity_of(planned, _planner(_choice(spec)), hardware.device, serving_of(spec))


def cpu_memory(spec: Spec, model: ModelFacts) -> MemoryPlan:
    """The plan of one replica of vLLM on the processor. Raises ValueError for a model that was not read."""
    if model.tensors is None:
        raise ValueError(f"no tensors were read of {model.asked!r}")
    weights = sum(tensor.size_bytes for tensor in model.tensors)
    serving = serving_of(spec)
    return MemoryPlan(
        terms=(
            Term(name="weights", size_bytes=weights, source="the checkpoint's own tensors"),
            Term(
                name="kv_cache",
                size_bytes=_cache_bytes(serving, model),
                source=f"{_pages(serving) * PAGE_TOKENS:,} tokens in pages of 128; said to the engine in bytes",
            ),
            Term(
                name="runtime",
                size_bytes=CPU_RUNTIME_BYTES,
                source="measured on vLLM 0.32.0: Python and torch in its three processes, shared libraries once",
            ),
        )
    )


def _cache_bytes(serving: Serving, model: ModelFacts | None) -> int:
    """Of all sequences at their longest."""
    if model is None or model.config is None:
        return 0
    architecture = parse_config(model.config)
    per_token = token_bytes(architecture, serving.kv_bytes or architecture.dtype_bytes, 1)
    return max(PAGE_TOKENS, math.ceil(per_token * PAGE_TOKENS)) * _pages(serving)


def _pages(serving: Serving) -> int:
    return (serving.sequences or DEFAULT_SEQUENCES) * math.ceil(serving.context_tokens / PAGE_TOKENS) + SPARE_PAGES


def _choice(spec: Spec) -> EngineChoice:
    if spec.engine is None or spec.engine.name == LLAMACPP:
        raise ValueError(f"{spec.service} is served by llama.cpp, which has settings of its own")
    return spec.engine


def _family(name: str) -> str:
    """The engine that a build is of: vLLM's build for the processor takes vLLM's flags."""
    return VLLM if name == VLLM_CPU else name


def _planner(choice: EngineChoice) -> Planner:
    return PLANNERS[_family(choice.name)]


def _version(choice: EngineChoice) -> Version:
    if choice.version is None:
        return _planner(choice).newest
    read = PackageVersion(choice.version)
    return (*read.release, read.post) if read.post is not None else read.release
