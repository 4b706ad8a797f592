"""What was seen of a model file. Read from GGUF metadata, never guessed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor: its shape (GGUF order: fastest dimension first), its GGML type and its size on disk."""

    name: str
    shape: tuple[int, ...]
    kind: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProblem:
    """Why a model could not be read: `kind` is one of missing, unreadable, not_gguf, truncated, corrupt, unknown."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One model as asked for (`asked`) and as found. With `problem` set the rest may be None.

    `window_every`: of so many layers one keeps the whole context; `windowed_layers`: listed one by one. `draft_layers`:
    the last so many of `layers` only guess tokens ahead. `latent_*`, `rope_length`: of multi-head latent attention,
    elements per head. `expert_*`: how a router weighs and groups its experts. `state_elements`: of what a recurrent
    layer remembers of one sequence. `index_*`: of a sparse-attention indexer, its key and how many layers have one.
    """

    asked: str
    path: str | None = None
    file_bytes: int | None = None
    problem: ModelProblem | None = None
    name: str | None = None
    architecture: str | None = None
    architecture_known: bool | None = None
    parameters: int | None = None
    quantization: str | None = None
    layers: int | None = None
    embedding_length: int | None = None
    feed_forward_length: int | None = None
    heads: int | None = None
    kv_heads: tuple[int, ...] | None = None
    key_length: int | None = None
    value_length: int | None = None
    sliding_window: int | None = None
    vocabulary: int | None = None
    context_tokens: int | None = None
    chat_template: str | None = None
    tensors: tuple[Tensor, ...] | None = None
    window_every: int | None = None
    windowed_layers: tuple[bool, ...] | None = None
    draft_layers: int | None = None
    experts_used: int | None = None
    expert_groups: int | None = None
    expert_groups_used: int | None = None
    expert_weights_normed: bool | None = None
    expert_weights_scaled: bool | None = None
    latent_rank: int | None = None
    latent_key_length: int | None = None
    latent_value_length: int | None = None
    rope_length: int | None = None
    state_elements: int | None = None
    index_length: int | None = None
    index_layers: int | None = None
