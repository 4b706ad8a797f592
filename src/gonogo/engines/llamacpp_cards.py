"""llama.cpp on one card: it takes what it needs, no share; the cache grows with the slots that are asked for. Pure.

All layers are on the card; the table of words stays on the host. Not here: the buffers themselves (`llamacpp_memory`).
"""

from __future__ import annotations

from typing import Mapping, Sequence

from gonogo.engines.llamacpp_memory import LlamaMemory, memory_of, weights_of
from gonogo.engines.llamacpp_names import shape_of
from gonogo.engines.llamacpp_settings import LlamaSettings
from gonogo.engines.llamacpp_shape import GgufShape
from gonogo.engines.memory import Term
from gonogo.engines.replica_memory import Pool, RankMemory, ReplicaMemory
from gonogo.engines.serving import Device, Serving
from gonogo.facts.architecture import Architecture
from gonogo.facts.weights import Group

CARD, CACHE = "device 0", ("kv_cache", "recurrent_state", "indexer_cache")
CONTEXT_BYTES = 512 * 1024**2
"""Taken by the driver's context, as on cards of other engines."""
MOST_SLOTS = 16
PROJECTOR_BYTES_PER_WEIGHT = 2
"""An image projector's file is F16: 1.66 GB for GLM-4.1V's 0.892 B (Open-AutoGLM issue 230)."""


def replica_memory(model: Architecture, groups: Sequence[Group], serving: Serving, device: Device) -> ReplicaMemory:
    """One server on one such card. Raises ValueError for a model or a quantization that is not planned for."""
    del groups  # a GGUF file's tensors are quantized one by one, by llama.cpp's own rules
    shape = shape_of(model)
    weights = weights_of(shape, serving.gguf or "F16")
    projector = model.vision.parameters * PROJECTOR_BYTES_PER_WEIGHT if model.vision is not None else 0
    one = _memory(shape, weights, serving.context_tokens, 1, projector)
    free = device.total_bytes - CONTEXT_BYTES if device.free_bytes is None else device.free_bytes
    request = sum(one.bytes_of(name, CARD) for name in CACHE)
    terms = tuple(placed.term for placed in one.placed if placed.place == CARD and placed.term.name not in CACHE)
    cache = free - sum(term.size_bytes for term in terms)
    rank = RankMemory(stage=0, budget_bytes=free, free_bytes=free, terms=_named(terms), cache_bytes=cache)
    if request <= 0:
        return ReplicaMemory(ranks=(rank,), pool=None, sequences=MOST_SLOTS)
    slots = min(MOST_SLOTS, int(max(0, cache) // request))
    while slots > 1 and _memory(shape, weights, serving.context_tokens, slots, projector).bytes_of(place=CARD) > free:
        slots -= 1  # more slots take larger compute buffers, too
    held = float(slots) if slots else max(0, cache) / request
    tokens = int(held * serving.context_tokens)
    pool = Pool(tokens=tokens, requests=held, request_bytes=request)
    return ReplicaMemory(ranks=(rank,), pool=pool, sequences=MOST_SLOTS)


def planned(model: Architecture) -> bool:
    """Whether llama.cpp is planned for this architecture."""
    try:
        shape_of(model)
    except ValueError:
        return False
    return True


def _memory(
    shape: GgufShape, weights: Mapping[str, int], context_tokens: int, slots: int, projector: int
) -> LlamaMemory:
    settings = LlamaSettings(
        context_tokens=context_tokens * slots, sequences=slots, offloaded=None, projector_bytes=projector
    )
    return memory_of(shape, weights, settings)


def _named(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Each kind of buffer once."""
    sums: dict[str, Term] = {}
    for term in terms:
        before = sums.get(term.name)
        size = term.size_bytes + (before.size_bytes if before is not None else 0)
        sums[term.name] = Term(name=term.name, size_bytes=size, source=before.source if before else term.source)
    return tuple(sums.values())
