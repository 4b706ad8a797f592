"""`Architecture`: the numbers of a model from which its weights, its KV cache and its work per token follow.

Read from a `config.json` (`parse_config`) or from GGUF metadata; never guessed: a model type that is not known is
refused there. Not here: tensors (`gonogo.facts.weights`), bytes per engine (`gonogo.engines`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class AttentionKind(str, Enum):
    """What a layer remembers of the tokens before: all, a window, a chunk, a latent vector each, or a fixed state."""

    FULL = "full"
    SLIDING = "sliding"
    CHUNKED = "chunked"
    LATENT = "latent"
    RECURRENT = "recurrent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One layer's attention. Heads of `key_dim` and `value_dim` elements; `window` in tokens where there is one.

    `keys_are_values`: one tensor serves as both (Gemma 4's global layers), so that it is stored once.
    """

    kind: AttentionKind
    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    keys_are_values: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2): what is cached per token is `kv_rank` + `rope_dim` elements.

    `index_dim`, `index_heads`: of the sparse-attention indexer (DeepSeek-V3.2), None where there is none.
    """

    kv_rank: int
    rope_dim: int
    nope_dim: int
    q_rank: int | None
    index_dim: int | None = None
    index_heads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent:
    """A layer with a fixed state per sequence: Mamba-2, Gated DeltaNet or Kimi's delta attention.

    `channels`: of the causal convolution over `kernel` tokens. The state has `heads` × `head_dim` × `state_dim`
    elements. `inputs`, `outputs`: columns of the projection into the layer and rows of the one out of it.
    """

    channels: int
    kernel: int
    heads: int
    head_dim: int
    state_dim: int
    inputs: int
    outputs: int
    state_float32: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts: `count` routed ones of `width`, `per_token` active, `shared_width` columns always active.

    `input_width`: elements that enter and leave a routed expert, None: the hidden size (some models project down).
    """

    count: int
    per_token: int
    width: int
    shared_width: int
    input_width: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block: its attention (None: none), columns of its dense feed-forward (None: none), whether it has experts."""

    attention: Attention | None
    dense_width: int | None = None
    experts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Vision:
    """An image encoder in front of a language model.

    `parameters`: of encoder and projector together. `pixels_per_token`: of the image, along both sides together
    (patch² × merge²). `tokens_per_image`: fixed, or the most that one image can have; `pixel_bytes_per_image`: of that
    largest image as the encoder takes it, in 2-byte elements. `columns`: elements per patch where the encoder is
    widest; `patch_pixels`: of one patch.
    """

    parameters: int
    layers: int
    hidden: int
    pixels_per_token: int
    tokens_per_image: int
    pixel_bytes_per_image: int
    columns: int
    patch_pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How weights are stored: `method` is one of `gonogo.facts.schemes.SCHEMES`; parts in `skipped` stay as they are.

    `group`: weights that share one scale, None: the method's usual number.
    """

    method: str
    group: int | None = None
    skipped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One language model. `dtype_bytes` is 2 or 4; `context_tokens` is what it was trained for, None when not said.

    `position_cells`: elements of the tables of positions (cosine and sine per position) that an engine keeps beside the
    weights. `gated`: the feed-forward has two inputs (SwiGLU). `norms`: vectors of the hidden size per layer.
    """

    model_type: str
    hidden: int
    vocabulary: int
    layers: tuple[Layer, ...]
    dtype_bytes: int
    context_tokens: int | None
    tied: bool
    gated: bool
    query_bias: bool
    norms: int
    position_cells: int
    output_gate: bool = False
    latent: Latent | None = None
    recurrent: Recurrent | None = None
    experts: Experts | None = None
    vision: Vision | None = None
    scheme: Scheme | None = None
    draft_layers: int = 0
    dense_biases: bool = False
    oddity: str | None = None
    """What no formula here covers: plans of such a model say so and are never "fits"."""

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """Of the layers that attend, in order; recurrent ones included."""
        return tuple(layer.attention for layer in self.layers if layer.attention is not None)
