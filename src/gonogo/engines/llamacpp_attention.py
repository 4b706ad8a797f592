"""Attention in llama.cpp's graphs: projections, caches, scores; multi-head latent attention too. Pure.

Read in `llama-graph.cpp`, `llama-kv-cache.cpp` and `deepseek2.cpp` of build 11434.
"""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.engines.ggml_rehearsal import Value
from gonogo.engines.llamacpp_drawing import HALF, LONG, SINGLE, Drawing, Era

SMALLEST_ROTATION = 64


def attention(draw: Drawing, layer: int, normed: Value, cache: Cache) -> Value:
    if draw.shape.latent_rank is not None:
        return _latent_attention(draw, layer, normed, cache)
    heads = draw.shape.heads_of(layer)
    kv_heads = draw.shape.kv_heads[layer]
    sizes = (
        (draw.shape.key, heads),
        (draw.shape.key, kv_heads),
        (draw.shape.value, kv_heads),
    )
    queries, keys, values = _projections(draw, layer, normed, sizes)
    if draw.family.gated_attention:
        both = draw.weighted(normed, 2 * draw.shape.key * heads)
        queries = draw.view(both, queries.shape, both)
    queries, keys = _positioned(draw, layer, queries, keys)
    queries, keys, values = cache.rotate(draw, queries, keys, values)
    order = (queries, keys, values) if draw.shape.has_windows else (queries, values, keys)
    for value in order:
        draw.graph.expand(value)
    cache.store(draw, keys, values)
    mixed = _mix(draw, queries, cache, (draw.shape.key, draw.shape.value, kv_heads))
    mixed = cache.rotate_back(draw, mixed)
    if draw.family.gated_attention:
        gate = draw.same(Value(shape=mixed.shape, sources=(draw.view(both, mixed.shape, both),)))
        mixed = draw.same(mixed, gate)
    out = draw.weighted(mixed, draw.shape.embedding)
    return draw.bias(out, f"blk.{layer}.attn_output")


def _positioned(draw: Drawing, layer: int, queries: Value, keys: Value) -> tuple[Value, Value]:
    """Queries and keys with their norms, positions and scale, in the architecture's order."""
    family = draw.family
    if not family.head_norm_after_rope:
        queries, keys = _head_norm(draw, layer, "q", queries), _head_norm(draw, layer, "k", keys)
    if _rotary(draw, layer):
        queries, keys = draw.same(queries, draw.positions), draw.same(keys, draw.positions)
        if family.norm_after_rope:
            queries, keys = draw.same(queries), draw.same(keys)
    elif draw.scale is not None:
        queries = draw.same(queries, draw.scale)
    if family.head_norm_after_rope:
        queries, keys = _head_norm(draw, layer, "q", queries), _head_norm(draw, layer, "k", keys)
    return (draw.same(queries) if family.query_scale else queries), keys


def _rotary(draw: Drawing, layer: int) -> bool:
    family = draw.family
    if family.rope_in_windows_only and draw.shape.has_windows:
        return draw.shape.windowed[layer]
    return family.no_rope_every is None or (layer + 1) % family.no_rope_every != 0


def _projections(
    draw: Drawing, layer: int, normed: Value, sizes: tuple[tuple[int, int], ...]
) -> tuple[Value, Value, Value]:
    tokens = draw.batch.tokens
    if f"blk.{layer}.attn_qkv.weight" in draw.shape.tensors:
        width = sum(length * heads for length, heads in sizes)
        fused = draw.bias(draw.weighted(normed, width), f"blk.{layer}.attn_qkv")
        views = [draw.view(fused, (length, heads, tokens, 1), fused) for length, heads in sizes]
        return views[0], views[1], views[2]
    found = []
    for name, (length, heads) in zip("qkv", sizes, strict=True):
        one = draw.bias(draw.weighted(normed, length * heads), f"blk.{layer}.attn_{name}")
        norm = draw.shape.tensors.get(f"blk.{layer}.attn_{name}_norm.weight")
        if norm is not None and norm[0] == length * heads and heads > 1:
            one = draw.norm(one, f"blk.{layer}.attn_{name}_norm")
        found.append(draw.view(one, (length, heads, tokens, 1), one))
    return found[0], found[1], found[2]


