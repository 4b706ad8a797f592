"""Reads a model's `config.json` (as parsed JSON) into an `Architecture`. Pure.

A model type that `families` does not list is refused by name: a guessed architecture makes a plan that lies. Numbers
that are missing or impossible are refused too, with what was seen. Not here: what each family is like (`families`),
image encoders (`parse_vision`), quantization (`schemes`).
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from gonogo.facts.architecture import (
    Architecture,
    Attention,
    AttentionKind,
    Experts,
    Latent,
    Layer,
    Recurrent,
)
from gonogo.facts.families import FAMILIES, Family
from gonogo.facts.numbers import ConfigError, Numbers, shown
from gonogo.facts.parse_vision import parse_vision
from gonogo.facts.schemes import parse_scheme

TEXT_SECTIONS = ("text_config", "llm_config", "language_config")
MOST_LAYERS = 1024


def parse_config(config: Mapping[str, Any]) -> Architecture:
    """The architecture. Raises ConfigError with what was seen: an unknown type, a missing or impossible number."""
    outer = Numbers(config)
    inner = next((config[name] for name in TEXT_SECTIONS if isinstance(config.get(name), Mapping)), config)
    numbers = Numbers({**_shared(config), **inner})
    family = family_of(config)
    layers = _layers(numbers, family)
    architecture = Architecture(
        model_type=str(config.get("model_type")),
        hidden=numbers.count("hidden_size"),
        vocabulary=numbers.count("vocab_size"),
        layers=layers,
        dtype_bytes=4 if numbers.text("torch_dtype", "dtype") == "float32" else 2,
        context_tokens=numbers.maybe("max_position_embeddings", "seq_length"),
        tied=bool(numbers.flag("tie_word_embeddings", outer.flag("tie_word_embeddings", family.tied))),
        gated=family.gated,
        query_bias=bool(numbers.flag("attention_bias", numbers.flag("qkv_bias", family.query_bias))),
        norms=family.norms,
        position_cells=_position_cells(numbers, family),
        output_gate=bool(numbers.flag("attn_output_gate", family.output_gate)),
        latent=_latent(numbers) if family.latent else None,
        recurrent=_recurrent(numbers, family),
        experts=_experts(numbers, family),
        vision=parse_vision(config, numbers.count("hidden_size")),
        scheme=parse_scheme(config, inner),
        draft_layers=numbers.maybe("num_nextn_predict_layers", "mtp_num_hidden_layers") or 0,
        dense_biases=family.dense_biases,
        oddity=family.oddity,
    )
    if any(layer.experts for layer in layers) and architecture.experts is None:
        raise ConfigError("config_contradicts", "layers with experts, and no number of experts")
    return architecture


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a configuration. Raises ConfigError when its model type is not known."""
    named = [config.get("model_type")]
    named += [config[name].get("model_type") for name in TEXT_SECTIONS if isinstance(config.get(name), Mapping)]
    for name in named:
        if isinstance(name, str) and name in FAMILIES:
            return FAMILIES[name]
    raise ConfigError("unknown_architecture", f"model_type {shown(named[0])}")


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a composed configuration says once for both of its parts."""
    return {name: config[name] for name in ("torch_dtype", "dtype", "tie_word_embeddings") if name in config}


def _head_dim(numbers: Numbers) -> int:
    given = numbers.maybe("head_dim")
    if given is not None:
        return given
    hidden, heads = numbers.count("hidden_size"), numbers.count("num_attention_heads")
    if hidden < heads:
        raise ConfigError("config_contradicts", f"{heads} heads of a hidden size of {hidden}")
    return hidden // heads


def _layers(numbers: Numbers, family: Family) -> tuple[Layer, ...]:
    if family.blocks == "letters":
        return _letters(numbers)
    if family.blocks == "searched":
        return _searched(numbers)
    count = numbers.count("num_hidden_layers")
    if count > MOST_LAYERS:
        raise ConfigError("config_contradicts", f"num_hidden_layers is {count}, more than {MOST_LAYERS}")
    for name in ("mlp_layer_types", "moe_layer_freq"):
        listed = numbers.items(name)
        if listed is not None:
            _agree(numbers, len(listed), f"{len(listed)} {name}")
    kinds = _kinds(numbers, family, count)
    dense = numbers.maybe("intermediate_size_mlp", "dense_intermediate_size", "intermediate_size", "ffn_dim")
    found = []
    for index, kind in enumerate(kinds):
        experts = _has_experts(numbers, index)
        both = experts and family.dense_beside_experts
        width = None if experts and not both else dense
        if width is None and not experts:
            raise ConfigError("config_contradicts", f"layer {index} has neither a feed-forward width nor experts")
        found.append(Layer(attention=_attention(numbers, kind), dense_width=width, experts=experts))
    return tuple(found)


def _kinds(numbers: Numbers, family: Family, count: int) -> Sequence[AttentionKind]:
    """What each layer remembers: listed by name, by a pattern of numbers, or by the family's rhythm."""
    listed = numbers.items("layer_types")
    if listed is not None:
        kinds = [_KINDS.get(str(name)) for name in listed]
        unknown = [name for name, kind in zip(listed, kinds, strict=True) if kind is None]
        if unknown:
            raise ConfigError("unknown_architecture", f"layer type {shown(unknown[0])}")
        if len(kinds) != count:
            raise ConfigError("config_contradicts", f"{count} layers, and {len(kinds)} layer_types")
        found = [kind for kind in kinds if kind is not None]
        return [AttentionKind.LATENT if family.latent else kind for kind in found]
    pattern = numbers.items("hybrid_layer_pattern")
    if pattern is not None:
        if len(pattern) != count:
            raise ConfigError("config_contradicts", f"{count} layers, and a hybrid_layer_pattern of {len(pattern)}")
        return [AttentionKind.SLIDING if one else AttentionKind.FULL for one in pattern]
    delta = numbers.section("linear_attn_config")
    if delta is not None:
        recurrent = [at for at in delta.items("kda_layers") or () if isinstance(at, int)]  # counted from 1
        return [AttentionKind.RECURRENT if at in recurrent else AttentionKind.LATENT for at in range(1, count + 1)]
    if family.latent:
        return [AttentionKind.LATENT] * count
    window = numbers.maybe("sliding_window")
    every = numbers.maybe("full_attention_interval", "sliding_window_pattern") or family.full_every
    if every is not None and (family.between is not AttentionKind.SLIDING or window):
        return [AttentionKind.FULL if (at + 1) % every == 0 else family.between for at in range(count)]
    windowed = window is not None and family.window_everywhere and numbers.flag("use_sliding_window", True)
    return [AttentionKind.SLIDING if windowed else AttentionKind.FULL] * count


