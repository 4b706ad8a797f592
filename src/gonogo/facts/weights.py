"""A model's weights in groups: of what part, in which layer, how many, and how many ways they can be divided. Pure.

`groups_of` derives them from an architecture; `groups_from` sorts the tensors of a checkpoint, which are exact. How an
engine divides them over accelerators, and stores them, is in `gonogo.engines`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import Iterable, Iterator, Mapping

from gonogo.facts.architecture import Architecture, Attention, AttentionKind, Experts, Layer
from gonogo.facts.model import Tensor


class Part(str, Enum):
    """What weights are for: this decides how they are divided and whether they are quantized."""

    EMBEDDING = "embedding"
    HEAD = "head"
    ATTENTION = "attention"
    LATENT = "latent"
    DENSE = "dense"
    EXPERT = "expert"
    SHARED_EXPERT = "shared_expert"
    ROUTER = "router"
    RECURRENT = "recurrent"
    NORM = "norm"
    VISION = "vision"
    DRAFT = "draft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Weights of one kind in one layer (None: outside the blocks). `ways`: how many equal parts at most, None: any.

    `stored_bytes` is what a checkpoint holds, None when derived: then the scheme says.
    """

    part: Part
    layer: int | None
    elements: int
    ways: int | None = None
    stored_bytes: int | None = None


def groups_of(model: Architecture) -> tuple[Group, ...]:
    """All groups, derived. Within 0.3 % of the checkpoints whose parameter counts are known (see the tests)."""
    found = [Group(part=Part.EMBEDDING, layer=None, elements=model.vocabulary * model.hidden)]
    if not model.tied:
        found.append(Group(part=Part.HEAD, layer=None, elements=model.vocabulary * model.hidden))
    for index, layer in enumerate(model.layers):
        found += _layer(model, layer, index)
    found.append(Group(part=Part.NORM, layer=None, elements=model.hidden, ways=1))
    if model.vision is not None:
        found.append(Group(part=Part.VISION, layer=None, elements=model.vision.parameters))
    return tuple(found)


def groups_from(tensors: Iterable[Tensor], model: Architecture) -> tuple[Group, ...]:
    """The tensors of a checkpoint, added up by part and layer. Draft layers (MTP) are told apart: they load on demand.

    Shapes in any order; key and value projections are told apart because they divide into fewer ways.
    """
    sums: dict[tuple[Part, int | None, int | None], tuple[int, int]] = {}
    for tensor in tensors:
        layer, part = _layer_of(tensor.name), _part_of(tensor.name)
        if part is Part.HEAD and model.tied:
            continue  # some checkpoints hold it all the same; engines use the embedding
        if part is Part.VISION:
            layer = None
        elif layer is not None and layer >= len(model.layers):
            part = Part.DRAFT
        key = (part, layer, _ways(part, tensor.name, model, layer))
        elements, size = sums.get(key, (0, 0))
        sums[key] = (elements + _elements(tensor), size + tensor.size_bytes)
    return tuple(
        Group(part=part, layer=layer, elements=elements, ways=ways, stored_bytes=size)
        for (part, layer, ways), (elements, size) in sums.items()
    )


def merge(groups: Iterable[Group]) -> tuple[Group, ...]:
    """The same weights added up over layers: outside the blocks each kind stands once."""
    sums: dict[tuple[Part, int | None, bool], tuple[int, int]] = {}
    for group in groups:
        key = (group.part, group.ways, group.stored_bytes is None)
        elements, size = sums.get(key, (0, 0))
        sums[key] = (elements + group.elements, size + (group.stored_bytes or 0))
    return tuple(
        Group(part=part, layer=None, elements=elements, ways=ways, stored_bytes=None if derived else size)
        for (part, ways, derived), (elements, size) in sums.items()
    )


def parameters(groups: Iterable[Group]) -> int:
    """Weights in all, as people count parameters."""
    return sum(group.elements for group in groups)


def _layer(model: Architecture, layer: Layer, index: int) -> Iterator[Group]:
    hidden = model.hidden
    if layer.attention is not None:
        yield from _attention(model, layer.attention, index)
    if layer.dense_width is not None:
        biases = (2 * layer.dense_width + hidden) if model.dense_biases else 0
        elements = (3 if model.gated else 2) * hidden * layer.dense_width + biases
        yield Group(part=Part.DENSE, layer=index, elements=elements)
    if layer.experts and model.experts is not None:
        yield from _experts(model, model.experts, index)
    yield Group(part=Part.NORM, layer=index, elements=model.norms * hidden, ways=1)


