"""What transformers holds at once while it reads a prompt: bytes per token of it, beside weights and cache. Pure.

Counted in the modelling code of transformers 5.17.0 (`models/*/modeling_*.py`, `integrations/moe.py`), where Python's
own frames keep tensors alive: the embeddings (`Model.forward`), a block's input (the loop over blocks), its residual
and its normed input. `generate` reads the whole prompt in one step unless `prefill_chunk_size` is set, and makes the
logits of its last token only. Not counted: an image encoder. Held against an H100, dense models only:
`tests/cases/plan/transformers_h100.json`.
"""

from __future__ import annotations

from gonogo.facts.architecture import Architecture, Attention, AttentionKind, Layer

FUSED = frozenset({"glm", "glm4", "glm4v", "glm4v_text", "phi3", "phi4_multimodal"})
"""Model types whose gate and up projection are one matrix: both halves stay alive while their product is made."""
ID_BYTES = 16
"""A token's id and its position, eight bytes each."""


def prompt_token_bytes(model: Architecture, wide: int) -> int:
    """Bytes per token of a prompt that is read in one step, at the block where they are most. `wide`: of a value."""
    angles = 2 * model.position_cells // model.context_tokens if model.context_tokens else 0
    return wide * (max(_block(model, layer) for layer in model.layers) + angles) + ID_BYTES


def _block(model: Architecture, layer: Layer) -> int:
    """Values per token while one block works."""
    parts = [0]
    if layer.attention is not None:
        parts.append(3 * model.hidden + _attention(layer.attention))
    if layer.dense_width:
        parts.append(4 * model.hidden + _feed_forward(model, layer.dense_width))
    if layer.experts and model.experts is not None:
        parts.append(4 * model.hidden + _experts(model))
    return max(parts)


def _attention(attention: Attention) -> int:
    """`apply_rotary_pos_emb`: the queries, times cosine, turned by half, times sine; beside them keys and values."""
    queries = attention.heads * attention.key_dim
    heads = attention.heads if attention.kind is AttentionKind.LATENT else attention.kv_heads
    return 4 * queries + heads * (attention.key_dim + attention.value_dim)


def _feed_forward(model: Architecture, width: int) -> int:
    """`down(act(gate(x)) * up(x))`: two inputs and their product; fused, the matrix of both, the activation and it."""
    if not model.gated:
        return 2 * width
    return (4 if model.model_type in FUSED else 3) * width


def _experts(model: Architecture) -> int:
    """`grouped_mm_experts_forward`: copies of each token for its experts, both inputs twice; or four of its outputs."""
    experts = model.experts
    if experts is None:
        return 0
    into = experts.input_width or model.hidden
    routed = experts.per_token * max(into + 4 * experts.width, 4 * into)
    return max(routed, _feed_forward(model, experts.shared_width))
