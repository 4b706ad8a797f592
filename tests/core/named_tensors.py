"""Tensors as the authors of models name and cut them, made from an architecture. Shapes only, no weights."""

from __future__ import annotations

import math
from typing import Iterator

from gonogo.facts.architecture import Architecture, Attention, AttentionKind, Layer
from gonogo.facts.model import Tensor

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1, "I8": 1, "I32": 4}
BLOCK, GROUP, FEW = 128, 128, 32


def tensor(name: str, *shape: int, kind: str = "BF16") -> Tensor:
    return Tensor(name=name, shape=shape, kind=kind, size_bytes=math.prod(shape) * BYTES[kind])


def checkpoint(model: Architecture, prefix: str = "model", stored: str = "BF16") -> tuple[Tensor, ...]:
    """All tensors. `stored`: BF16, F8 (blocks of 128), GPTQ or AWQ (4 bit), MXFP4 or NVFP4 (of experts)."""
    return tuple(_stored(_names(model, prefix), stored))


def _names(model: Architecture, prefix: str) -> Iterator[Tensor]:
    hidden = model.hidden
    yield tensor(f"{prefix}.embed_tokens.weight", model.vocabulary, hidden)
    for index, layer in enumerate(model.layers):
        yield from _layer(model, layer, f"{prefix}.layers.{index}")
    yield tensor(f"{prefix}.norm.weight", hidden)
    if not model.tied:
        yield tensor("lm_head.weight", model.vocabulary, hidden)


def _layer(model: Architecture, layer: Layer, at: str) -> Iterator[Tensor]:
    hidden = model.hidden
    for name in ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm")[: model.norms]:
        yield tensor(f"{at}.{name}.weight", hidden)
    if layer.attention is not None:
        yield from _attention(model, layer.attention, at)
    if layer.dense_width is not None:
        yield from _feed_forward(f"{at}.mlp", hidden, layer.dense_width)
    if layer.experts:
        yield from _experts(model, f"{at}.mlp")


def _feed_forward(at: str, hidden: int, width: int) -> Iterator[Tensor]:
    yield tensor(f"{at}.gate_proj.weight", width, hidden)
    yield tensor(f"{at}.up_proj.weight", width, hidden)
    yield tensor(f"{at}.down_proj.weight", hidden, width)


def _attention(model: Architecture, one: Attention, at: str) -> Iterator[Tensor]:
    hidden, latent, state = model.hidden, model.latent, model.recurrent
    if one.kind is AttentionKind.RECURRENT:
        assert state is not None
        values = state.heads * state.head_dim
        narrow = 2 * state.heads
        yield tensor(f"{at}.linear_attn.in_proj_qkvz.weight", state.inputs - narrow, hidden)
        yield tensor(f"{at}.linear_attn.in_proj_ba.weight", narrow, hidden)
        yield tensor(f"{at}.linear_attn.conv1d.weight", state.channels, 1, state.kernel)
        yield tensor(f"{at}.linear_attn.A_log", state.heads)
        yield tensor(f"{at}.linear_attn.dt_bias", state.heads)
        yield tensor(f"{at}.linear_attn.norm.weight", state.head_dim)
        yield tensor(f"{at}.linear_attn.out_proj.weight", hidden, values)
        return
    if latent is not None:
        assert latent.q_rank is not None
        both = latent.nope_dim + latent.rope_dim
        yield tensor(f"{at}.self_attn.q_a_proj.weight", latent.q_rank, hidden)
        yield tensor(f"{at}.self_attn.q_a_layernorm.weight", latent.q_rank)
        yield tensor(f"{at}.self_attn.q_b_proj.weight", one.heads * both, latent.q_rank)
        yield tensor(f"{at}.self_attn.kv_a_proj_with_mqa.weight", latent.kv_rank + latent.rope_dim, hidden)
        yield tensor(f"{at}.self_attn.kv_a_layernorm.weight", latent.kv_rank)
        width = one.heads * (latent.nope_dim + one.value_dim)
        yield tensor(f"{at}.self_attn.kv_b_proj.weight", width, latent.kv_rank)
        yield tensor(f"{at}.self_attn.o_proj.weight", hidden, one.heads * one.value_dim)
        return
    queries = one.heads * one.key_dim * (2 if model.output_gate else 1)
    for name, rows in (
        ("q", queries),
        ("k", one.kv_heads * one.key_dim),
        ("v", one.kv_heads * one.value_dim),
    ):
        yield tensor(f"{at}.self_attn.{name}_proj.weight", rows, hidden)
        if model.query_bias:
            yield tensor(f"{at}.self_attn.{name}_proj.bias", rows)
    yield tensor(f"{at}.self_attn.o_proj.weight", hidden, one.heads * one.value_dim)
    yield tensor(f"{at}.self_attn.q_norm.weight", one.key_dim)
    yield tensor(f"{at}.self_attn.k_norm.weight", one.key_dim)


def _experts(model: Architecture, at: str) -> Iterator[Tensor]:
    experts, hidden = model.experts, model.hidden
    assert experts is not None
    if model.dense_biases:  # gpt-oss: all experts in one tensor, packed in MXFP4
        yield tensor(f"{at}.router.weight", experts.count, hidden)
        yield tensor(f"{at}.router.bias", experts.count)
        for name, rows, columns in (("gate_up_proj", 2 * experts.width, hidden), ("down_proj", hidden, experts.width)):
            groups = columns // FEW
            yield tensor(f"{at}.experts.{name}_blocks", experts.count, rows, groups, FEW // 2, kind="U8")
            yield tensor(f"{at}.experts.{name}_scales", experts.count, rows, groups, kind="U8")
            yield tensor(f"{at}.experts.{name}_bias", experts.count, rows)
        return
    yield tensor(f"{at}.gate.weight", experts.count, hidden)
    for index in range(experts.count):
        yield from _feed_forward(f"{at}.experts.{index}", hidden, experts.width)
    if experts.shared_width:
        name = "shared_experts" if model.latent is not None else "shared_expert"
        yield from _feed_forward(f"{at}.{name}", hidden, experts.shared_width)


def _stored(tensors: Iterator[Tensor], stored: str) -> Iterator[Tensor]:
    for one in tensors:
        base = one.name.removesuffix(".weight")
        if stored == "BF16" or len(one.shape) != 2 or not base.endswith("_proj"):
            yield one
            continue
        rows, columns = one.shape
        if stored == "F8":
            yield tensor(one.name, rows, columns, kind="F8_E4M3")
            yield tensor(f"{base}.weight_scale_inv", -(-rows // BLOCK), -(-columns // BLOCK), kind="F32")
        elif stored == "GPTQ":
            yield tensor(f"{base}.qweight", columns // 8, rows, kind="I32")
            yield tensor(f"{base}.qzeros", columns // GROUP, rows // 8, kind="I32")
            yield tensor(f"{base}.scales", columns // GROUP, rows, kind="F16")
            yield tensor(f"{base}.g_idx", columns, kind="I32")
        elif stored == "AWQ":
            yield tensor(f"{base}.qweight", columns, rows // 8, kind="I32")
            yield tensor(f"{base}.qzeros", columns // GROUP, rows // 8, kind="I32")
            yield tensor(f"{base}.scales", columns // GROUP, rows, kind="F16")
        elif stored == "NVFP4":
            yield tensor(one.name, rows, columns // 2, kind="U8")
            yield tensor(f"{base}.weight_scale", rows, columns // 16, kind="F8_E4M3")
            yield tensor(f"{base}.weight_scale_2", kind="F32")
            yield tensor(f"{base}.input_scale", kind="F32")
        else:
            raise AssertionError(stored)
