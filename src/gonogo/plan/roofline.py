"""What one step of a model costs on one card, operation by operation: bytes, arithmetic, messages, launches. Pure.

A step gives one token to each of some running requests (decode), or reads some tokens of a prompt (prefill). Nothing
here knows how well an engine does it: that is `gonogo.plan.efficiency`; seconds are made in `gonogo.plan.speed`.

Sources: shapes from `gonogo.facts.weights`; an all-reduce over n cards sends 2(n-1)/n of its message (ring); a batch of
B tokens that each choose k of E experts is expected to touch E(1-(1-k/E)^B) of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Iterator

from gonogo.facts.architecture import Architecture, Attention, AttentionKind, Scheme
from gonogo.facts.schemes import QUANTIZED_PARTS, SCHEMES
from gonogo.facts.weights import Group, Part, groups_of

SPARSE_TOKENS = 2048
"""Tokens that sparse latent attention reads in full (`index_topk` of DeepSeek-V3.2 and GLM-5)."""
EIGHT_BIT_SINCE, FOUR_BIT_SINCE = (8, 9), (10, 0)
"""Compute capability from which tensor cores multiply FP8 twice and FP4 four times as fast as FP16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One accelerator as far as speed goes. None: nobody could source it; then what needs it is not predicted.

    `flops_fp16`: dense, per second, with tensor cores. `link_bytes_per_s`: one way between two cards. `capability`:
    CUDA compute capability, None for other makers. `generation`: cards that behave alike, by name (see `generation`).
    """

    name: str
    generation: str
    memory_bytes_per_s: float
    flops_fp16: float | None = None
    link_bytes_per_s: float | None = None
    capability: tuple[int, int] | None = None

    def flops(self, bits: int) -> float | None:
        """Dense arithmetic per second with operands of so many bits."""
        if self.flops_fp16 is None:
            return None
        if bits <= 4 and self.capability is not None and self.capability >= FOUR_BIT_SINCE:
            return 4 * self.flops_fp16
        if bits <= 8 and self.capability is not None and self.capability >= EIGHT_BIT_SINCE:
            return 2 * self.flops_fp16
        return self.flops_fp16


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a replica's cards divide the work: `tensor` ways within layers, `pipeline` stages of layers, `data` groups
    that attend to their own requests and share the experts (attention DP with expert parallelism)."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def cards(self) -> int:
        return self.tensor * self.pipeline * self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """How weights and cache are stored. `scheme` None: in `dtype_bytes`. `bytes_per_weight`: of all of them together,
    where a file's size is known (GGUF), instead of the scheme's. `cache_bytes`: of one cached element."""

    scheme: Scheme | None = None
    dtype_bytes: float = 2
    bytes_per_weight: float | None = None
    cache_bytes: float = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step works on: `tokens` new ones of `sequences` requests, each attending to `context_tokens` on average.

    `cached_tokens`: what is read from the cache once per request (in decode the context, in prefill the prompt).
    """

    tokens: float
    sequences: float
    context_tokens: float
    cached_tokens: float
    decode: bool


class Kind(str, Enum):
    """Kinds of work; each has its own efficiency."""

    ATTENTION_WEIGHTS = "attention_weights"
    DENSE = "dense"
    EXPERTS = "experts"
    HEAD = "head"
    CACHE = "cache"
    STATE = "state"
    MESSAGES = "messages"
    LAYERS = "layers"
    EXPERT_LAYERS = "expert_layers"
    SPECIAL_LAYERS = "special_layers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Work of one kind in a whole step, on one card. `count`: layers or messages; `bits`: of the operands."""

    kind: Kind
    bytes: float = 0.0
    flops: float = 0.0
    count: float = 0.0
    bits: int = 16


def operations(model: Architecture, layout: Layout, stored: Stored, batch: Batch) -> tuple[Operation, ...]:
    """All of a step. With a pipeline the stages follow one another, so that a token passes all layers either way."""
    found = [*_weights(model, layout, stored, batch), *_attention(model, layout, stored, batch)]
    found += [*_launches(model), *_messages(model, layout, batch)]
    return _added(found)


