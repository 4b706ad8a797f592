"""What llama.cpp's graph of an architecture does that its tensors do not show: a table, one line each.

Read in `src/models` of build 11434. The compute buffers of every architecture here were held against what the engine
printed (`tests/cases/engines/llamacpp/buffers`); for one that is not here the plan is a bound and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, Mapping


class Gating(str, Enum):
    """How a router's numbers become the weights of the chosen experts."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    SOFTMAX_OF_CHOSEN = "softmax_of_chosen"
    LOGITS_THEN_SIGMOID = "logits_then_sigmoid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Traits of a GGUF architecture. `full_every`: of its layers every n-th keeps the whole context, those between a
    window (of `window` tokens, where files do not say it).
    `parallel`: attention and feed-forward side by side. `deepstack`: layers that images enter after the first.
    """

    full_every: int | None = None
    window: int | None = None
    embedding_scale: Literal["rows", "all"] | None = None
    query_scale: bool = False
    norm_after_rope: bool = False
    norm_overwrites: bool = True
    no_rope_every: int | None = None
    rope_in_windows_only: bool = False
    head_norm_after_rope: bool = False
    gated_attention: bool = False
    attention_scale: bool = False
    residual_scale: bool = False
    logit_scale: bool = False
    logit_softcap: bool = False
    score_softcap: bool = False
    parallel: Literal["attention_first", "feed_forward_first"] | None = None
    post_norm_is_feed_forward_norm: bool = False
    squared: bool = False
    gating: Gating = Gating.SOFTMAX
    normed_weights: bool = True
    weights_before_experts: bool = False
    gate_by_division: bool = False
    outputs_last: bool = False
    positions_per_token: int = 1
    deepstack: int = 0


_PLAIN = Family()

FAMILIES: Mapping[str, Family] = {
    "llama": _PLAIN,
    "qwen2": _PLAIN,
    "qwen3": _PLAIN,
    "qwen3moe": _PLAIN,
    "qwen2moe": Family(normed_weights=False, gate_by_division=True),
    "gemma": Family(embedding_scale="all", query_scale=True),
    "gemma2": Family(full_every=2, embedding_scale="all", query_scale=True, logit_softcap=True, score_softcap=True),
    "gemma3": Family(full_every=6, embedding_scale="rows", query_scale=True),
    "phi3": Family(query_scale=True),
    "granite": Family(embedding_scale="all", residual_scale=True, logit_scale=True),
    "glm4": _PLAIN,
    "glm4moe": Family(post_norm_is_feed_forward_norm=True, gating=Gating.SIGMOID),
    "deepseek2": Family(gating=Gating.SIGMOID),
    "gpt-oss": Family(
        full_every=2,
        post_norm_is_feed_forward_norm=True,
        gating=Gating.SOFTMAX_OF_CHOSEN,
        normed_weights=False,
        outputs_last=True,
    ),
    "llama4": Family(
        full_every=4,
        window=8192,
        no_rope_every=4,
        attention_scale=True,
        norm_after_rope=True,
        gating=Gating.LOGITS_THEN_SIGMOID,
        normed_weights=False,
        weights_before_experts=True,
    ),
    "qwen2vl": Family(positions_per_token=4),
    "qwen3vl": Family(positions_per_token=4, deepstack=3),
    "qwen3vlmoe": Family(positions_per_token=4, deepstack=3),
    "minimax-m2": Family(gating=Gating.SIGMOID),
    "phi2": Family(parallel="attention_first", query_scale=True, norm_overwrites=False),
    "qwen35": Family(positions_per_token=4, gated_attention=True, post_norm_is_feed_forward_norm=True),
    "qwen35moe": Family(positions_per_token=4, gated_attention=True, post_norm_is_feed_forward_norm=True),
    "smollm3": Family(no_rope_every=4),
    "starcoder2": Family(norm_overwrites=False),
    "seed_oss": Family(post_norm_is_feed_forward_norm=True),
    "exaone4": Family(full_every=4, rope_in_windows_only=True),
    "cohere2": Family(
        full_every=4, rope_in_windows_only=True, parallel="feed_forward_first", norm_overwrites=False, logit_scale=True
    ),
    "ernie4_5": _PLAIN,
    "mistral3": _PLAIN,
    "internlm2": _PLAIN,
    "olmoe": Family(normed_weights=False),
    "granitemoe": Family(embedding_scale="all", residual_scale=True, logit_scale=True),
    "hunyuan-dense": Family(head_norm_after_rope=True),
    "arcee": Family(squared=True),
    "nemotron": Family(squared=True, norm_overwrites=False),
    "stablelm": Family(norm_overwrites=False),
    "orion": Family(norm_overwrites=False),
    "xverse": _PLAIN,
    "exaone": _PLAIN,
    "minicpm": Family(embedding_scale="all", residual_scale=True, logit_scale=True),
    "olmo2": _PLAIN,
    "command-r": Family(parallel="feed_forward_first", norm_overwrites=False, logit_scale=True),
}
