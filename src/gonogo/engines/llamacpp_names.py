"""What a model's GGUF file would hold: llama.cpp's name of its architecture, and its tensors with their shapes. Pure.

From a `config.json` read into an `Architecture`. The names are those of llama.cpp's converter (the `gguf` library's
table); which of them an architecture has was held against its loader, which refuses a file that lacks one. Not here: of
which type a tensor is (`gonogo.engines.llamacpp_quantize`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Iterator, Mapping

from gonogo.engines.llamacpp_families import FAMILIES
from gonogo.engines.llamacpp_shape import GgufShape, Routing
from gonogo.facts.architecture import Architecture, Attention, AttentionKind, Experts, Latent, Recurrent
from gonogo.facts.weights import Part, groups_of

Extents = tuple[int, ...]

GGUF_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("llama", "mistral", "mistral3", "mixtral", "llava_next"), "llama"),
    **dict.fromkeys(("qwen2", "mimo"), "qwen2"),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen2_5_vl_text"), "qwen2vl"),
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_text"), "qwen3vl"),
    "qwen3_vl_moe": "qwen3vlmoe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    **dict.fromkeys(("gemma3", "gemma3_text"), "gemma3"),
    "phi": "phi2",
    "phi3": "phi3",
    "granite": "granite",
    **dict.fromkeys(("glm4", "glm4v", "glm4v_text"), "glm4"),
    "glm4_moe": "glm4moe",
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "kimi_k2", "kimi_k25", "kimi_vl"), "deepseek2"),
    "gpt_oss": "gpt-oss",
    **dict.fromkeys(("llama4", "llama4_text"), "llama4"),
    "minimax_m2": "minimax-m2",
    "qwen3_5": "qwen35",
    "qwen3_5_moe": "qwen35moe",
}
"""By `model_type`. The others have recurrent layers, or caches of their own, that the graph here does not build."""

_LONGEST_VOCABULARY = {"gemma3": 262_144}
"""The converter cuts the rows of words that the tokenizer does not have."""
_NO_ATTENTION = Attention(kind=AttentionKind.RECURRENT, heads=0, kv_heads=0, key_dim=0, value_dim=0)
_BLOCK = 256
_FUSED_QUERIES = frozenset({"phi3", "phi2"})
_FUSED_GATES = frozenset({"phi3", "glm4"})
_HEAD_NORMS = frozenset({"qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "gemma3", "qwen35", "qwen35moe"})
_DELTA = frozenset({"qwen35", "qwen35moe"})
_GATED_SHARED = frozenset({"qwen2moe", "qwen35moe"})
_POST_NORMS = frozenset({"gemma2", "gemma3", "glm4"})


def shape_of(model: Architecture, routing: Routing | None = None, index_layers: int | None = None) -> GgufShape:
    """The model as llama.cpp would see its file. `index_layers`: that have a sparse-attention indexer, None: all.

    Of a type whose layout is not known here (`layout_known` says so) the cache is exact, the tensors are sums by part,
    and the compute buffer will be a bound. Raises ValueError for one whose cache follows no formula here.
    """
    name = GGUF_NAMES.get(model.model_type)
    model = replace(model, vocabulary=min(model.vocabulary, _LONGEST_VOCABULARY.get(name or "", model.vocabulary)))
    attentions = [layer.attention for layer in model.layers]
    if model.oddity is not None or not any(attentions):
        raise ValueError(f"{model.model_type!r} is not planned for llama.cpp: {model.oddity or 'no layer attends'}")
    plain = all(one is not None and one.kind is not AttentionKind.RECURRENT for one in attentions)
    if name is not None and (plain or name in _DELTA):
        return _shape(model, name, [one for one in attentions if one is not None], routing or Routing())
    return replace(_sums(model, [one or _NO_ATTENTION for one in attentions]), index_layers=index_layers)


def layout_known(shape: GgufShape) -> bool:
    """Whether the tensors are those of llama.cpp's file, not sums by part."""
    return shape.architecture in FAMILIES


