"""What llama.cpp's graph of an architecture does that its tensors do not show: a table, one line each.

Read in `src/models` of build 11434. `held_against`: its compute buffers were held against what the engine printed
(`tests/cases/engines/llamacpp`); for all others the plan is a bound and says so.
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
    rope: bool = True
    no_rope_every: int | None = None
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
    held_against: bool = False


_PLAIN = Family(held_against=True)

FAMILIES: Mapping[str, Family] = {
    "llama": _PLAIN,
    "qwen2": _PLAIN,
    "qwen3": _PLAIN,
    "qwen3moe": _PLAIN,
    "qwen2moe": Family(normed_weights=False, gate_by_division=True, held_against=True),
    "gemma": Family(embedding_scale="all", query_scale=True, held_against=True),
    "gemma2": Family(
        full_every=2, embedding_scale="all", query_scale=True, logit_softcap=True, score_softcap=True, held_against=True
    ),
    "gemma3": Family(full_every=6, embedding_scale="rows", query_scale=True, held_against=True),
    "phi3": Family(query_scale=True, held_against=True),
    "granite": Family(embedding_scale="all", residual_scale=True, logit_scale=True, held_against=True),
    "glm4": Family(held_against=True),
    "glm4moe": Family(post_norm_is_feed_forward_norm=True, gating=Gating.SIGMOID, held_against=True),
    "deepseek2": Family(gating=Gating.SIGMOID, held_against=True),
    "gpt-oss": Family(
        full_every=2,
        post_norm_is_feed_forward_norm=True,
        gating=Gating.SOFTMAX_OF_CHOSEN,
        normed_weights=False,
        outputs_last=True,
        held_against=True,
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
        held_against=True,
    ),
    "qwen2vl": Family(positions_per_token=4, held_against=True),
    "qwen3vl": Family(positions_per_token=4, deepstack=3, held_against=True),
    "qwen3vlmoe": Family(positions_per_token=4, deepstack=3, held_against=True),
    "minimax-m2": Family(gating=Gating.SIGMOID, held_against=True),
    "phi2": Family(parallel="attention_first", query_scale=True, norm_overwrites=False, held_against=True),
    "olmo2": Family(held_against=True),
    "command-r": Family(parallel="feed_forward_first", norm_overwrites=False, logit_scale=True, held_against=True),
}
