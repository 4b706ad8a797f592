"""`GgufShape`: the numbers of one model that llama.cpp's buffers follow from, whatever they were read from. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How tokens find their experts: in so many groups, of which so many are used; weights that are normed or scaled;
    a bias that only chooses. `normed` None: as the architecture does."""

    groups: int | None = None
    groups_used: int | None = None
    normed: bool | None = None
    scaled: bool = False
    biased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufShape:
    """`tensors`: shapes by GGUF name (fastest dimension first). `kv_heads`: of each layer; `windowed`: whether a layer
    keeps only `window` tokens. `latent_*`, `rope_length`: of multi-head latent attention. None: there is none.

    `index_length`: elements of the key of a sparse-attention indexer, kept in `index_layers` layers (None: in all).
    `state_elements`: of what a layer without key and value heads remembers of a sequence, in float32.
    `heads_by_layer`: query heads where layers differ. `key`, `value`: elements of one head.
    """

    architecture: str
    embedding: int
    vocabulary: int
    heads: int
    kv_heads: tuple[int, ...]
    key: int
    value: int
    tensors: Mapping[str, tuple[int, ...]]
    windowed: tuple[bool, ...]
    window: int | None = None
    heads_by_layer: tuple[int, ...] | None = None
    latent_rank: int | None = None
    latent_key: int = 0
    latent_value: int = 0
    rope_length: int = 0
    state_elements: int = 0
    index_length: int = 0
    index_layers: int | None = None
    experts_used: int | None = None
    routing: Routing = Routing()

    @property
    def has_windows(self) -> bool:
        return any(self.windowed)

    def heads_of(self, layer: int) -> int:
        """Query heads of this layer."""
        return self.heads_by_layer[layer] if self.heads_by_layer else self.heads

    @property
    def widest_values(self) -> int:
        """Elements of all value heads of a token, in the layer where they are most."""
        return max(self.kv_heads, default=0) * self.value
