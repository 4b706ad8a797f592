"""transformers' memory: weights, the cache of the tokens there are, and what reading and growing take. Pure.

Nothing is reserved ahead. The cache (`DynamicLayer.update`, transformers 5.17.0) is one tensor of keys and one of
values a layer, made anew for each token (`torch.cat`), so that one old tensor stays beside its copy; torch takes large
tensors in steps of 2 MiB. A prompt that is read in one step needs its activations too (`transformers_prefill`): where
the cache of the asked length fits and such a prompt does not, the plan is strained. Planned beside measured on an H100:
docs/benchmarks.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Callable, Mapping, Sequence

from gonogo.engines.memory import Term
from gonogo.engines.replica_memory import Pool, RankMemory, ReplicaMemory
from gonogo.engines.serving import Device, Serving
from gonogo.engines.shard import Cut, rank_weights
from gonogo.engines.transformers_prefill import prompt_token_bytes
from gonogo.facts.architecture import Architecture, Attention, AttentionKind
from gonogo.facts.weights import Group

MIB = 1024**2
OVERHEAD_BYTES = 36 * MIB
"""cuBLAS's workspace in torch (32 MiB on Hopper), the logits of one token, small buffers."""
CONTEXT_BYTES = 512 * MIB
NON_TORCH_BYTES = 192 * MIB
"""Beside torch 685 to 703 MiB were taken once it had computed (H100, driver 580, CUDA 13.0, torch 2.11); this is what
is more than the context that every plan counts."""
STEP_BYTES, LARGE_BYTES = 2 * MIB, 10 * MIB
"""torch's caching allocator (`CUDACachingAllocator`): from so many bytes on a tensor is a segment of its own."""
MOST_TOKENS = 1 << 26


def replica_memory(model: Architecture, groups: Sequence[Group], serving: Serving, device: Device) -> ReplicaMemory:
    """One replica on one card: it serves one request at a time, so the cache need only hold that one."""
    free = device.total_bytes - CONTEXT_BYTES if device.free_bytes is None else device.free_bytes
    cut = Cut(tensor=serving.tensor, pipeline=1, stage=0)
    wide = serving.dtype_bytes or model.dtype_bytes
    weights = rank_weights(model, groups, wide, serving.scheme or model.scheme, cut) - model.position_cells * wide
    tensors = _tensors(model, serving.kv_bytes or wide, serving.tensor)
    fixed = (
        Term(name="weights", size_bytes=weights, source="the model's tensors; positions are computed, not kept"),
        Term(name="overhead", size_bytes=OVERHEAD_BYTES, source="36 MiB over Qwen's H20 measurements"),
        Term(name="non_torch", size_bytes=NON_TORCH_BYTES, source="measured on an H100 (CUDA 13.0, torch 2.11)"),
    )
    room, activation = free - sum(term.size_bytes for term in fixed), prompt_token_bytes(model, wide)
    request = cache_bytes(tensors, serving.context_tokens)
    prompt = _most(room, lambda count: cache_bytes(tensors, count) + count * activation) if request else 0
    strained = bool(request) and prompt < serving.context_tokens
    beside = _beside(tensors, serving.context_tokens, 0 if strained else serving.context_tokens * activation)
    terms = (*fixed, beside)
    cache = room - beside.size_bytes
    rank = RankMemory(stage=0, budget_bytes=free, free_bytes=free, terms=terms, cache_bytes=cache)
    if not request:
        return ReplicaMemory(ranks=(rank,), pool=None)
    reading = 0 if strained else beside.size_bytes
    tokens = _most(room, lambda count: cache_bytes(tensors, count) + max(_growth(tensors, count), reading))
    pool = Pool(tokens=tokens, requests=min(1.0, tokens / serving.context_tokens), request_bytes=request)
    return ReplicaMemory(ranks=(rank,), pool=pool, sequences=1, strained=strained, prompt_tokens=prompt)


def _beside(tensors: Tensors, tokens: int, reading_bytes: int) -> Term:
    """The most that is needed beside weights and cache: while the prompt is read, or while a token is added."""
    growth = _growth(tensors, tokens)
    if reading_bytes > growth:
        source = "what a block holds while a prompt of that length is read in one step"
        return Term(name="activation", size_bytes=reading_bytes, source=source)
    return Term(name="growth", size_bytes=growth, source="one layer's keys and their copy while a token is added")


def _growth(tensors: Tensors, tokens: int) -> int:
    return max((_taken(tensor, tokens) for tensor in tensors), default=0)


Tensors = Mapping[tuple[float, int | None], int]
"""Bytes per token and the most tokens that are kept (None: all) → how many such tensors there are."""


def _tensors(model: Architecture, value_bytes: float, tensor: int) -> Tensors:
    """The cache's tensors: keys and values of each layer, of latent attention its vector and its turned keys."""
    found: Counter[tuple[float, int | None]] = Counter()
    for attention in model.attentions:
        if attention.kind is AttentionKind.RECURRENT:
            continue
        window = attention.window - 1 if attention.window is not None else None
        for width in _widths(model, attention, tensor):
            found[(width * value_bytes, window)] += 1
    return found


def _widths(model: Architecture, attention: Attention, tensor: int) -> tuple[int, ...]:
    if attention.kind is AttentionKind.LATENT and model.latent is not None:
        return (model.latent.kv_rank, model.latent.rope_dim)
    heads = max(1, -(-attention.kv_heads // tensor))
    return (heads * attention.key_dim, heads * attention.value_dim)


def cache_bytes(tensors: Tensors, tokens: int) -> int:
    """What the cache of so many tokens takes of a card."""
    return sum(count * _taken(tensor, tokens) for tensor, count in tensors.items())


def _taken(tensor: tuple[float, int | None], tokens: int) -> int:
    """Bytes that torch takes for one tensor."""
    each, window = tensor
    size = round(each * (tokens if window is None else min(tokens, window)))
    return size if size < LARGE_BYTES else -(-size // STEP_BYTES) * STEP_BYTES


def _most(room_bytes: int, taken: Callable[[int], int]) -> int:
    """The most tokens that take no more than there is room for."""
    least, most = 0, MOST_TOKENS
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if taken(middle) <= room_bytes else (least, middle - 1)
    return least
