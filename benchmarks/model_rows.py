"""Rows in the format of the facts folder's `models.json` → `Architecture`, for models that the catalogue does not list.

Such a row has fewer fields than a `config.json`: what is missing (ranks of latent attention, dense first layers, shared
experts, state sizes of recurrent layers) is filled in from the family that its name says, as that family's published
configurations have it. A name that says no family is refused, never guessed. Not here: reading files.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence

from gonogo.facts.architecture import Architecture
from gonogo.facts.numbers import ConfigError
from gonogo.facts.parse_config import parse_config


def architecture_of(row: Mapping[str, Any]) -> Architecture:
    """The architecture of one row. Raises ConfigError with what was seen: an unknown family, a missing number."""
    return parse_config(config_of(row))


def config_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `config.json` as well as the row allows them."""
    name = str(row.get("model") or "")
    model_type, family = _family(name, row)
    config: dict[str, Any] = {"model_type": model_type, **family}
    sparse = row.get("experts") is not None
    if not sparse:
        config.pop("num_experts_per_tok", None)
    for field, wanted in FIELDS.items():
        if row.get(field) is not None:
            config[wanted] = row[field]
    latent = row.get("kv_lora_rank") is not None
    if latent:
        config.pop("head_dim", None)
    else:
        config.pop("qk_rope_head_dim", None)
    if sparse:
        config.setdefault("num_experts_per_tok", 1 if model_type.startswith("llama4") else None)
    if sparse and row.get("moe_intermediate") is None and model_type not in _OWN_WIDTH:
        if "moe_intermediate_size" not in config and "first_k_dense_replace" in config:
            raise ConfigError("config_contradicts", "experts whose width is not said, beside dense layers")
        config.setdefault("moe_intermediate_size", row.get("intermediate"))
    pattern = row.get("layer_pattern")
    if isinstance(pattern, Mapping) and row.get("num_layers"):
        listed = _interleaved(pattern, int(row["num_layers"]))
        if listed is not None:
            config["layer_types"] = listed
    return {name: value for name, value in config.items() if value is not None}


