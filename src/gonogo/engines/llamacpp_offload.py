"""A graph of llama.cpp divided between the processor and one accelerator, as ggml's scheduler divides it. Pure.

Words are looked up by the processor, since their table stays there; what it hands over is copied, and a copy takes
memory on both sides. Read in `ggml-backend.cpp` of build 11434; held against one public log. Not here: layers that stay
on the processor, and several accelerators: for those `gonogo.engines.llamacpp_memory` states a bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gonogo.engines.ggml_rehearsal import (
    CUDA_ALIGNMENT_BYTES,
    HOST_ALIGNMENT_BYTES,
    Graph,
    Value,
    rehearse_on,
)

HOST, DEVICE = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """Bytes of the compute buffers."""

    host_bytes: int
    device_bytes: int


def rehearse_offloaded(graph: Graph) -> Divided:
    """The buffers of a graph whose every layer lies on the accelerator."""
    division = _Division()
    for node in graph.nodes:
        division.add(node)
    sizes = rehearse_on(
        graph.leaves, division.nodes, division.places, {HOST: HOST_ALIGNMENT_BYTES, DEVICE: CUDA_ALIGNMENT_BYTES}
    )
    return Divided(host_bytes=sizes[HOST], device_bytes=sizes[DEVICE])


class _Division:
    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self._host: list[Value] = []
        self._handed: list[Value] = []
        self._device: list[Value] = []
        self._made: dict[int, Value] = {}
        self._kept: list[Value] = []

    @property
    def nodes(self) -> list[Value]:
        """First what the processor computes, then what is handed over, then what the accelerator computes."""
        return [*self._host, *self._handed, *self._device]

    def add(self, node: Value) -> None:
        self._kept.append(node)
        if node.on_host:
            self._host.append(node)
            return
        sources = tuple(self._on_device(source) for source in node.sources)
        base = None if node.base is None else self._on_device(node.base)
        made = replace(node, sources=sources, base=base)
        self._made[id(node)] = made
        self.places[id(made)] = DEVICE
        self._device.append(made)

    def _on_device(self, source: Value) -> Value:
        if source.stored:
            return source
        if id(source) not in self._made:
            still_needed = replace(source, base=source, sources=(source,), given=False, on_host=False)
            copy = replace(source, sources=(), base=None, given=False, on_host=False)
            self._kept.append(source)
            self._handed += [still_needed, copy]
            self.places[id(copy)] = DEVICE
            self._made[id(source)] = copy
        return self._made[id(source)]
