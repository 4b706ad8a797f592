"""vLLM's KV cache: bytes of a page, layers grouped by what they remember, blocks, and the requests they hold. Pure.

Source: `vllm/v1/core/kv_cache_utils.py` in the 0.19.0 wheel; held against printed block counts (docs/benchmarks.md).
Before 0.10 windows were kept as if they were whole contexts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

from gonogo.engines.serving import Serving
from gonogo.facts.architecture import Architecture, Attention, AttentionKind

GROUPED_SINCE, PRINTS_CAPACITY_SINCE = (0, 10), (0, 21)
SPARSE_MLA_BYTES, INDEX_SCALE_BYTES = 656, 4
"""A token in the FP8 layout of sparse latent attention, and the scale beside each FP8 index key."""
SIMILAR = 1.25
STEP_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """Layers that share a table of blocks. `blocks_per_request` of the asked length."""

    kind: AttentionKind
    layers: int
    blocks_per_request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayout:
    """How a rank's cache is laid out: a block of `block_tokens` costs `block_bytes` over the layers of one group."""

    block_tokens: int
    block_bytes: int
    groups: tuple[LayerGroup, ...]
    request_tokens: int

    @property
    def blocks_per_request(self) -> int:
        return sum(group.blocks_per_request for group in self.groups)

    def blocks(self, cache_bytes: int) -> int:
        """Blocks that fit."""
        return max(0, cache_bytes) // self.block_bytes

    def printed_tokens(self, blocks: int, serving: Serving) -> int:
        """What vLLM prints as "GPU KV cache size": until 0.20 tokens of one group, then what its requests add up to."""
        if serving.version >= PRINTS_CAPACITY_SINCE:
            return int(self.requests(blocks) * self.request_tokens)
        return blocks // len(self.groups) * self.block_tokens * serving.context_parallel

    def requests(self, blocks: int) -> float:
        """What vLLM prints as "Maximum concurrency": requests of the asked length."""
        return blocks / self.blocks_per_request


def cache_layout(model: Architecture, serving: Serving, batch_tokens: int, layers: Sequence[int]) -> CacheLayout | None:
    """The layout on a rank that holds `layers`; None when none of them remembers anything."""
    kept = [attention for index in layers if (attention := model.layers[index].attention) is not None]
    if not kept:
        return None
    value_bytes = serving.kv_bytes or serving.dtype_bytes or model.dtype_bytes
    page_token = max((_token_bytes(model, one, value_bytes, serving.tensor) for one in kept), default=0)
    state = _state_bytes(model, serving.tensor) if any(one.kind is AttentionKind.RECURRENT for one in kept) else 0
    block_tokens = serving.block_tokens
    if state and page_token:
        block_tokens = max(block_tokens, STEP_TOKENS * math.ceil(state / (page_token * STEP_TOKENS)))
    page = max(page_token * block_tokens, state if not page_token else 0)
    kinds = _by_kind(kept, serving)
    size = _group_size([len(found) for found in kinds.values()])
    groups = []
    for (kind, window), found in kinds.items():
        request = _request_blocks(kind, window, serving, batch_tokens, block_tokens)
        for start in range(0, len(found), size):
            groups.append(LayerGroup(kind=kind, layers=min(size, len(found) - start), blocks_per_request=request))
    index = _index_bytes(model, kept, block_tokens)
    return CacheLayout(
        block_tokens=block_tokens,
        block_bytes=int(page * size + index),
        groups=tuple(groups),
        request_tokens=serving.context_tokens,
    )


def token_bytes(model: Architecture, kv_bytes: float, tensor: int) -> float:
    """Bytes that one more token costs on one rank, over all layers that remember everything."""
    return sum(
        _token_bytes(model, one, kv_bytes, tensor)
        for one in model.attentions
        if one.kind in (AttentionKind.FULL, AttentionKind.LATENT)
    )


def _token_bytes(model: Architecture, attention: Attention, value_bytes: float, tensor: int) -> float:
    if attention.kind is AttentionKind.RECURRENT:
        return 0.0
    if attention.kind is AttentionKind.LATENT and model.latent is not None:
        if value_bytes == 1 and model.latent.index_dim is not None:
            return SPARSE_MLA_BYTES
        return (model.latent.kv_rank + model.latent.rope_dim) * value_bytes
    heads = max(1, -(-attention.kv_heads // tensor))
    return heads * (attention.key_dim + attention.value_dim) * value_bytes


def _index_bytes(model: Architecture, kept: Sequence[Attention], block_tokens: int) -> int:
    """The index keys of sparse latent attention, in FP8, beside each layer's page."""
    if model.latent is None or model.latent.index_dim is None:
        return 0
    return len(kept) * block_tokens * (model.latent.index_dim + INDEX_SCALE_BYTES)


def _state_bytes(model: Architecture, tensor: int) -> int:
    """A sequence's state in one recurrent layer: the convolution's last inputs, and the state itself."""
    state = model.recurrent
    if state is None:
        return 0
    convolution = state.channels // tensor * (state.kernel - 1) * model.dtype_bytes
    matrix = state.heads // tensor * state.head_dim * state.state_dim
    return convolution + matrix * (4 if state.state_float32 else model.dtype_bytes)


def _by_kind(kept: Sequence[Attention], serving: Serving) -> dict[tuple[AttentionKind, int | None], list[Attention]]:
    """Layers by what they remember. A rank whose layers are all alike has one kind."""
    kinds: dict[tuple[AttentionKind, int | None], list[Attention]] = {}
    for attention in kept:
        windowed = attention.window is not None and serving.version >= GROUPED_SINCE
        if attention.kind in (AttentionKind.SLIDING, AttentionKind.CHUNKED) and not windowed:
            key: tuple[AttentionKind, int | None] = (AttentionKind.FULL, None)
        else:
            key = (attention.kind, attention.window)
        kinds.setdefault(key, []).append(attention)
    return kinds


def _group_size(counts: Sequence[int]) -> int:
    fewest, most = min(counts), max(counts)
    return most if most < fewest * SIMILAR else fewest


def _request_blocks(
    kind: AttentionKind, window: int | None, serving: Serving, batch_tokens: int, block_tokens: int
) -> int:
    length = serving.context_tokens
    if kind is AttentionKind.RECURRENT:
        return 1
    if kind in (AttentionKind.SLIDING, AttentionKind.CHUNKED) and window is not None:
        extra = 1 if kind is AttentionKind.SLIDING else 0
        kept = min(window - extra + batch_tokens, length)
        return -(-kept // block_tokens) + extra
    return -(-length // (block_tokens * serving.context_parallel))
