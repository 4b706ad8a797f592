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
    """Why a model could not be read: `kind` is missing, engine, unreadable, not_gguf, truncated, corrupt or unknown.

    `engine`: a recipe knows the model, and no engine of ours serves it; `detail` names the one that does.
    """

    kind: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One model as asked for (`asked`) and as found. With `problem` set the rest may be None."""

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