def _attention(numbers: Numbers, kind: AttentionKind) -> Attention:
    heads, head_dim = numbers.count("num_attention_heads"), _head_dim(numbers)
    kv_heads = numbers.maybe("num_key_value_heads", "multi_query_group_num") or heads
    value_dim = numbers.maybe("v_head_dim") or head_dim
    if kind is AttentionKind.LATENT:
        key_dim = numbers.count("qk_nope_head_dim") + numbers.count("qk_rope_head_dim")
        return Attention(kind=kind, heads=heads, kv_heads=1, key_dim=key_dim, value_dim=value_dim)
    window = {
        AttentionKind.SLIDING: numbers.maybe("sliding_window"),
        AttentionKind.CHUNKED: numbers.maybe("attention_chunk_size"),
    }.get(kind)
    if kind is AttentionKind.SLIDING and numbers.maybe("swa_num_key_value_heads") is not None:
        heads, kv_heads = numbers.count("swa_num_attention_heads"), numbers.count("swa_num_key_value_heads")
        head_dim, value_dim = numbers.count("swa_head_dim"), numbers.maybe("swa_v_head_dim") or value_dim
    shared = False
    if kind is AttentionKind.FULL and numbers.maybe("global_head_dim") is not None:
        head_dim = value_dim = numbers.count("global_head_dim")
        kv_heads = numbers.maybe("num_global_key_value_heads") or kv_heads
        shared = bool(numbers.flag("attention_k_eq_v", False))
    if heads % kv_heads:
        raise ConfigError("config_contradicts", f"{heads} heads do not divide into {kv_heads} key-value heads")
    return Attention(
        kind=kind,
        heads=heads,
        kv_heads=kv_heads,
        key_dim=head_dim,
        value_dim=value_dim,
        window=window,
        keys_are_values=shared,
    )


