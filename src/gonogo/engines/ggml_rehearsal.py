"""Rehearses how ggml gives memory to a graph of tensors: its order, its reuse, its best fit. Pure.

llama.cpp's compute buffer is what this procedure ends with, so that a plan follows from the graph and not from a curve.
Read in `ggml-alloc.c` and `ggml.c` of build 11434. Not here: which graph a model has (`gonogo.engines.llamacpp_graph`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Sequence

HOST_ALIGNMENT_BYTES, CUDA_ALIGNMENT_BYTES = 32, 128
ENDLESS = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Value:
    """One tensor of a graph: four extents, bytes of one element, and what it is computed from.

    `base`: it is a view of that one. `stored`: it lies elsewhere (a weight, the cache). `given`: an input, which gets
    its memory before all others. `may_overwrite`: its operation can write over an operand of the same shape.
    """

    shape: tuple[int, ...]
    item_bytes: int = 4
    sources: tuple[Value, ...] = ()
    base: Value | None = None
    stored: bool = False
    given: bool = False
    may_overwrite: bool = False
    on_host: bool = False
    """Computed by the processor even when the model lies on an accelerator (the look-up of words)."""

    @property
    def size_bytes(self) -> int:
        count = self.item_bytes
        for extent in self.shape:
            count *= extent
        return count

    @property
    def leaf(self) -> bool:
        return not self.sources and self.base is None


@dataclass(slots=True)
class Graph:
    """Values in the order in which ggml computes them: operands first, from left to right."""

    nodes: list[Value] = field(default_factory=list)
    leaves: list[Value] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def expand(self, value: Value) -> None:
        """Append this value and what it needs, unless that is there already."""
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        for source in value.sources:
            self.expand(source)
        (self.leaves if value.leaf else self.nodes).append(value)


@dataclass(slots=True)
class _Use:
    children: int = 0
    views: int = 0
    given: bool = False
    offset: int = 0


def rehearse(graph: Graph, alignment_bytes: int = HOST_ALIGNMENT_BYTES) -> int:
    """Bytes of the buffer that one backend needs for this graph."""
    return _Rehearsal({0: alignment_bytes}).run(graph.leaves, graph.nodes, {})[0]


def rehearse_on(
    leaves: Sequence[Value], nodes: Sequence[Value], places: Mapping[int, int], alignments: Mapping[int, int]
) -> Mapping[int, int]:
    """Bytes of the buffer of each place; `places` says by a value's id where it lies (0 where it does not say)."""
    return _Rehearsal(alignments).run(leaves, nodes, places)


class _Rehearsal:
    def __init__(self, alignments: Mapping[int, int]) -> None:
        self._buffers = {place: _Buffer(alignment) for place, alignment in alignments.items()}
        self._uses: dict[int, _Use] = {}
        self._places: Mapping[int, int] = {}

    def run(self, leaves: Sequence[Value], nodes: Sequence[Value], places: Mapping[int, int]) -> Mapping[int, int]:
        self._places = places
        for leaf in leaves:
            self._give(leaf)
        for node in nodes:
            if node.base is not None and node.sources:
                self._use(node.base).views += 1
            for source in node.sources:
                self._use(source).children += 1
                if source.given:
                    self._give(source)
        for node in nodes:
            for source in node.sources:
                self._give(source)
            self._give(node)
            for source in node.sources:
                self._used_once(source)
        return {place: buffer.largest for place, buffer in self._buffers.items()}

    def _use(self, value: Value) -> _Use:
        return self._uses.setdefault(id(value), _Use())

    def _place(self, value: Value) -> _Buffer:
        return self._buffers[self._places.get(id(value), 0)]

    def _give(self, value: Value) -> None:
        use = self._use(value)
        if value.stored or value.base is not None or use.given:
            return
        use.given = True
        if value.may_overwrite:
            for source in value.sources:
                above = self._use(source)
                if self._can_overwrite(value, source, above):
                    use.offset, above.given = above.offset, False
                    return
        use.offset = self._place(value).take(value.size_bytes)

    def _can_overwrite(self, value: Value, source: Value, above: _Use) -> bool:
        """Only memory of the source's own that nobody else needs. ggml never counts a view as owning memory."""
        same = source.shape == value.shape and source.item_bytes == value.item_bytes
        return above.given and same and above.children == 1 and above.views == 0

    def _used_once(self, source: Value) -> None:
        use = self._use(source)
        use.children -= 1
        if use.children or use.views:
            return
        if source.base is not None:
            base = self._use(source.base)
            base.views -= 1
            if not base.views and not base.children and base.given:
                self._free(source.base)
        elif use.given:
            self._free(source)

    def _free(self, value: Value) -> None:
        use = self._use(value)
        use.given = False
        self._place(value).put_back(use.offset, value.size_bytes)


class _Buffer:
    """Free stretches in order of address. The smallest that fits is taken, the endless one behind all only at last."""

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment
        self._free: list[list[int]] = [[0, ENDLESS]]
        self.largest = 0

    def take(self, size: int) -> int:
        size = self._aligned(size)
        best = len(self._free) - 1
        smallest = ENDLESS
        for index, (_, length) in enumerate(self._free[:-1]):
            if size <= length <= smallest:
                best, smallest = index, length
        offset = self._free[best][0]
        self._free[best][0] += size
        self._free[best][1] -= size
        if not self._free[best][1]:
            del self._free[best]
        self.largest = max(self.largest, offset + size)
        return offset

    def put_back(self, offset: int, size: int) -> None:
        size = self._aligned(size)
        index = 0
        while index < len(self._free) and self._free[index][0] < offset:
            index += 1
        self._free.insert(index, [offset, size])
        for left in (index, index - 1):
            if 0 <= left < len(self._free) - 1:
                here, after = self._free[left], self._free[left + 1]
                if here[0] + here[1] == after[0]:
                    here[1] += after[1]
                    del self._free[left + 1]

    def _aligned(self, size: int) -> int:
        return -(-size // self._alignment) * self._alignment