def _family(name: str, row: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    plain = name.casefold()
    for pattern, model_type, family in _FAMILIES:
        if re.search(pattern, plain):
            return (_with_experts(model_type, row), family)
    raise ConfigError("unknown_architecture", f"a row whose name says no known family: {name!r}")


def _with_experts(model_type: str, row: Mapping[str, Any]) -> str:
    if row.get("experts") is None:
        return model_type
    return {"qwen3": "qwen3_moe", "qwen3_vl": "qwen3_vl_moe", "qwen3_5": "qwen3_5_moe"}.get(model_type, model_type)


def _interleaved(pattern: Mapping[str, Any], layers: int) -> Sequence[str] | None:
    """Kinds of layers in a regular order; which layer has which kind changes no sum. None: counts do not add up."""
    counts = {kind: int(count) for kind, count in pattern.items()}
    if sum(counts.values()) != layers:
        return None
    listed: list[str] = []
    placed = dict.fromkeys(counts, 0)
    for at in range(1, layers + 1):
        kind = max(counts, key=lambda one: counts[one] * at / layers - placed[one])
        placed[kind] += 1
        listed.append(kind)
    return listed


FIELDS: Mapping[str, str] = {
    "num_layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
    "tie_embeddings": "tie_word_embeddings",
    "experts": "num_experts",
    "experts_per_tok": "num_experts_per_tok",
    "moe_intermediate": "moe_intermediate_size",
    "kv_lora_rank": "kv_lora_rank",
    "qk_rope_head_dim": "qk_rope_head_dim",
    "sliding_window": "sliding_window",
    "dtype": "torch_dtype",
}
_OWN_WIDTH = ("llama4",)
_MLA = {"qk_nope_head_dim": 128, "v_head_dim": 128, "q_lora_rank": 1536, "n_shared_experts": 1}
_DSA = {"index_head_dim": 128, "index_n_heads": 32}
_DELTA = {
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "mamba_ssm_dtype": "float32",
}
_FAMILIES: Sequence[tuple[str, str, Mapping[str, Any]]] = (
    (
        r"deepseek-v2-lite",
        "deepseek_v2",
        {
            **_MLA,
            "q_lora_rank": None,
            "n_shared_experts": 2,
            "moe_intermediate_size": 1408,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "intermediate_size": 10944,
        },
    ),
    (
        r"deepseek-v3\.2",
        "deepseek_v32",
        {**_MLA, "index_head_dim": 128, "index_n_heads": 64, "first_k_dense_replace": 3},
    ),
    (r"deepseek-v4", "deepseek_v4", {"n_shared_experts": 1}),
    (r"deepseek-(v3|r1)", "deepseek_v3", {**_MLA, "first_k_dense_replace": 3}),
    (
        r"kimi-vl",
        "kimi_vl",
        {
            **_MLA,
            "q_lora_rank": None,
            "n_shared_experts": 2,
            "moe_intermediate_size": 1408,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
        },
    ),
    (r"kimi-k2", "kimi_k2", {**_MLA, "first_k_dense_replace": 1}),
    (r"kimi-dev", "qwen2", {}),
    (
        r"glm-5",
        "glm_moe_dsa",
        {**_MLA, **_DSA, "qk_nope_head_dim": 192, "v_head_dim": 256, "q_lora_rank": 2048, "first_k_dense_replace": 3},
    ),
    (r"glm-4\.5-air", "glm4_moe", {"num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 1}),
    (r"glm-4\.[56]", "glm4_moe", {"n_shared_experts": 1, "first_k_dense_replace": 3}),
    (r"glm-4\.1v|autoglm", "glm4v", {}),
    (r"glm-(4-|z1)", "glm4", {}),
    (r"minimax-m3", "minimax_m3", {}),
    (r"minimax-m2", "minimax_m2", {}),
    (r"mixtral", "mixtral", {}),
    (r"mistral-small|mistral-nemo", "mistral3", {}),
    (r"llava", "llava_next", {}),
    (r"mistral|ministral", "llama", {}),
    (r"qwen3-next", "qwen3_next", {**_DELTA, "shared_expert_intermediate_size": 512, "num_experts_per_tok": 10}),
    (r"qwen3\.[56]-397b", "qwen3_5", {**_DELTA, "linear_num_value_heads": 64, "shared_expert_intermediate_size": 1024}),
    (r"qwen3\.[56]-122b", "qwen3_5", {**_DELTA, "linear_num_value_heads": 64, "shared_expert_intermediate_size": 1024}),
    (r"qwen3\.[56]-35b", "qwen3_5", {**_DELTA, "shared_expert_intermediate_size": 512}),
    (r"qwen3\.[56]", "qwen3_5", {**_DELTA, "linear_num_value_heads": 48}),
    (r"qwen3-vl", "qwen3_vl", {}),
    (r"qwen3", "qwen3", {}),
    (r"qwen2\.5-vl|qwen2-vl", "qwen2_5_vl", {}),
    (r"qwen1\.5-moe|qwen2-57b", "qwen2_moe", {"num_experts_per_tok": 4, "shared_expert_intermediate_size": 5632}),
    (r"qwen(2|1\.5)", "qwen2", {}),
    (r"gemma-4", "gemma4_text", {"num_experts_per_tok": 8}),
    (r"gemma-3", "gemma3_text", {}),
    (r"gemma-2", "gemma2", {}),
    (r"gemma", "gemma", {}),
    (r"gpt-oss", "gpt_oss", {}),
    (
        r"llama-4-maverick",
        "llama4_text",
        {"interleave_moe_layer_step": 2, "attention_chunk_size": 8192, "intermediate_size_mlp": 16384},
    ),
    (r"llama-4", "llama4_text", {"attention_chunk_size": 8192, "intermediate_size_mlp": 16384}),
    (r"nemotron-super|nemotron-h|nemotron-3", "nemotron_h", {}),
    (r"mimo-v2", "mimo_v2_flash", {}),
    (r"mimo", "mimo", {}),
    (r"step-3", "step3p7", {}),
    (r"phi-2", "phi", {}),
    (r"phi-[34]", "phi3", {}),
    (r"granite-vision", "llava_next", {}),
    (r"granite", "granite", {}),
    (r"opt-", "opt", {}),
    (r"smollm|llama", "llama", {}),
)
"""By name, the first that matches. What the third column adds is the same in all published models of that family."""