def _has_experts(numbers: Numbers, index: int) -> bool:
    if _expert_count(numbers) is None:
        return False
    sparse = numbers.items("mlp_layer_types")
    if sparse is not None:
        return index < len(sparse) and sparse[index] == "sparse"
    frequency = numbers.items("moe_layer_freq")
    if frequency is not None:
        return index < len(frequency) and bool(frequency[index])
    if index in (numbers.items("mlp_only_layers") or ()):
        return False
    step = numbers.maybe("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq") or 1
    first = numbers.maybe("first_k_dense_replace") or 0
    offset = 1 if numbers.maybe("first_k_dense_replace") is None else 0  # counted from the first, or from 0 (DeepSeek)
    return index >= first and (index + offset) % step == 0


def _expert_count(numbers: Numbers) -> int | None:
    return numbers.maybe("n_routed_experts", "num_experts", "num_local_experts")


def _experts(numbers: Numbers, family: Family) -> Experts | None:
    count = _expert_count(numbers)
    if count is None:
        return None
    per_token = numbers.maybe(
        "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts", "moe_topk"
    )
    width = numbers.maybe("moe_intermediate_size") or numbers.count("intermediate_size")
    shared = numbers.maybe("moe_shared_expert_intermediate_size", "shared_expert_intermediate_size", "share_expert_dim")
    if shared is None:
        shared = (numbers.maybe("n_shared_experts", "num_shared_experts") or 0) * width
        shared = shared or numbers.maybe("shared_intermediate_size") or (width if family.shared_expert else 0)
    if per_token is None or not 0 < per_token <= count:
        raise ConfigError("config_contradicts", f"{per_token} active of {count} experts")
    return Experts(
        count=count,
        per_token=per_token,
        width=width,
        shared_width=shared,
        input_width=numbers.maybe("routed_expert_hidden_size", "moe_latent_size"),
    )


def _latent(numbers: Numbers) -> Latent:
    return Latent(
        kv_rank=numbers.count("kv_lora_rank"),
        rope_dim=numbers.count("qk_rope_head_dim"),
        nope_dim=numbers.count("qk_nope_head_dim"),
        q_rank=numbers.maybe("q_lora_rank"),
        index_dim=numbers.maybe("index_head_dim"),
        index_heads=numbers.maybe("index_n_heads"),
    )


def _recurrent(numbers: Numbers, family: Family) -> Recurrent | None:
    """Gated DeltaNet (Qwen3-Next), Kimi's delta attention, or Mamba-2 (Nemotron-H)."""
    float32 = numbers.text("mamba_ssm_dtype", "mamba_ssm_cache_dtype") == "float32"
    if numbers.maybe("linear_num_value_heads") is not None:
        keys = numbers.count("linear_num_key_heads") * numbers.count("linear_key_head_dim")
        heads, head_dim = numbers.count("linear_num_value_heads"), numbers.count("linear_value_head_dim")
        values = heads * head_dim
        return Recurrent(
            channels=2 * keys + values,
            kernel=numbers.maybe("linear_conv_kernel_dim") or 4,
            heads=heads,
            head_dim=head_dim,
            state_dim=numbers.count("linear_key_head_dim"),
            inputs=2 * keys + 2 * values + 2 * heads,
            outputs=values,
            state_float32=float32,
        )
    delta = numbers.section("linear_attn_config")
    if delta is not None:
        heads, head_dim = delta.count("num_heads"), delta.count("head_dim")
        wide = heads * head_dim
        return Recurrent(
            channels=3 * wide,
            kernel=delta.maybe("short_conv_kernel_size") or 4,
            heads=heads,
            head_dim=head_dim,
            state_dim=head_dim,
            inputs=5 * wide + heads,
            outputs=wide,
            state_float32=True,
        )
    if family.blocks == "letters" and numbers.maybe("mamba_num_heads") is not None:
        heads, head_dim = numbers.count("mamba_num_heads"), numbers.count("mamba_head_dim")
        state, groups = numbers.count("ssm_state_size"), numbers.maybe("n_groups", "mamba_n_groups") or 1
        return Recurrent(
            channels=heads * head_dim + 2 * groups * state,
            kernel=numbers.maybe("conv_kernel") or 4,
            heads=heads,
            head_dim=head_dim,
            state_dim=state,
            inputs=2 * heads * head_dim + 2 * groups * state + heads,
            outputs=heads * head_dim,
            state_float32=float32,
        )
    return None


