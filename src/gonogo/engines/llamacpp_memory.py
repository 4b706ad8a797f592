"""llama.cpp's memory: model, cache, output and compute buffers, where each lies, and why. Pure.

The first three are arithmetic; the compute buffer is rehearsed (`gonogo.engines.ggml_rehearsal`). An architecture whose
graph was not held against what the engine printed gets an upper bound that says so. Not here: options
(`llamacpp_settings`), the tensors of a model that is only known by its configuration (`llamacpp_names`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from gonogo.engines.ggml_rehearsal import CUDA_ALIGNMENT_BYTES, Graph, rehearse
from gonogo.engines.llamacpp_drawing import Batch, Era
from gonogo.engines.llamacpp_families import FAMILIES, Family
from gonogo.engines.llamacpp_graph import build_graph
from gonogo.engines.llamacpp_offload import rehearse_offloaded
from gonogo.engines.llamacpp_quantize import BLOCKS, Mixture, tensor_bytes, tensor_kind
from gonogo.engines.llamacpp_settings import LlamaSettings
from gonogo.engines.llamacpp_shape import GgufShape
from gonogo.engines.memory import MemoryPlan, Term

MIB = 1024**2
SINGLE, ROW_PADDING = 4, 512
HOST = "host"
ROTATED_EVERY = 64
"""Heads of a multiple of so many elements are rotated before a quantized cache takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One buffer: the term, and where it lies: `host`, or `device 0` and so on."""

    term: Term
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaMemory:
    """All buffers of one server. `exact`: the compute buffer is no bound."""

    placed: tuple[Placed, ...]
    exact: bool

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.place for one in self.placed))

    def bytes_of(self, name: str | None = None, place: str | None = None) -> int:
        """Bytes of the named buffers (None: all) in one place (None: all)."""
        return sum(
            one.term.size_bytes for one in self.placed if name in (None, one.term.name) and place in (None, one.place)
        )

    @property
    def plan(self) -> MemoryPlan:
        """As one addition, wherever the terms lie."""
        return MemoryPlan(terms=tuple(one.term for one in self.placed))


def memory_of(shape: GgufShape, weights: Mapping[str, int], settings: LlamaSettings) -> LlamaMemory:
    """All buffers. `weights`: bytes of each tensor. Raises ValueError for a cache type that is not known."""
    layers = _layer_places(len(shape.kv_heads), settings)
    compute, exact = _compute(shape, weights, settings)
    placed = [
        *_weights(shape, weights, layers),
        *_cache(shape, layers, settings),
        *_indexers(shape, layers, settings),
        *_states(shape, layers, settings),
        *compute,
        Placed(term=_output(shape, settings), place=HOST),
    ]
    if settings.projector_bytes:
        term = Term(name="projector", size_bytes=settings.projector_bytes, source="the file of --mmproj")
        placed.append(Placed(term=term, place=layers[-1]))
    if settings.prompt_cache_bytes:
        source = "llama-server's cache of former prompts, at its limit (--cache-ram)"
        term = Term(name="prompt_cache", size_bytes=settings.prompt_cache_bytes, source=source)
        placed.append(Placed(term=term, place=HOST))
    return LlamaMemory(placed=tuple(placed), exact=exact)


def weights_of(shape: GgufShape, quantization: str) -> Mapping[str, int]:
    """Bytes of each tensor as llama.cpp's quantizer would store it. Raises ValueError for an unknown quantization."""
    heads = shape.heads_of(0)
    layers = len(shape.kv_heads)
    router = shape.tensors.get(f"blk.{layers - 1}.ffn_gate_inp.weight")
    mixture = Mixture(
        name=quantization.upper(),
        layers=layers,
        grouped=heads // max(1, shape.kv_heads[0]),
        experts=router[1] if router is not None else 0,
        tied="output.weight" not in shape.tensors,
        large=layers == 80 and shape.architecture in ("llama", "qwen2"),
    )
    try:
        return {
            name: tensor_bytes(extents, tensor_kind(mixture, name, extents)) for name, extents in shape.tensors.items()
        }
    except KeyError as error:
        raise ValueError(f"the quantization {quantization!r} is not known") from error


def cache_row_bytes(elements: int, kind: str) -> int:
    """Bytes of one token's keys (or values) of one layer. Raises ValueError for a type that no cache can have."""
    block = BLOCKS.get(kind.upper())
    if block is None or elements % block[0]:
        raise ValueError(f"a cache of {elements} elements per token cannot be stored as {kind!r}")
    return elements // block[0] * block[1]


def _layer_places(layers: int, settings: LlamaSettings) -> tuple[str, ...]:
    """Where each layer lies, and behind them the output: the last so many on accelerators, in equal shares."""
    count = layers + 1 if settings.offloaded is None else min(settings.offloaded, layers + 1)
    first = layers + 1 - count
    return tuple(
        HOST if index < first else f"device {(index - first) * settings.devices // count}"
        for index in range(layers + 1)
    )


