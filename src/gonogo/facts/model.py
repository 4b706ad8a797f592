"""What was seen of a model. Read from its files' own headers, never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor as its file describes it, and its size on disk in bytes.

    In a GGUF file `shape` has the fastest dimension first and `kind` is a GGML type ("Q4_K"); in a safetensors file
    the slowest dimension comes first, as PyTorch prints it, and `kind` is the format's own word ("BF16").
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProblem:
    """Why a model cannot be used, or was not seen.

    `kind`, of a file: missing, unreadable, not_gguf, truncated, corrupt, unknown. Of a repository or folder:
    pickle_only, no_weights, shard_missing, shard_damaged, config_unreadable, config_contradicts, remote_code,
    unknown_architecture. Of a hub: id_mistaken, not_found, unauthorized, gated, and, as nothing was seen then:
    rate_limited, hub_unreachable, hub_broken, not_cached. `not_fetched`: its weights are on a hub, not here.
    """

    kind: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorFacts:
    """One projector file as found. With `problem` set the rest may be None.

    `problem.kind`: missing, unreadable, not_gguf, truncated, corrupt as of models; `not_projector`: it holds something
    else, which `detail` names. `kind`: llama.cpp's word for how it projects ("glm4v"). `image_size` and `patch_size` in
    pixels of a side; `merge`: so many patches of a side become one token, None: the file does not say. `output_length`:
    elements of one token for the text model, read from the tensor that makes it, None: not known for this kind;
    `projection_length` is the metadata's word for it. `feed_forward_length`, `merger_length`: read from the tensors.
    """

    path: str
    file_bytes: int | None = None
    problem: ModelProblem | None = None
    name: str | None = None
    kind: str | None = None
    image_size: int | None = None
    patch_size: int | None = None
    merge: int | None = None
    embedding_length: int | None = None
    feed_forward_length: int | None = None
    merger_length: int | None = None
    projection_length: int | None = None
    output_length: int | None = None
    weights_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One model as asked for (`asked`) and as found. With `problem` set the rest may be None.

    `path` is a file, or the folder of a checkpoint, whose `config.json` is `config` then.
    `sees_images`: whether there is an image encoder to it; a GGUF file by itself has none.
    `window_every`: of so many layers one keeps the whole context; `windowed_layers`: listed one by one. `draft_layers`:
    the last so many of `layers` only guess tokens ahead. `latent_*`, `rope_length`: of multi-head latent attention,
    elements per head. `expert_*`: how a router weighs and groups its experts. `state_elements`: of what a recurrent
    layer remembers of one sequence. `index_*`: of a sparse-attention indexer, its key and how many layers have one.
    `projector`: the one that the spec names for it (`World.model_of`), None: none.
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
    sees_images: bool | None = None
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
    config: Mapping[str, object] | None = None
    projector: ProjectorFacts | None = None
