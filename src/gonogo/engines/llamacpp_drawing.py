"""What graphs of llama.cpp are drawn with: one model, one batch, and the few shapes of operations that matter. Pure.

Not here: which operations a layer consists of (`gonogo.engines.llamacpp_graph`, and attention and experts beside it).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from gonogo.engines.ggml_rehearsal import Graph, Value
from gonogo.engines.llamacpp_families import Family
from gonogo.engines.llamacpp_shape import GgufShape

HALF, SINGLE, LONG = 2, 4, 8


class Era(Enum):
    """What builds did differently: first they copied keys and values into the cache, then they wrote rows of it, and
    now words and vectors can come in one batch, and masks come in half width."""

    COPIES = 1
    ROWS = 2
    CURRENT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a graph is built for: tokens of `streams` separate caches of so many cells, and the tokens whose logits are
    wanted. `rotated_keys`, `rotated_values`: a quantized cache is rotated first."""

    tokens: int
    outputs: int
    cells: int
    window_cells: int
    streams: int
    flash_attention: bool
    rotated_keys: bool = False
    rotated_values: bool = False
    sequences: int = 1
    era: Era = Era.CURRENT


@dataclass(slots=True)
class Drawing:
    """A graph while it is drawn. A layer that lacks a tensor raises KeyError. `scale`: of attention, by position."""

    shape: GgufShape
    family: Family
    batch: Batch
    positions: Value
    scale: Value | None = None
    graph: Graph = field(default_factory=Graph)

    def norm(self, value: Value, name: str) -> Value:
        """The value as it is when the model has no such norm (unless the architecture norms without weights)."""
        if name + ".weight" not in self.shape.tensors:
            return value
        normed = Value(shape=value.shape, sources=(value,), may_overwrite=self.family.norm_overwrites)
        normed = self.same(normed, self.weight())
        return self.same(normed, self.weight()) if name + ".bias" in self.shape.tensors else normed

    def bias(self, value: Value, name: str) -> Value:
        return self.same(value, self.weight()) if name + ".bias" in self.shape.tensors else value

    def expert_bias(self, value: Value, name: str, chosen: Value) -> Value:
        return self.same(value, self.weight(), chosen) if name + ".bias" in self.shape.tensors else value

    def weighted(self, value: Value, width: int) -> Value:
        return Value(shape=(width, *value.shape[1:]), sources=(self.weight(), value))

    def rows(self, value: Value, wanted: Value) -> Value:
        return Value(shape=(value.shape[0], wanted.shape[0], 1, 1), sources=(value, wanted))

    @staticmethod
    def given(*extents: int, item: int = SINGLE) -> Value:
        return Value(shape=(*extents, *(1,) * (4 - len(extents))), item_bytes=item, given=True)

    @staticmethod
    def weight() -> Value:
        return Value(shape=(1, 1, 1, 1), stored=True)

    @staticmethod
    def stored(shape: tuple[int, ...]) -> Value:
        return Value(shape=shape, item_bytes=HALF, stored=True)

    @staticmethod
    def same(value: Value, *others: Value) -> Value:
        return Value(shape=value.shape, sources=(value, *others), may_overwrite=True)

    @staticmethod
    def root(value: Value) -> Value:
        return value.base if value.base is not None else value

    def view(self, base: Value, shape: tuple[int, ...], *sources: Value) -> Value:
        return Value(shape=shape, base=self.root(base), sources=sources, item_bytes=base.item_bytes)
