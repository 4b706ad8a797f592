"""transformers' memory: weights, the cache of the tokens there are, and a little; nothing is reserved ahead. Pure.

Weights + KV cache + 36 MiB reproduces the peak memory of Qwen's own H20 measurements within 0.4 % (`facts/capacity.md`
§4; `benchmarks/capacity.py` repeats it).
"""

from __future__ import annotations

from typing import Sequence

from gonogo.engines.memory import Term
from gonogo.engines.replica_memory import Pool, RankMemory, ReplicaMemory
from gonogo.engines.serving import Device, Serving
from gonogo.engines.shard import Cut, rank_weights
from gonogo.engines.vllm_cache import token_bytes
from gonogo.facts.architecture import Architecture
from gonogo.facts.weights import Group

MIB = 1024**2
OVERHEAD_BYTES = 36 * MIB
CONTEXT_BYTES = 512 * MIB


def replica_memory(model: Architecture, groups: Sequence[Group], serving: Serving, device: Device) -> ReplicaMemory:
    """One replica on one card: it serves one request at a time, so the cache need only hold that one."""
    free = device.total_bytes - CONTEXT_BYTES if device.free_bytes is None else device.free_bytes
    cut = Cut(tensor=serving.tensor, pipeline=1, stage=0)
    wide = serving.dtype_bytes or model.dtype_bytes
    terms = (
        Term(
            name="weights",
            size_bytes=rank_weights(model, groups, wide, serving.scheme or model.scheme, cut),
            source="the model's tensors",
        ),
        Term(name="overhead", size_bytes=OVERHEAD_BYTES, source="36 MiB over Qwen's H20 measurements"),
    )
    cache = free - sum(term.size_bytes for term in terms)
    rank = RankMemory(stage=0, budget_bytes=free, free_bytes=free, terms=terms, cache_bytes=cache)
    each = token_bytes(model, serving.kv_bytes or wide, serving.tensor)
    if not each:
        return ReplicaMemory(ranks=(rank,), pool=None)
    tokens = int(max(0, cache) // each)
    request = round(each * serving.context_tokens)
    held = min(1.0, tokens / serving.context_tokens)
    return ReplicaMemory(ranks=(rank,), pool=Pool(tokens=tokens, requests=held, request_bytes=request), sequences=1)