def _attention(model: Architecture, attention: Attention, index: int) -> Iterator[Group]:
    hidden, heads = model.hidden, attention.heads
    if attention.kind is AttentionKind.RECURRENT:
        if model.recurrent is not None:
            state = model.recurrent
            elements = hidden * (state.inputs + state.outputs) + state.channels * state.kernel
            yield Group(part=Part.RECURRENT, layer=index, elements=elements)
        return
    if attention.kind is AttentionKind.LATENT and model.latent is not None:
        latent = model.latent
        q_rank = latent.q_rank or 0
        down = hidden * (latent.kv_rank + latent.rope_dim + q_rank)
        if latent.index_dim is not None and latent.index_heads is not None:
            down += q_rank * latent.index_heads * latent.index_dim + hidden * (latent.index_dim + latent.index_heads)
        up = (q_rank or hidden) * heads * attention.key_dim
        up += latent.kv_rank * heads * (latent.nope_dim + attention.value_dim) + heads * attention.value_dim * hidden
        yield Group(part=Part.LATENT, layer=index, elements=down, ways=1)
        yield Group(part=Part.LATENT, layer=index, elements=up)
        return
    queries = heads * attention.key_dim * (2 if model.output_gate else 1)
    keys = attention.kv_heads * (attention.key_dim + (0 if attention.keys_are_values else attention.value_dim))
    bias = 1 if model.query_bias else 0
    outputs = heads * attention.value_dim * hidden
    yield Group(part=Part.ATTENTION, layer=index, elements=queries * (hidden + bias) + outputs)
    yield Group(part=Part.ATTENTION, layer=index, elements=keys * (hidden + bias), ways=attention.kv_heads)


def _experts(model: Architecture, experts: Experts, index: int) -> Iterator[Group]:
    matrices, inner = (3 if model.gated else 2), experts.input_width or model.hidden
    biases = (2 * experts.width + inner) if model.dense_biases else 0
    elements = experts.count * (matrices * inner * experts.width + biases)
    yield Group(part=Part.EXPERT, layer=index, elements=elements)
    if experts.shared_width:
        elements = matrices * model.hidden * experts.shared_width
        yield Group(part=Part.SHARED_EXPERT, layer=index, elements=elements)
    around = experts.count * model.hidden + (2 * model.hidden * inner if experts.input_width else 0)
    yield Group(part=Part.ROUTER, layer=index, elements=around, ways=1)


def _ways(part: Part, name: str, model: Architecture, layer: int | None) -> int | None:
    if part in (Part.NORM, Part.ROUTER) or (part is Part.LATENT and _WHOLE.search(name)):
        return 1
    if part is Part.ATTENTION and layer is not None and layer < len(model.layers) and _KEYS.search(name):
        attention = model.layers[layer].attention
        return attention.kv_heads if attention is not None else None
    return None


def _elements(tensor: Tensor) -> int:
    """Weights of the tensor: several in one number where they are packed, none where it holds scales."""
    if _SCALES.search(tensor.name):
        return 0
    return math.prod(tensor.shape) * (_PACKED.get(tensor.kind, 1) if tensor.name.endswith(_PACKED_NAMES) else 1)


def _layer_of(name: str) -> int | None:
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def _part_of(name: str) -> Part:
    return next((part for part, pattern in _PARTS if pattern.search(name)), Part.NORM)


_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blk|decoder\.layers)\.(\d+)\.")
_WHOLE = re.compile(r"q_a_proj|kv_a_proj|indexer|attn_q_a|attn_kv_a")
_KEYS = re.compile(r"\b(?:k_proj|v_proj|attn_k|attn_v)\.")
_SCALES = re.compile(
    r"scales?(?:_inv|_2)?$|\.qzeros$|\.g_idx$|_zero_point$|\.weight_shape$|\.weight\.(?:absmax|nested|quant)|\.SCB$"
)
_PACKED_NAMES = (".qweight", ".weight_packed", "_blocks", ".weight")
_PACKED: Mapping[str, int] = {"I32": 8, "U8": 2}
_PARTS: tuple[tuple[Part, re.Pattern[str]], ...] = tuple(
    (part, re.compile(pattern))
    for part, pattern in (
        (Part.VISION, r"visual|vision|multi_modal_projector|mm_projector|^v\.|^mm\."),
        (Part.DRAFT, r"(?:^|\.)mtp\.|nextn"),
        (Part.EMBEDDING, r"embed_tokens|word_embeddings|\bembeddings\.weight|\bwte\b|token_embd|embed_in"),
        (Part.HEAD, r"lm_head|output_layer|^output\.weight"),
        (Part.NORM, r"norm|ln_"),
        (Part.SHARED_EXPERT, r"shared?_expert|_shexp"),
        (Part.EXPERT, r"\.experts\.|_exps"),
        (Part.ROUTER, r"\.gate\.|router|ffn_gate_inp|e_score_correction"),
        (Part.RECURRENT, r"linear_attn|mixer\.(?:in_proj|out_proj|conv1d|A_log|D|dt_bias)|ssm_"),
        (Part.LATENT, r"q_a_proj|q_b_proj|kv_a_proj|kv_b_proj|indexer|attn_q_a|attn_q_b|attn_kv"),
        (Part.ATTENTION, r"attn|attention|q_proj|k_proj|v_proj|o_proj"),
        (Part.DENSE, r"mlp|ffn|feed_forward|fc1|fc2|w[123]\b|(?:up|down|gate)_proj"),
    )
)