def touched_experts(count: int, per_token: int, tokens: float) -> float:
    """Experts that a batch is expected to touch, if each token chooses evenly and on its own."""
    return count * (1 - math.pow(1 - per_token / count, tokens))


def _weights(model: Architecture, layout: Layout, stored: Stored, batch: Batch) -> Iterator[Operation]:
    mine = batch.tokens / layout.data
    for group in groups_of(model):
        if group.part not in _KINDS:
            continue
        each, bits = _stored_bytes(group, stored)
        if group.part is Part.EXPERT and model.experts is not None:
            experts = model.experts
            share = group.elements / (layout.tensor * layout.data)
            touched = touched_experts(experts.count, experts.per_token, batch.tokens) / experts.count
            flops = 2 * share * experts.per_token / experts.count * batch.tokens
            yield Operation(kind=Kind.EXPERTS, bytes=share * touched * each, flops=flops, bits=bits)
            continue
        ways = layout.tensor if group.ways is None else min(group.ways, layout.tensor)
        share = group.elements / ways
        tokens = batch.sequences / layout.data if group.part is Part.HEAD else mine
        yield Operation(kind=_KINDS[group.part], bytes=share * each, flops=2 * share * tokens, bits=bits)
    if model.tied:
        share = model.vocabulary * model.hidden / layout.tensor
        each = stored.bytes_per_weight or stored.dtype_bytes
        yield Operation(kind=Kind.HEAD, bytes=share * each, flops=2 * share * batch.sequences / layout.data)


def _stored_bytes(group: Group, stored: Stored) -> tuple[float, int]:
    """Bytes of one weight, and the bits in which it is multiplied."""
    scheme, part = stored.scheme, group.part.value
    if stored.bytes_per_weight is not None:
        return stored.bytes_per_weight, 16
    if scheme is None or part not in QUANTIZED_PARTS or part in scheme.skipped:
        return stored.dtype_bytes, 16
    return SCHEMES[scheme.method].bytes_per_weight, _OPERANDS.get(scheme.method, 16)


def _attention(model: Architecture, layout: Layout, stored: Stored, batch: Batch) -> Iterator[Operation]:
    sequences, tokens = batch.sequences / layout.data, batch.tokens / layout.data
    for attention in model.attentions:
        if attention.kind is AttentionKind.RECURRENT:
            yield from _state(model, layout, sequences, tokens)
            continue
        reach = float("inf") if attention.window is None else attention.window
        context, cached = min(batch.context_tokens, reach), batch.cached_tokens
        cached = min(cached, reach + (0 if batch.decode else batch.tokens))
        if attention.kind is AttentionKind.LATENT and model.latent is not None:
            yield _latent(model, attention, layout, stored, batch)
            continue
        heads = max(1.0, attention.kv_heads / layout.tensor)
        size = heads * (attention.key_dim + attention.value_dim) * stored.cache_bytes
        work = 2 * attention.heads / layout.tensor * (attention.key_dim + attention.value_dim)
        yield Operation(kind=Kind.CACHE, bytes=sequences * cached * size, flops=tokens * context * work)


def _latent(model: Architecture, attention: Attention, layout: Layout, stored: Stored, batch: Batch) -> Operation:
    """Decoding works on the latent vectors themselves, a prompt on keys and values made from them."""
    latent = model.latent
    if latent is None:
        return Operation(kind=Kind.CACHE)
    sequences, tokens = batch.sequences / layout.data, batch.tokens / layout.data
    context, cached, index_bytes, index_flops = batch.context_tokens, batch.cached_tokens, 0.0, 0.0
    if latent.index_dim is not None and latent.index_heads is not None:
        index_bytes = sequences * cached * latent.index_dim
        index_flops = 2 * tokens * context * latent.index_heads * latent.index_dim
        context, cached = min(context, SPARSE_TOKENS), min(cached, SPARSE_TOKENS) if batch.decode else cached
    absorbed = 2 * latent.kv_rank + latent.rope_dim
    each = absorbed if batch.decode else attention.key_dim + attention.value_dim
    return Operation(
        kind=Kind.CACHE,
        bytes=sequences * cached * (latent.kv_rank + latent.rope_dim) * stored.cache_bytes + index_bytes,
        flops=2 * tokens * context * attention.heads / layout.tensor * each + index_flops,
    )


