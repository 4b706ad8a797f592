"""The graph that llama.cpp computes for one batch of a transformer, as far as memory goes. Pure.

Which tensors a layer has says most of it (a bias, a norm of queries, experts); what tensors do not say is one line per
architecture in `gonogo.engines.llamacpp_families`. Read in `llama-graph.cpp` and `src/models` of build 11434. Not here:
who gets which memory (`gonogo.engines.ggml_rehearsal`), nor recurrent layers.
"""

from __future__ import annotations

from gonogo.engines.ggml_rehearsal import Graph, Value
from gonogo.engines.llamacpp_attention import Cache, attention
from gonogo.engines.llamacpp_delta import delta
from gonogo.engines.llamacpp_drawing import LONG, Batch, Drawing, Era
from gonogo.engines.llamacpp_experts import feed_forward
from gonogo.engines.llamacpp_families import Family
from gonogo.engines.llamacpp_shape import GgufShape


def build_graph(shape: GgufShape, family: Family, batch: Batch) -> Graph:
    """The graph of one batch. Raises KeyError when a layer lacks a tensor that its architecture needs."""
    positions = Drawing.given(batch.tokens * family.positions_per_token)
    scale = Drawing.given(1, 1, batch.tokens) if family.attention_scale else None
    draw = Drawing(shape=shape, family=family, batch=batch, positions=positions, scale=scale)
    caches = {False: Cache.of(draw, batch.cells)}
    if shape.has_windows:
        caches[True] = Cache.of(draw, batch.window_cells)
    stream = embedded = _embed(draw)
    states = draw.given(batch.sequences)
    wanted = draw.given(batch.outputs)
    last = len(shape.kv_heads) - 1
    for layer in range(last + 1):
        memory = caches[shape.windowed[layer]] if shape.kv_heads[layer] else states
        stream = _layer(draw, layer, stream, memory, wanted if layer == last else None)
        if layer < family.deepstack:
            stream = draw.same(stream, draw.view(embedded, stream.shape, embedded))
    if family.outputs_last:
        stream = draw.rows(stream, wanted)
    logits = draw.bias(draw.weighted(draw.norm(stream, "output_norm"), shape.vocabulary), "output")
    for _ in range(3 if family.logit_softcap else 1 if family.logit_scale else 0):
        logits = draw.same(logits)
    draw.graph.expand(logits)
    return draw.graph


def _embed(draw: Drawing) -> Value:
    """Words or vectors or both: llama.cpp keeps memory for all three ways of input, all words first."""
    width, tokens = draw.shape.embedding * (1 + draw.family.deepstack), draw.batch.tokens
    words, mixed_words = draw.given(tokens), draw.given(tokens)
    found, mixed_found = _look_up(draw, words), _look_up(draw, mixed_words)
    draw.graph.expand(found)
    if draw.batch.era is not Era.CURRENT:
        return _scaled(draw, found)
    draw.graph.expand(mixed_found)
    embedded = _widen(draw, found)
    draw.graph.expand(embedded)
    draw.graph.expand(draw.given(width, tokens))
    slots, vectors = draw.given(tokens, item=LONG), draw.given(width, tokens)
    copied = Value(shape=vectors.shape, sources=(vectors,))
    draw.graph.expand(draw.view(copied, copied.shape, _widen(draw, mixed_found), slots, copied))
    if draw.family.deepstack:
        embedded = draw.view(embedded, found.shape, embedded)
    return _scaled(draw, embedded)


def _scaled(draw: Drawing, embedded: Value) -> Value:
    if draw.family.embedding_scale == "rows":
        embedded = draw.same(embedded, draw.given(1, draw.batch.tokens))
    elif draw.family.embedding_scale == "all":
        embedded = draw.same(embedded)
    draw.graph.expand(embedded)
    return embedded


def _look_up(draw: Drawing, words: Value) -> Value:
    sources = (Value(shape=(draw.shape.embedding, draw.shape.vocabulary, 1, 1), stored=True), words)
    return Value(shape=(draw.shape.embedding, words.shape[0], 1, 1), sources=sources, on_host=True)


def _widen(draw: Drawing, found: Value) -> Value:
    """Room behind each word for what images add to later layers."""
    wide = (draw.shape.embedding * (1 + draw.family.deepstack), *found.shape[1:])
    return Value(shape=wide, sources=(found,)) if draw.family.deepstack else found


def _layer(draw: Drawing, layer: int, stream: Value, memory: Cache | Value, wanted: Value | None) -> Value:
    before = stream
    normed = draw.norm(stream, f"blk.{layer}.attn_norm")
    if isinstance(memory, Cache):
        attended = attention(draw, layer, normed, memory)
    else:
        draw.graph.expand(normed)
        attended = delta(draw, layer, normed, draw.batch.sequences, memory)
    if wanted is not None and not draw.family.outputs_last:
        attended = draw.rows(attended, wanted)
        before = draw.rows(before, wanted)
        if draw.family.parallel:
            normed = draw.rows(normed, wanted)
    if draw.family.residual_scale:
        attended = draw.same(attended)
    if draw.family.parallel:
        return _parallel(draw, layer, before, normed, attended)
    has_norm = f"blk.{layer}.ffn_norm.weight" in draw.shape.tensors
    if has_norm or not draw.family.post_norm_is_feed_forward_norm:
        attended = draw.norm(attended, f"blk.{layer}.post_attention_norm")
    after = draw.same(attended, before)
    normed = draw.norm(after, f"blk.{layer}." + ("ffn_norm" if has_norm else _feed_forward_norm(draw)))
    fed = feed_forward(draw, layer, normed)
    fed = draw.norm(fed, f"blk.{layer}.post_ffw_norm")
    if draw.family.residual_scale:
        fed = draw.same(fed)
    return draw.same(fed, after)


def _feed_forward_norm(draw: Drawing) -> str:
    return "post_attention_norm" if draw.family.post_norm_is_feed_forward_norm else "ffn_norm"


def _parallel(draw: Drawing, layer: int, before: Value, normed: Value, attended: Value) -> Value:
    """Attention and feed-forward read the same norm; both are added to the stream."""
    fed = feed_forward(draw, layer, normed)
    if draw.family.parallel == "attention_first":
        return draw.same(draw.same(attended, fed), before)
    return draw.same(draw.same(fed, before), attended)