def _weights(shape: GgufShape, weights: Mapping[str, int], layers: Sequence[str]) -> list[Placed]:
    sizes: dict[str, int] = {}
    for name, size in weights.items():
        parts = name.split(".")
        if name in ("token_embd.weight", "per_layer_token_embd.weight"):
            place = HOST
        elif parts[0] == "blk":
            if int(parts[1]) >= len(layers) - 1:
                continue  # layers that guess tokens ahead are not loaded
            place = layers[int(parts[1])]
        else:
            place = layers[-1]
        sizes[place] = sizes.get(place, 0) + (size if place == HOST else _on_device(size, shape.tensors.get(name)))
    if "output.weight" not in weights and layers[-1] != HOST:
        sizes[layers[-1]] = sizes.get(layers[-1], 0) + weights.get("token_embd.weight", 0)
    source = "sum of the tensors; what lies on the host is shared by replicas through the page cache"
    return [
        Placed(term=Term(name="weights", size_bytes=size, source=source), place=place)
        for place, size in sorted(sizes.items())
    ]


def _on_device(size: int, extents: tuple[int, ...] | None) -> int:
    """CUDA pads the last row of a quantized tensor to 512 elements, and every tensor to 128 bytes."""
    count = 1
    for extent in extents or ():
        count *= extent
    if extents and size < 2 * count and extents[0] % ROW_PADDING:
        size += size * (ROW_PADDING - extents[0] % ROW_PADDING) // count
    return -(-size // CUDA_ALIGNMENT_BYTES) * CUDA_ALIGNMENT_BYTES


def _cache(shape: GgufShape, layers: Sequence[str], settings: LlamaSettings) -> list[Placed]:
    sizes: dict[str, int] = {} if any(shape.kv_heads) else {layers[-1]: 0}
    for layer, heads in enumerate(shape.kv_heads):
        if not heads:
            continue
        cells = settings.window_cells(shape.window or 0) if shape.windowed[layer] else settings.cells
        row = cache_row_bytes(heads * shape.key, settings.key_type)
        if shape.latent_rank is None:
            width = heads * shape.value if settings.flash_attention else shape.widest_values
            row += cache_row_bytes(width, settings.value_type)
        place = layers[layer]
        sizes[place] = sizes.get(place, 0) + row * cells * settings.streams
    source = _cache_source(shape, settings)
    return [
        Placed(term=Term(name="kv_cache", size_bytes=size, source=source), place=place)
        for place, size in sorted(sizes.items())
    ]


def _indexers(shape: GgufShape, layers: Sequence[str], settings: LlamaSettings) -> list[Placed]:
    """Keys by which sparse attention finds what to attend to (DeepSeek-V3.2): one head beside each layer's cache."""
    if not shape.index_length:
        return []
    kept = len(shape.kv_heads) if shape.index_layers is None else shape.index_layers
    size = kept * cache_row_bytes(shape.index_length, settings.key_type) * settings.cells * settings.streams
    source = f"{kept} layers × {settings.streams} × {settings.cells} tokens × {shape.index_length} elements"
    source += ", an upper bound: some layers may share an indexer" if shape.index_layers is None else ""
    return [Placed(term=Term(name="indexer_cache", size_bytes=size, source=source), place=layers[-1])]


def _states(shape: GgufShape, layers: Sequence[str], settings: LlamaSettings) -> list[Placed]:
    """Fixed states of layers without a cache, one per sequence, in float32."""
    sizes: dict[str, int] = {}
    for layer, heads in enumerate(shape.kv_heads):
        if not heads and shape.state_elements:
            each = settings.sequences * shape.state_elements * SINGLE
            sizes[layers[layer]] = sizes.get(layers[layer], 0) + each
    source = (
        f"{settings.sequences} sequences × {shape.state_elements} elements × {SINGLE} B in each layer without a cache"
    )
    return [
        Placed(term=Term(name="recurrent_state", size_bytes=size, source=source), place=place)
        for place, size in sorted(sizes.items())
    ]


def _cache_source(shape: GgufShape, settings: LlamaSettings) -> str:
    if not any(shape.kv_heads):
        return "no attention heads" + ("" if shape.state_elements else "; a recurrent state is not counted")
    source = f"{settings.streams} × {settings.cells} tokens × {sum(map(bool, shape.kv_heads))} layers"
    if shape.latent_rank is not None:
        return f"{source} × {shape.key} latent elements ({settings.key_type.lower()})"
    source += f" × {max(shape.kv_heads)} heads × {shape.key} + {shape.value} elements"
    source += f" ({settings.key_type.lower()}, {settings.value_type.lower()})"
    if shape.window and not shape.has_windows:
        return f"{source}, an upper bound: some layers may keep only a window"
    if shape.window:
        few = sum(shape.windowed)
        source += f", {few} of the layers with {settings.window_cells(shape.window)} tokens only"
    return source


def _output(shape: GgufShape, settings: LlamaSettings) -> Term:
    size = settings.sequences * shape.vocabulary * SINGLE
    return Term(name="output", size_bytes=size, source=f"{settings.sequences} × {shape.vocabulary} words × {SINGLE} B")


def _batch(shape: GgufShape, settings: LlamaSettings) -> Batch:
    return Batch(
        tokens=settings.tokens,
        outputs=settings.outputs,
        cells=settings.cells,
        window_cells=settings.window_cells(shape.window or 0),
        streams=settings.streams,
        flash_attention=settings.flash_attention,
        rotated_keys=_rotated(settings.key_type, shape.key) and shape.latent_rank is None,
        rotated_values=_rotated(settings.value_type, shape.value) and shape.latent_rank is None,
        sequences=settings.sequences,
        era=settings.era,
    )


def _rotated(kind: str, length: int) -> bool:
    return BLOCKS.get(kind.upper(), (1, 0))[0] > 1 and length % ROTATED_EVERY == 0


def _compute(shape: GgufShape, weights: Mapping[str, int], settings: LlamaSettings) -> tuple[list[Placed], bool]:
    family = FAMILIES.get(shape.architecture)
    graph = _graph(shape, family, settings) if family is not None else None
    if graph is None:
        return [_bound(shape, settings)], False
    said = f"a step of {settings.tokens} tokens, rehearsed as ggml shares out its memory"
    layers = len(shape.kv_heads)
    count = layers + 1 if settings.offloaded is None else min(settings.offloaded, layers + 1)
    if count == 0:
        source = f"{said}; held against what {shape.architecture} printed"
        return [Placed(term=Term(name="compute", size_bytes=rehearse(graph), source=source), place=HOST)], True
    exact = count == layers + 1 and settings.devices == 1 and settings.era is not Era.CURRENT
    return _offloaded(graph, weights, settings, count == layers + 1, said), exact


def _graph(shape: GgufShape, family: Family, settings: LlamaSettings) -> Graph | None:
    """None for a file whose tensors are not those of its architecture today, as an older converter wrote them."""
    if any(name.endswith("attn_kv_b.weight") for name in shape.tensors):
        return None
    try:
        return build_graph(shape, family, _batch(shape, settings))
    except KeyError:
        return None


def _offloaded(
    graph: Graph, weights: Mapping[str, int], settings: LlamaSettings, whole: bool, said: str
) -> list[Placed]:
    """Compute buffers with accelerators: what one would need that held all layers, on each of them."""
    divided = rehearse_offloaded(graph)
    host, device, bound = divided.host_bytes, divided.device_bytes, ""
    if not whole:
        host, device = max(host, rehearse(graph)), device + max(weights.values(), default=0)
        bound = "; a bound: some layers stay on the host, whose weights may be copied over"
    elif settings.devices > 1:
        device, bound = device + host, "; a bound: stages work on several steps at once"
    elif settings.era is Era.CURRENT:
        bound = "; not held against a current build on an accelerator"
    found = [Placed(term=Term(name="compute", size_bytes=host, source=said + bound), place=HOST)]
    found += [
        Placed(term=Term(name="compute", size_bytes=device, source=said + bound), place=f"device {index}")
        for index in range(settings.devices)
    ]
    return found


def _bound(shape: GgufShape, settings: LlamaSettings) -> Placed:
    """Twice what a transformer of these sizes needs, and all scores of one layer: for graphs that are not known."""
    queries, keys = shape.heads * shape.key, max(shape.kv_heads, default=0) * shape.key
    widest = max((extents[1] for name, extents in shape.tensors.items() if _is_feed_forward(name, extents)), default=0)
    widest = max(3 * max(widest, 4 * shape.embedding), 2 * queries + 2 * keys) * (shape.experts_used or 1)
    inputs = SINGLE * 5 * shape.embedding + SINGLE * settings.cells * 2 + 36
    peak = max(settings.tokens * SINGLE * widest, settings.outputs * SINGLE * shape.vocabulary)
    scores = settings.tokens * SINGLE * shape.heads * settings.cells
    size = 2 * (settings.tokens * inputs + peak) + scores
    source = (
        f"twice what {settings.tokens} tokens take at the widest layer + attention scores: a bound, not held against"
    )
    return Placed(term=Term(name="compute", size_bytes=size, source=f"{source} this architecture"), place=HOST)


def _is_feed_forward(name: str, extents: tuple[int, ...]) -> bool:
    return "ffn_up" in name and len(extents) > 1