def _head_norm(draw: Drawing, layer: int, name: str, value: Value) -> Value:
    """A norm over each head; one over all heads together was applied to the projection already."""
    norm = draw.shape.tensors.get(f"blk.{layer}.attn_{name}_norm.weight")
    if norm is None or (norm[0] != value.shape[0] and value.shape[1] > 1):
        return value
    return draw.norm(value, f"blk.{layer}.attn_{name}_norm")


def _latent_attention(draw: Drawing, layer: int, normed: Value, cache: Cache) -> Value:
    """DeepSeek's: keys of all heads are one latent vector, and values are read out of it."""
    rank, rope, tokens = draw.shape.latent_rank or 0, draw.shape.rope_length, draw.batch.tokens
    heads, nope = draw.shape.heads, draw.shape.latent_key - draw.shape.rope_length
    queries = normed
    if f"blk.{layer}.attn_q_a.weight" in draw.shape.tensors:
        queries = draw.weighted(queries, draw.shape.tensors[f"blk.{layer}.attn_q_a.weight"][1])
        queries = draw.norm(queries, f"blk.{layer}.attn_q_a_norm")
    queries = draw.weighted(queries, heads * draw.shape.latent_key)
    joint = draw.weighted(normed, rank + rope)
    latent = draw.view(joint, (rank, tokens, 1, 1), joint)
    key_part = draw.view(joint, (rope, 1, tokens, 1), joint)
    key_part = draw.same(key_part, draw.positions)
    latent = draw.norm(latent, f"blk.{layer}.attn_kv_a_norm")
    query_part = draw.view(queries, (rope, heads, tokens, 1), _heads(draw, queries, draw.shape.latent_key))
    query_part = draw.same(query_part, draw.positions)
    plain = draw.view(queries, (nope, heads, tokens, 1), _heads(draw, queries, draw.shape.latent_key))
    plain = draw.view(queries, (nope, tokens, heads, 1), plain)
    absorbed = Value(shape=(rank, tokens, heads, 1), sources=(draw.weight(), plain))
    turned = draw.view(absorbed, (rank, heads, tokens, 1), absorbed)
    query = Value(shape=(rank + rope, heads, tokens, 1), sources=(turned, query_part))
    value = draw.view(latent, (rank, 1, tokens, 1), latent)
    key = Value(shape=(rank + rope, 1, tokens, 1), sources=(value, key_part))
    if draw.scale is not None:
        query = draw.same(query, draw.scale)
    for one in (query, value, key):
        draw.graph.expand(one)
    cache.store(draw, key, None)
    mixed = _mix(draw, query, cache, (rank + rope, rank, 1))
    return draw.weighted(mixed, draw.shape.embedding)