def _sums(model: Architecture, attentions: list[Attention]) -> GgufShape:
    """A model of layers that no table here describes: its groups of weights, each as if it were one tensor."""
    tensors: dict[str, Extents] = {}
    for at, group in enumerate(groups_of(model)):
        plain = {Part.EMBEDDING: "token_embd", Part.HEAD: "output"}.get(group.part)
        name = plain or f"blk.{group.layer or 0}.{group.part.value}_{at}"
        columns = max(1, group.elements // _BLOCK)
        tensors[f"{name}.weight"] = (_BLOCK, columns // 2, 2) if group.part is Part.EXPERT else (_BLOCK, columns)
    attending = [one for one in attentions if one.kind is not AttentionKind.RECURRENT and one.kv_heads]
    widest, latent = max(attending, key=lambda one: one.kv_heads), model.latent
    key = latent.kv_rank + latent.rope_dim if latent is not None else widest.key_dim
    return GgufShape(
        architecture=model.model_type,
        embedding=model.hidden,
        vocabulary=model.vocabulary,
        heads=widest.heads,
        kv_heads=tuple(one.kv_heads if one.kind is not AttentionKind.RECURRENT else 0 for one in attentions),
        key=key,
        value=latent.kv_rank if latent is not None else widest.value_dim,
        tensors=tensors,
        windowed=(False,) * len(attentions),
        window=next((one.window for one in attentions if one.window is not None), None),
        latent_rank=latent.kv_rank if latent is not None else None,
        index_length=(latent.index_dim or 0) if latent is not None else 0,
        experts_used=model.experts.per_token if model.experts is not None else None,
        state_elements=_state_elements(model),
    )


def _shape(model: Architecture, name: str, attentions: list[Attention], routing: Routing) -> GgufShape:
    family, latent = FAMILIES[name], model.latent
    every = family.full_every
    windows = [one.window for one in attentions if one.window is not None]
    window = windows[0] if windows and every else None
    windowed = tuple(window is not None and one.window is not None for one in attentions)
    widest = max(attentions, key=lambda one: one.kv_heads)
    key, value = widest.key_dim, widest.value_dim
    if latent is not None:
        key, value = latent.kv_rank + latent.rope_dim, latent.kv_rank
    return GgufShape(
        architecture=name,
        embedding=model.hidden,
        vocabulary=model.vocabulary,
        heads=widest.heads,
        kv_heads=tuple(0 if one.kind is AttentionKind.RECURRENT else one.kv_heads for one in attentions),
        key=key,
        value=value,
        tensors=dict(_tensors(model, name, attentions, routing)),
        windowed=windowed,
        window=window if any(windowed) else None,
        latent_rank=latent.kv_rank if latent is not None else None,
        latent_key=latent.nope_dim + latent.rope_dim if latent is not None else 0,
        latent_value=widest.value_dim if latent is not None else 0,
        rope_length=latent.rope_dim if latent is not None else 0,
        state_elements=_state_elements(model),
        experts_used=model.experts.per_token if model.experts is not None else None,
        routing=routing,
    )


def _tensors(
    model: Architecture, name: str, attentions: list[Attention], routing: Routing
) -> Iterator[tuple[str, Extents]]:
    hidden, vocabulary = model.hidden, model.vocabulary
    yield "token_embd.weight", (hidden, vocabulary)
    yield "output_norm.weight", (hidden,)
    if not model.tied:
        yield "output.weight", (hidden, vocabulary)
    if name == "phi2":
        yield "output.bias", (vocabulary,)
        yield "output_norm.bias", (hidden,)
    for index, (layer, attention) in enumerate(zip(model.layers, attentions, strict=True)):
        block = f"blk.{index}."
        yield block + "attn_norm.weight", (hidden,)
        if name == "phi2":
            yield block + "attn_norm.bias", (hidden,)
        if model.latent is not None:
            yield from _latent(block, model, model.latent, attention)
        elif attention.kind is AttentionKind.RECURRENT and model.recurrent is not None:
            yield from _delta(block, model, model.recurrent)
        else:
            yield from _attention(block, name, model, attention)
        yield from _norms(block, name, hidden)
        if layer.experts and model.experts is not None:
            yield from _experts(block, name, model, model.experts, routing)
        if layer.dense_width is not None and not layer.experts:
            yield from _dense(block, name, model, layer.dense_width)


def _attention(block: str, name: str, model: Architecture, attention: Attention) -> Iterator[tuple[str, Extents]]:
    hidden = model.hidden
    queries, keys = attention.heads * attention.key_dim, attention.kv_heads * attention.key_dim
    values = attention.kv_heads * attention.value_dim
    if name in _FUSED_QUERIES:
        yield block + "attn_qkv.weight", (hidden, queries + keys + values)
        if model.query_bias:
            yield block + "attn_qkv.bias", (queries + keys + values,)
    else:
        for letter, width in (("q", queries), ("k", keys), ("v", values)):
            yield f"{block}attn_{letter}.weight", (hidden, 2 * width if letter == "q" and name in _DELTA else width)
            if model.query_bias:
                yield f"{block}attn_{letter}.bias", (width,)
    yield block + "attn_output.weight", (attention.heads * attention.value_dim, hidden)
    if model.dense_biases:
        yield block + "attn_output.bias", (hidden,)
    if name in _HEAD_NORMS:
        yield block + "attn_q_norm.weight", (attention.key_dim,)
        yield block + "attn_k_norm.weight", (attention.key_dim,)
    if name == "minimax-m2":
        yield block + "attn_q_norm.weight", (queries,)
        yield block + "attn_k_norm.weight", (keys,)
    if name == "gpt-oss":
        yield block + "attn_sinks.weight", (attention.heads,)


def _latent(block: str, model: Architecture, latent: Latent, attention: Attention) -> Iterator[tuple[str, Extents]]:
    hidden, heads = model.hidden, attention.heads
    if latent.q_rank is not None:
        yield block + "attn_q_a.weight", (hidden, latent.q_rank)
        yield block + "attn_q_a_norm.weight", (latent.q_rank,)
        yield block + "attn_q_b.weight", (latent.q_rank, heads * attention.key_dim)
    else:
        yield block + "attn_q.weight", (hidden, heads * attention.key_dim)
    yield block + "attn_kv_a_mqa.weight", (hidden, latent.kv_rank + latent.rope_dim)
    yield block + "attn_kv_a_norm.weight", (latent.kv_rank,)
    yield block + "attn_k_b.weight", (latent.nope_dim, latent.kv_rank, heads)
    yield block + "attn_v_b.weight", (latent.kv_rank, attention.value_dim, heads)
    yield block + "attn_output.weight", (heads * attention.value_dim, hidden)


def _delta(block: str, model: Architecture, state: Recurrent) -> Iterator[tuple[str, Extents]]:
    """Gated DeltaNet; `_state_elements` counts what it remembers."""
    hidden, values = model.hidden, state.heads * state.head_dim
    yield block + "attn_qkv.weight", (hidden, state.channels)
    yield block + "attn_gate.weight", (hidden, values)
    yield block + "ssm_conv1d.weight", (state.kernel, state.channels)
    yield block + "ssm_dt.bias", (state.heads,)
    yield block + "ssm_a", (state.heads,)
    yield block + "ssm_beta.weight", (hidden, state.heads)
    yield block + "ssm_alpha.weight", (hidden, state.heads)
    yield block + "ssm_norm.weight", (state.head_dim,)
    yield block + "ssm_out.weight", (values, hidden)


def _state_elements(model: Architecture) -> int:
    state = model.recurrent
    if state is None:
        return 0
    return (state.kernel - 1) * state.channels + state.heads * state.head_dim * state.state_dim


def _norms(block: str, name: str, hidden: int) -> Iterator[tuple[str, Extents]]:
    if FAMILIES[name].post_norm_is_feed_forward_norm:
        yield block + "post_attention_norm.weight", (hidden,)
        return
    if FAMILIES[name].parallel is None:
        yield block + "ffn_norm.weight", (hidden,)
    if name in _POST_NORMS:
        yield block + "post_attention_norm.weight", (hidden,)
        yield block + "post_ffw_norm.weight", (hidden,)


def _dense(block: str, name: str, model: Architecture, width: int) -> Iterator[tuple[str, Extents]]:
    hidden = model.hidden
    if name in _FUSED_GATES:
        yield block + "ffn_up.weight", (hidden, 2 * width)
    else:
        yield block + "ffn_up.weight", (hidden, width)
        if model.gated:
            yield block + "ffn_gate.weight", (hidden, width)
    yield block + "ffn_down.weight", (width, hidden)
    if model.dense_biases:
        yield block + "ffn_up.bias", (width,)
        yield block + "ffn_down.bias", (hidden,)


def _experts(
    block: str, name: str, model: Architecture, experts: Experts, routing: Routing
) -> Iterator[tuple[str, Extents]]:
    hidden, count, width = model.hidden, experts.count, experts.width
    yield block + "ffn_gate_inp.weight", (hidden, count)
    for part in ("ffn_gate_exps", "ffn_up_exps"):
        yield f"{block}{part}.weight", (hidden, width, count)
        if model.dense_biases:
            yield f"{block}{part}.bias", (width, count)
    yield block + "ffn_down_exps.weight", (width, hidden, count)
    if model.dense_biases:
        yield block + "ffn_gate_inp.bias", (count,)
        yield block + "ffn_down_exps.bias", (hidden, count)
    if routing.biased:
        yield block + "exp_probs_b.bias", (count,)
    if experts.shared_width:
        if name in _GATED_SHARED:
            yield block + "ffn_gate_inp_shexp.weight", (hidden,)
        yield block + "ffn_gate_shexp.weight", (hidden, experts.shared_width)
        yield block + "ffn_up_shexp.weight", (hidden, experts.shared_width)
        yield block + "ffn_down_shexp.weight", (experts.shared_width, hidden)
