"""Gated DeltaNet in llama.cpp's graphs (Qwen3.5): a layer that keeps a fixed state per sequence. Pure.

Read in `qwen35.cpp` and `delta-net-base.cpp` of build 11434. Its sizes are those of its tensors: the convolution's
kernel and channels, the projections, the norm of one head.
"""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.engines.ggml_rehearsal import Value
from gonogo.engines.llamacpp_drawing import Drawing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Of one layer: kernel and channels of the convolution, heads of keys and values, elements of one head."""

    kernel: int
    channels: int
    key_heads: int
    value_heads: int
    head: int

    @classmethod
    def of(cls, draw: Drawing, layer: int) -> _Sizes:
        tensors, block = draw.shape.tensors, f"blk.{layer}."
        kernel, channels = tensors[block + "ssm_conv1d.weight"]
        head, values = tensors[block + "ssm_norm.weight"][0], tensors[block + "attn_gate.weight"][1]
        return cls(
            kernel=kernel,
            channels=channels,
            key_heads=(channels - values) // 2 // head,
            value_heads=values // head,
            head=head,
        )


def delta(draw: Drawing, layer: int, normed: Value, sequences: int, states: Value) -> Value:
    """The layer's output. `states`: the input that says which sequence's state lies where."""
    sizes, each = _Sizes.of(draw, layer), draw.batch.tokens // sequences
    mixed = draw.weighted(normed, sizes.channels)
    beside = draw.weighted(normed, sizes.value_heads * sizes.head)
    beta = draw.weighted(normed, sizes.value_heads)
    beta = draw.same(draw.view(beta, (1, sizes.value_heads, each, sequences), beta))
    alpha = draw.weighted(normed, sizes.value_heads)
    alpha = draw.same(draw.view(alpha, (sizes.value_heads, each, sequences, 1), alpha), draw.weight())
    decay = draw.same(draw.same(alpha), draw.weight())
    decay = draw.view(decay, (1, sizes.value_heads, each, sequences), decay)
    before = _state(draw, states, (sizes.kernel - 1) * sizes.channels, sequences)
    turned = draw.view(mixed, (each, sizes.channels, sequences, 1), mixed)
    window = (sizes.kernel - 1 + each, sizes.channels, sequences, 1)
    joined = Value(shape=window, sources=(before, turned))
    _keep(draw, draw.view(joined, (sizes.kernel - 1, sizes.channels, sequences, 1), joined))
    state = _state(draw, states, sizes.value_heads * sizes.head**2, sequences)
    state = draw.view(draw.root(state), (sizes.head, sizes.head, sizes.value_heads, sequences), state)
    convolved = Value(shape=(sizes.channels, each, sequences, 1), sources=(joined, draw.weight()))
    convolved = draw.same(convolved)
    parts = [
        draw.view(convolved, (sizes.head, heads, each, sequences), convolved)
        for heads in (sizes.key_heads, sizes.key_heads, sizes.value_heads)
    ]
    queries, keys = (Value(shape=part.shape, sources=(part,)) for part in parts[:2])
    rows = each * sequences + sizes.head * sequences
    both = Value(
        shape=(sizes.head * sizes.value_heads, rows, 1, 1), sources=(queries, keys, parts[2], decay, beta, state)
    )
    _keep(draw, draw.view(both, (sizes.head, sizes.head, sizes.value_heads, sequences), both))
    out = draw.view(both, (sizes.head, sizes.value_heads, each, sequences), both)
    normal = draw.norm(out, f"blk.{layer}.ssm_norm")
    gate = draw.same(draw.view(beside, out.shape, beside))
    gated = draw.same(normal, gate)
    flat = draw.view(gated, (sizes.head * sizes.value_heads, each, sequences, 1), gated)
    made = draw.weighted(flat, draw.shape.embedding)
    return draw.view(made, (draw.shape.embedding, draw.batch.tokens, 1, 1), made)


def _state(draw: Drawing, states: Value, elements: int, sequences: int) -> Value:
    """A copy of the states of this step's sequences; those of others are moved, which takes no memory here."""
    stored = draw.stored((elements, sequences, 1, 1))
    copied = Value(shape=(elements, sequences, 1, 1), sources=(stored, states))
    mine = draw.view(copied, copied.shape, copied)
    draw.graph.expand(mine)
    _keep(draw, draw.view(copied, (elements, 0, 1, 1), copied))
    return mine


def _keep(draw: Drawing, value: Value) -> None:
    """Write into the stored states."""
    stored = draw.stored((1, 1, 1, 1))
    draw.graph.expand(draw.view(stored, stored.shape, value, stored))