def _state(model: Architecture, layout: Layout, sequences: float, tokens: float) -> Iterator[Operation]:
    """A fixed state is read and written once per request; each token updates all of it."""
    state = model.recurrent
    if state is None:
        return
    elements = state.heads * state.head_dim * state.state_dim / layout.tensor
    size = 4 if state.state_float32 else 2
    yield Operation(kind=Kind.STATE, bytes=2 * sequences * elements * size, flops=6 * tokens * elements)


def _launches(model: Architecture) -> Iterator[Operation]:
    """Layers start their kernels one after another; experts, latent attention and fixed states have more of them, and
    an indexer of sparse attention as many again."""
    special = (AttentionKind.LATENT, AttentionKind.RECURRENT)
    each = 1 if model.latent is None or model.latent.index_dim is None else 2
    yield Operation(kind=Kind.LAYERS, count=len(model.layers))
    yield Operation(kind=Kind.EXPERT_LAYERS, count=sum(layer.experts for layer in model.layers))
    yield Operation(kind=Kind.SPECIAL_LAYERS, count=each * sum(one.kind in special for one in model.attentions))


def _messages(model: Architecture, layout: Layout, batch: Batch) -> Iterator[Operation]:
    """Two all-reduces a layer, or experts' tokens sent to their cards and back; stages hand over once each."""
    tokens, row = batch.tokens / layout.data, model.hidden * 2
    if layout.tensor > 1:
        ways = layout.tensor
        size = 2 * (ways - 1) / ways * tokens * row
        yield Operation(kind=Kind.MESSAGES, bytes=2 * len(model.layers) * size, count=2 * len(model.layers))
    if layout.data > 1 and model.experts is not None:
        sparse = sum(layer.experts for layer in model.layers)
        sent = tokens / layout.tensor * min(model.experts.per_token, layout.tensor * layout.data) * row
        yield Operation(kind=Kind.MESSAGES, bytes=2 * sparse * sent, count=2 * sparse)
    if layout.pipeline > 1:
        yield Operation(kind=Kind.MESSAGES, bytes=(layout.pipeline - 1) * tokens * row, count=layout.pipeline - 1)


def _added(found: list[Operation]) -> tuple[Operation, ...]:
    """Operations of one kind and width as one: layers of a kind are alike, so that none of them is bound otherwise."""
    sums: dict[tuple[Kind, int], list[float]] = {}
    for one in found:
        total = sums.setdefault((one.kind, one.bits), [0.0, 0.0, 0.0])
        total[0] += one.bytes
        total[1] += one.flops
        total[2] += one.count
    return tuple(
        Operation(kind=kind, bits=bits, bytes=total[0], flops=total[1], count=total[2])
        for (kind, bits), total in sums.items()
    )


_OPERANDS = {"fp8": 8, "fp8_block": 8, "int8": 8, "nvfp4": 4, "mxfp4": 4}
_KINDS = {
    Part.ATTENTION: Kind.ATTENTION_WEIGHTS,
    Part.LATENT: Kind.ATTENTION_WEIGHTS,
    Part.RECURRENT: Kind.ATTENTION_WEIGHTS,
    Part.DENSE: Kind.DENSE,
    Part.SHARED_EXPERT: Kind.DENSE,
    Part.ROUTER: Kind.DENSE,
    Part.EXPERT: Kind.EXPERTS,
    Part.HEAD: Kind.HEAD,
}
