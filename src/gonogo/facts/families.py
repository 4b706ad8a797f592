"""What each model type is like, where its `config.json` does not say it: a table, one line a family.

Sources: the configuration and modelling classes of transformers 4.57.1 and of vLLM 0.19.0, read in their wheels. A new
family is one line here; what it cannot say with these words is a reason to extend `Architecture`, not to guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Mapping

from gonogo.facts.architecture import AttentionKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Traits of a model type. `norms`: vectors of the hidden size per layer; `full_every`: of n layers the last attends
    to everything, those `between` less; `blocks`: how layers are listed; `oddity`: what no formula here covers."""

    gated: bool = True
    query_bias: bool = False
    dense_biases: bool = False
    tied: bool = False
    norms: int = 2
    latent: bool = False
    full_every: int | None = None
    between: AttentionKind = AttentionKind.SLIDING
    window_everywhere: bool = False
    rope: bool = True
    local_positions: bool = False
    rotary_part: float = 1.0
    output_gate: bool = False
    shared_expert: bool = False
    dense_beside_experts: bool = False
    blocks: Literal["listed", "letters", "searched"] = "listed"
    oddity: str | None = None


_PLAIN = Family()
_LATENT = Family(latent=True)
_DELTA = Family(full_every=4, between=AttentionKind.RECURRENT, output_gate=True, rotary_part=0.25)
_QWEN2 = Family(query_bias=True)
_GEMMA3 = Family(tied=True, norms=4, full_every=6, local_positions=True)
_GEMMA4 = Family(tied=True, norms=4, full_every=6, local_positions=True, dense_beside_experts=True)
_LLAMA4 = Family(full_every=4, between=AttentionKind.CHUNKED, shared_expert=True)

FAMILIES: Mapping[str, Family] = {
    "llama": _PLAIN,
    "mistral": Family(window_everywhere=True),
    "mistral3": _PLAIN,
    "mixtral": Family(window_everywhere=True),
    "qwen2": _QWEN2,
    "qwen2_moe": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen3": _PLAIN,
    "qwen3_moe": _PLAIN,
    "qwen3_vl": _PLAIN,
    "qwen3_vl_text": _PLAIN,
    "qwen3_vl_moe": _PLAIN,
    "qwen3_next": _DELTA,
    "qwen3_5": _DELTA,
    "qwen3_5_moe": _DELTA,
    "gemma": Family(tied=True),
    "gemma2": Family(tied=True, norms=4, full_every=2),
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gemma4": _GEMMA4,
    "gemma4_text": _GEMMA4,
    "phi": Family(gated=False, query_bias=True, dense_biases=True, norms=2, rotary_part=0.4),
    "phi3": _PLAIN,
    "granite": Family(tied=True),
    "llava_next": _PLAIN,
    "opt": Family(gated=False, query_bias=True, dense_biases=True, norms=4, rope=False, tied=True),
    "glm": Family(query_bias=True, rotary_part=0.5),
    "glm4": Family(query_bias=True, norms=4, rotary_part=0.5),
    "glm4v": Family(query_bias=True, norms=4, rotary_part=0.5),
    "glm4v_text": Family(query_bias=True, norms=4, rotary_part=0.5),
    "glm4_moe": Family(query_bias=True, rotary_part=0.5),
    "glm_moe_dsa": _LATENT,
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "deepseek_v32": _LATENT,
    "deepseek_ref": Family(oddity="compressed attention of DeepSeek-V4"),
    "deepseek_v4": Family(oddity="compressed attention of DeepSeek-V4"),
    "kimi_k2": _LATENT,
    "kimi_k25": _LATENT,
    "kimi_vl": _LATENT,
    "kimi_k3": Family(latent=True, oddity="delta attention beside latent attention of Kimi-K3"),
    "kimi_linear": Family(latent=True, oddity="delta attention beside latent attention of Kimi-K3"),
    "minimax_m2": Family(rotary_part=0.5),
    "minimax_m3": Family(rotary_part=0.5, oddity="block-sparse attention of MiniMax-M3"),
    "minimax_m3_vl": Family(rotary_part=0.5, oddity="block-sparse attention of MiniMax-M3"),
    "mimo": _QWEN2,
    "mimo_v2_flash": Family(local_positions=True),
    "step3p7": Family(),
    "nemotron_h": Family(gated=False, norms=1, rope=False, blocks="letters"),
    "nemotron-nas": Family(blocks="searched"),
    "gpt_oss": Family(query_bias=True, dense_biases=True, full_every=2),
    "llama4": _LLAMA4,
    "llama4_text": _LLAMA4,
}