def _heads(draw: Drawing, value: Value, length: int) -> Value:
    return draw.view(value, (length, value.shape[0] // length, value.shape[1], 1), value)


def _mix(draw: Drawing, queries: Value, cache: Cache, sizes: tuple[int, int, int]) -> Value:
    """Attention itself: with flash attention one operation, without it all the scores stand at once."""
    key, value_length, kv_heads = sizes
    heads, streams = queries.shape[1], draw.batch.streams
    tokens = draw.batch.tokens // streams
    query = draw.view(draw.root(queries), (key, heads, tokens, streams), queries)
    query = draw.view(draw.root(queries), (key, tokens, heads, streams), query)
    keys = draw.stored((key, cache.cells, kv_heads, streams))
    values = draw.stored((value_length, cache.cells, kv_heads, streams))
    latent = draw.shape.latent_rank is not None
    if draw.batch.flash_attention:
        sources: tuple[Value, ...] = (query, keys, values, cache.mask)
        mixed = Value(shape=(value_length, heads, tokens, streams), sources=sources)
        if latent:
            mixed = _expand_values(draw, mixed, (heads, tokens, streams))
        joined = draw.view(draw.root(mixed), (mixed.shape[0] * heads, tokens * streams, 1, 1), mixed)
        draw.graph.expand(joined)
        return joined
    scores = Value(shape=(cache.cells, tokens, heads, streams), sources=(keys, query))
    if draw.family.score_softcap:
        for _ in range(3):
            scores = draw.same(scores)
    scores = draw.same(scores, cache.mask)
    if latent:
        values = Value(shape=(cache.cells, value_length, kv_heads, streams), item_bytes=HALF, sources=(values,))
    mixed = Value(shape=(value_length, tokens, heads, streams), sources=(values, scores))
    if latent:
        mixed = Value(shape=(draw.shape.latent_value, tokens, heads, streams), sources=(draw.weight(), mixed))
    turned = draw.view(mixed, (mixed.shape[0], heads, tokens, streams), mixed)
    joined = Value(shape=(mixed.shape[0] * heads, tokens * streams, 1, 1), sources=(turned,))
    draw.graph.expand(joined)
    return joined


def _expand_values(draw: Drawing, mixed: Value, sizes: tuple[int, int, int]) -> Value:
    heads, tokens, streams = sizes
    turned = draw.view(mixed, (mixed.shape[0], tokens, heads, streams), mixed)
    long = Value(shape=(draw.shape.latent_value, tokens, heads, streams), sources=(draw.weight(), turned))
    back = draw.view(long, (draw.shape.latent_value, heads, tokens, streams), long)
    return Value(shape=back.shape, sources=(back,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """The inputs that one cache needs: where keys and values go, and which tokens may see which."""

    cells: int
    keys_at: Value
    values_at: Value
    mask: Value
    key_rotation: Value | None
    value_rotation: Value | None

    @classmethod
    def of(cls, draw: Drawing, cells: int) -> Cache:
        batch, shape = draw.batch, draw.shape
        each = 1 if batch.flash_attention else shape.widest_values
        item = HALF if batch.flash_attention and batch.era is Era.CURRENT else SINGLE
        mask = draw.given(cells, batch.tokens // batch.streams, 1, batch.streams, item=item)
        if batch.flash_attention and batch.era is not Era.CURRENT:
            mask = Value(shape=mask.shape, item_bytes=HALF, sources=(mask,))
        key, value = rotation(shape.key), SMALLEST_ROTATION
        return cls(
            cells=cells,
            keys_at=draw.given(batch.tokens, item=LONG),
            values_at=draw.given(batch.tokens * each, item=LONG),
            mask=mask,
            key_rotation=draw.given(key, key) if batch.rotated_keys else None,
            value_rotation=draw.given(value, value) if batch.rotated_values else None,
        )

    def store(self, draw: Drawing, keys: Value, values: Value | None) -> None:
        """Write into the cache: views of memory that lies elsewhere, so that only the order matters."""
        for value, where in ((keys, self.keys_at), (values, self.values_at)):
            if value is not None:
                flat = draw.view(draw.root(value), value.shape, value)
                cache = draw.stored((1, 1, 1, 1))
                copied = draw.batch.era is Era.COPIES
                sources = (flat, cache) if copied else (flat, where, cache)
                draw.graph.expand(draw.view(cache, cache.shape, *sources))

    def rotate(self, draw: Drawing, *parts: Value) -> tuple[Value, Value, Value]:
        turns = (self.key_rotation, self.key_rotation, self.value_rotation)
        done = [part if by is None else _turn(draw, part, by) for part, by in zip(parts, turns, strict=True)]
        return done[0], done[1], done[2]

    def rotate_back(self, draw: Drawing, mixed: Value) -> Value:
        return mixed if self.value_rotation is None else _turn(draw, mixed, self.value_rotation)


def _turn(draw: Drawing, value: Value, by: Value) -> Value:
    length = by.shape[0]
    rows = value.size_bytes // SINGLE // length
    flat = draw.view(draw.root(value), (length, rows, 1, 1), value)
    turned = Value(shape=(length, rows, 1, 1), sources=(by, flat))
    return draw.view(turned, value.shape, turned)


def rotation(length: int) -> int:
    """Rows of the matrix that rotates keys: the largest power of two that divides a head, at least 64."""
    size = SMALLEST_ROTATION
    while length % (2 * size) == 0:
        size *= 2
    return size