def _letters(numbers: Numbers) -> tuple[Layer, ...]:
    """Nemotron-H: one letter a layer. M: Mamba-2, `*`: attention, `-`: feed-forward, E: experts."""
    letters = numbers.text("hybrid_override_pattern")
    if letters is None:
        named = numbers.items("layers_block_type")
        letters = "".join(_LETTERS.get(str(name), "?") for name in named or ())
    unknown = set(letters) - set("M*-E")
    if not letters or unknown or len(letters) > MOST_LAYERS:
        raise ConfigError("config_contradicts", f"a pattern of layers {letters[:40]!r}")
    _agree(numbers, len(letters), f"a pattern of {len(letters)}")
    recurrent = Attention(kind=AttentionKind.RECURRENT, heads=0, kv_heads=0, key_dim=0, value_dim=0)
    full = _attention(numbers, AttentionKind.FULL)
    made = {
        "M": Layer(attention=recurrent),
        "*": Layer(attention=full),
        "-": Layer(attention=None, dense_width=numbers.maybe("intermediate_size")),
        "E": Layer(attention=None, experts=True),
    }
    return tuple(made[letter] for letter in letters)


def _searched(numbers: Numbers) -> tuple[Layer, ...]:
    """Nemotron-NAS: each block has its own attention and feed-forward, or none."""
    blocks = numbers.items("block_configs")
    if not blocks or len(blocks) > MOST_LAYERS:
        raise ConfigError("config_contradicts", "no block_configs")
    _agree(numbers, len(blocks), f"{len(blocks)} block_configs")
    heads, hidden, dim = numbers.count("num_attention_heads"), numbers.count("hidden_size"), _head_dim(numbers)
    found: list[Layer] = []
    for block in blocks:
        parts = Numbers(block) if isinstance(block, Mapping) else Numbers({})
        attention, ffn = parts.section("attention"), parts.section("ffn")
        if attention is None or ffn is None:
            raise ConfigError("config_contradicts", f"block {len(found)} says nothing of its attention or feed-forward")
        group = attention.maybe("n_heads_in_group")
        seen = None
        if group is not None:
            kind, kv = AttentionKind.FULL, heads // group
            if heads % group:
                raise ConfigError("config_contradicts", f"{heads} heads do not divide into groups of {group}")
            seen = Attention(kind=kind, heads=heads, kv_heads=kv, key_dim=dim, value_dim=dim)
        multiplier = ffn.real("ffn_mult")
        width = None if multiplier is None else -(-int(2 * multiplier * hidden / 3) // 256) * 256
        found.append(Layer(attention=seen, dense_width=width))
    return tuple(found)


def _agree(numbers: Numbers, listed: int, what: str) -> None:
    """Layers that are listed one by one are as many as the configuration says."""
    count = numbers.maybe("num_hidden_layers")
    if count is not None and count != listed:
        raise ConfigError("config_contradicts", f"{count} layers, and {what}")


def _position_cells(numbers: Numbers, family: Family) -> int:
    """Elements of the tables of cosines and sines: as many rows as positions, stretched where the scaling stretches."""
    rows = numbers.maybe("max_position_embeddings")
    if not family.rope or rows is None:
        return 0
    rotated = numbers.maybe("qk_rope_head_dim")
    part = numbers.real("partial_rotary_factor") or family.rotary_part
    columns = rotated if rotated is not None else int(_head_dim(numbers) * part)
    local = rows * columns if family.local_positions else 0
    scaling = numbers.section("rope_scaling") or numbers.section("rope_parameters")
    factor = scaling.real("factor") if scaling is not None else None
    kind = scaling.text("rope_type", "type") if scaling is not None else None
    if factor is not None and kind in ("linear", "dynamic"):
        rows = int(rows * factor)
    if factor is not None and kind in ("yarn", "deepseek_yarn") and scaling is not None:
        rows = int((scaling.maybe("original_max_position_embeddings") or rows) * factor)
    return rows * columns + local


_KINDS = {
    "full_attention": AttentionKind.FULL,
    "attention": AttentionKind.FULL,
    "sliding_attention": AttentionKind.SLIDING,
    "chunked_attention": AttentionKind.CHUNKED,
    "linear_attention": AttentionKind.RECURRENT,
    "deepseek_sparse_attention": AttentionKind.LATENT,
}
_LETTERS = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
