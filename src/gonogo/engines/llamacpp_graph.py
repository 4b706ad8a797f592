"""The graph that llama.cpp computes for one batch of a transformer, as far as memory goes. Pure.

Which tensors a layer has says most of it (a bias, a norm of queries, experts); what tensors do not say is one line per
architecture in `gonogo.engines.llamacpp_families`. Read in `llama-graph.cpp`, `llama-kv-cache.cpp` and `src/models` of
build 11434. Not here: who gets which memory (`gonogo.engines.ggml_rehearsal`), nor recurrent layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gonogo.engines.ggml_rehearsal import Graph, Value
from gonogo.engines.llamacpp_families import Family, Gating
from gonogo.engines.llamacpp_shape import GgufShape

HALF, SINGLE, LONG = 2, 4, 8
SMALLEST_ROTATION = 64


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


def build_graph(shape: GgufShape, family: Family, batch: Batch) -> Graph:
    """The graph of one batch. Raises KeyError when a layer lacks a tensor that its architecture needs."""
    return _Builder(shape, family, batch).build()


@dataclass(slots=True)
class _Builder:
    shape: GgufShape
    family: Family
    batch: Batch
    graph: Graph = field(default_factory=Graph)
    positions: Value = field(init=False)
    scale: Value | None = field(init=False, default=None)
    caches: dict[bool, _Cache] = field(init=False, default_factory=dict)

    def build(self) -> Graph:
        stream = embedded = self._embed()
        self.positions = self._given(self.batch.tokens * self.family.positions_per_token)
        if self.family.attention_scale:
            self.scale = self._given(1, 1, self.batch.tokens)
        wanted = self._given(self.batch.outputs)
        last = len(self.shape.kv_heads) - 1
        for layer in range(last + 1):
            stream = self._layer(layer, stream, wanted if layer == last else None)
            if layer < self.family.deepstack:
                stream = self._same(stream, self._view(embedded, stream.shape, embedded))
        if self.family.outputs_last:
            stream = self._rows(stream, wanted)
        logits = self._bias(self._weighted(self._norm(stream, "output_norm"), self.shape.vocabulary), "output")
        if self.family.logit_softcap:
            for _ in range(3):
                logits = self._same(logits)
        elif self.family.logit_scale:
            logits = self._same(logits)
        self.graph.expand(logits)
        return self.graph

    def _embed(self) -> Value:
        """Words or vectors or both: llama.cpp keeps memory for all three ways of input, and looks up all words first."""
        width, tokens = self.shape.embedding * (1 + self.family.deepstack), self.batch.tokens
        words, mixed_words = self._given(tokens), self._given(tokens)
        found, mixed_found = self._look_up(words), self._look_up(mixed_words)
        self.graph.expand(found)
        self.graph.expand(mixed_found)
        embedded = self._widen(found)
        self.graph.expand(embedded)
        self.graph.expand(self._given(width, tokens))
        slots, vectors = self._given(tokens, item=LONG), self._given(width, tokens)
        copied = Value(shape=vectors.shape, sources=(vectors,))
        self.graph.expand(self._view(copied, copied.shape, self._widen(mixed_found), slots, copied))
        if self.family.deepstack:
            embedded = self._view(embedded, found.shape, embedded)
        if self.family.embedding_scale == "rows":
            embedded = self._same(embedded, self._given(1, tokens))
        elif self.family.embedding_scale == "all":
            embedded = self._same(embedded)
        self.graph.expand(embedded)
        return embedded

    def _look_up(self, words: Value) -> Value:
        sources = (Value(shape=(self.shape.embedding, self.shape.vocabulary, 1, 1), stored=True), words)
        return Value(shape=(self.shape.embedding, words.shape[0], 1, 1), sources=sources, on_host=True)

    def _widen(self, found: Value) -> Value:
        """Room behind each word for what images add to later layers."""
        wide = (self.shape.embedding * (1 + self.family.deepstack), *found.shape[1:])
        return Value(shape=wide, sources=(found,)) if self.family.deepstack else found

    def _layer(self, layer: int, stream: Value, wanted: Value | None) -> Value:
        before = stream
        normed = self._norm(stream, f"blk.{layer}.attn_norm")
        attended = self._attention(layer, normed)
        if wanted is not None and not self.family.outputs_last:
            attended = self._rows(attended, wanted)
            before = self._rows(before, wanted)
            if self.family.parallel:
                normed = self._rows(normed, wanted)
        if self.family.residual_scale:
            attended = self._same(attended)
        if self.family.parallel:
            return self._parallel(layer, before, normed, attended)
        has_norm = f"blk.{layer}.ffn_norm.weight" in self.shape.tensors
        if has_norm or not self.family.post_norm_is_feed_forward_norm:
            attended = self._norm(attended, f"blk.{layer}.post_attention_norm")
        after = self._same(attended, before)
        normed = self._norm(after, f"blk.{layer}." + ("ffn_norm" if has_norm else self._feed_forward_norm()))
        fed = self._feed_forward(layer, normed)
        fed = self._norm(fed, f"blk.{layer}.post_ffw_norm")
        if self.family.residual_scale:
            fed = self._same(fed)
        return self._same(fed, after)

    def _feed_forward_norm(self) -> str:
        return "post_attention_norm" if self.family.post_norm_is_feed_forward_norm else "ffn_norm"

    def _parallel(self, layer: int, before: Value, normed: Value, attended: Value) -> Value:
        """Attention and feed-forward read the same norm; both are added to the stream."""
        fed = self._feed_forward(layer, normed)
        if self.family.parallel == "attention_first":
            return self._same(self._same(attended, fed), before)
        return self._same(self._same(fed, before), attended)

    def _attention(self, layer: int, normed: Value) -> Value:
        if self.shape.latent_rank is not None:
            return self._latent_attention(layer, normed)
        tokens, heads = self.batch.tokens, self.shape.heads_of(layer)
        kv_heads = self.shape.kv_heads[layer]
        sizes = (
            (self.shape.key, heads),
            (self.shape.key, kv_heads),
            (self.shape.value, kv_heads),
        )
        queries, keys, values = self._projections(layer, normed, sizes)
        rotary = self.family.rope and (layer + 1) % self.family.no_rope_every if self.family.no_rope_every else True
        if not self.family.norm_after_rope:
            queries, keys = self._head_norm(layer, "q", queries), self._head_norm(layer, "k", keys)
        if rotary and self.family.rope:
            queries, keys = self._same(queries, self.positions), self._same(keys, self.positions)
            if self.family.norm_after_rope:
                queries, keys = self._same(queries), self._same(keys)
        elif self.scale is not None:
            queries = self._same(queries, self.scale)
        if self.family.query_scale:
            queries = self._same(queries)
        cache = self._cache(self.shape.windowed[layer])
        queries, keys, values = cache.rotate(self, queries, keys, values)
        order = (queries, keys, values) if self.shape.window else (queries, values, keys)
        for value in order:
            self.graph.expand(value)
        cache.store(self, keys, values)
        mixed = self._mix(layer, queries, cache, (self.shape.key, self.shape.value, kv_heads))
        mixed = cache.rotate_back(self, mixed)
        out = self._weighted(mixed, self.shape.embedding)
        return self._bias(out, f"blk.{layer}.attn_output")

    def _projections(self, layer: int, normed: Value, sizes: tuple[tuple[int, int], ...]) -> tuple[Value, Value, Value]:
        tokens = self.batch.tokens
        if f"blk.{layer}.attn_qkv.weight" in self.shape.tensors:
            width = sum(length * heads for length, heads in sizes)
            fused = self._bias(self._weighted(normed, width), f"blk.{layer}.attn_qkv")
            views = [self._view(fused, (length, heads, tokens, 1), fused) for length, heads in sizes]
            return views[0], views[1], views[2]
        found = []
        for name, (length, heads) in zip("qkv", sizes, strict=True):
            one = self._bias(self._weighted(normed, length * heads), f"blk.{layer}.attn_{name}")
            norm = self.shape.tensors.get(f"blk.{layer}.attn_{name}_norm.weight")
            if norm is not None and norm[0] == length * heads and heads > 1:
                one = self._norm(one, f"blk.{layer}.attn_{name}_norm")
            found.append(self._view(one, (length, heads, tokens, 1), one))
        return found[0], found[1], found[2]

    def _head_norm(self, layer: int, name: str, value: Value) -> Value:
        """A norm over each head; one over all heads together was applied to the projection already."""
        norm = self.shape.tensors.get(f"blk.{layer}.attn_{name}_norm.weight")
        if norm is None or (norm[0] != value.shape[0] and value.shape[1] > 1):
            return value
        return self._norm(value, f"blk.{layer}.attn_{name}_norm")

    def _latent_attention(self, layer: int, normed: Value) -> Value:
        """DeepSeek's: keys of all heads are one latent vector, and values are read out of it."""
        rank, rope, tokens = self.shape.latent_rank or 0, self.shape.rope_length, self.batch.tokens
        heads, nope = self.shape.heads, self.shape.latent_key - self.shape.rope_length
        queries = normed
        if f"blk.{layer}.attn_q_a.weight" in self.shape.tensors:
            queries = self._weighted(queries, self.shape.tensors[f"blk.{layer}.attn_q_a.weight"][1])
            queries = self._norm(queries, f"blk.{layer}.attn_q_a_norm")
        queries = self._weighted(queries, heads * self.shape.latent_key)
        joint = self._weighted(normed, rank + rope)
        latent = self._view(joint, (rank, tokens, 1, 1), joint)
        key_part = self._view(joint, (rope, 1, tokens, 1), joint)
        key_part = self._same(key_part, self.positions)
        latent = self._norm(latent, f"blk.{layer}.attn_kv_a_norm")
        query_part = self._view(queries, (rope, heads, tokens, 1), self._heads(queries, self.shape.latent_key))
        query_part = self._same(query_part, self.positions)
        plain = self._view(queries, (nope, heads, tokens, 1), self._heads(queries, self.shape.latent_key))
        plain = self._view(queries, (nope, tokens, heads, 1), plain)
        absorbed = Value(shape=(rank, tokens, heads, 1), sources=(self._weight(), plain))
        turned = self._view(absorbed, (rank, heads, tokens, 1), absorbed)
        query = Value(shape=(rank + rope, heads, tokens, 1), sources=(turned, query_part))
        value = self._view(latent, (rank, 1, tokens, 1), latent)
        key = Value(shape=(rank + rope, 1, tokens, 1), sources=(value, key_part))
        if self.scale is not None:
            query = self._same(query, self.scale)
        for one in (query, value, key):
            self.graph.expand(one)
        cache = self._cache(False)
        cache.store(self, key, None)
        mixed = self._mix(layer, query, cache, (rank + rope, rank, 1))
        return self._weighted(mixed, self.shape.embedding)

    def _heads(self, value: Value, length: int) -> Value:
        return self._view(value, (length, value.shape[0] // length, value.shape[1], 1), value)

    def _mix(self, layer: int, queries: Value, cache: _Cache, sizes: tuple[int, int, int]) -> Value:
        """Attention itself: with flash attention one operation, without it all the scores stand at once."""
        key, value_length, kv_heads = sizes
        heads, streams = queries.shape[1], self.batch.streams
        tokens = self.batch.tokens // streams
        query = self._view(self._root(queries), (key, heads, tokens, streams), queries)
        query = self._view(self._root(queries), (key, tokens, heads, streams), query)
        keys = self._stored((key, cache.cells, kv_heads, streams))
        values = self._stored((value_length, cache.cells, kv_heads, streams))
        latent = self.shape.latent_rank is not None
        if self.batch.flash_attention:
            sources: tuple[Value, ...] = (query, keys, values, cache.mask)
            mixed = Value(shape=(value_length, heads, tokens, streams), sources=sources)
            if latent:
                mixed = self._expand_values(mixed, (heads, tokens, streams))
            joined = self._view(self._root(mixed), (mixed.shape[0] * heads, tokens * streams, 1, 1), mixed)
            self.graph.expand(joined)
            return joined
        scores = Value(shape=(cache.cells, tokens, heads, streams), sources=(keys, query))
        if self.family.score_softcap:
            for _ in range(3):
                scores = self._same(scores)
        scores = self._same(scores, cache.mask)
        if latent:
            values = Value(shape=(cache.cells, value_length, kv_heads, streams), item_bytes=HALF, sources=(values,))
        mixed = Value(shape=(value_length, tokens, heads, streams), sources=(values, scores))
        if latent:
            mixed = Value(shape=(self.shape.latent_value, tokens, heads, streams), sources=(self._weight(), mixed))
        turned = self._view(mixed, (mixed.shape[0], heads, tokens, streams), mixed)
        joined = Value(shape=(mixed.shape[0] * heads, tokens * streams, 1, 1), sources=(turned,))
        self.graph.expand(joined)
        return joined

    def _expand_values(self, mixed: Value, sizes: tuple[int, int, int]) -> Value:
        heads, tokens, streams = sizes
        turned = self._view(mixed, (mixed.shape[0], tokens, heads, streams), mixed)
        long = Value(shape=(self.shape.latent_value, tokens, heads, streams), sources=(self._weight(), turned))
        back = self._view(long, (self.shape.latent_value, heads, tokens, streams), long)
        return Value(shape=back.shape, sources=(back,))

    def _feed_forward(self, layer: int, normed: Value) -> Value:
        name = f"blk.{layer}."
        if name + "ffn_gate_inp.weight" not in self.shape.tensors:
            return self._dense(normed, name, "")
        routed = self._experts(layer, normed)
        if self._up_width(name, "_shexp") is None:
            return routed
        shared = self._shared(normed, name)
        return self._same(routed, shared)

    def _shared(self, normed: Value, name: str) -> Value:
        if name + "ffn_gate_inp_shexp.weight" not in self.shape.tensors:
            return self._dense(normed, name, "_shexp")
        gate = self._weighted(normed, 1)
        gate = self._same(self._same(gate), gate) if self.family.gate_by_division else self._same(gate)
        return self._same(self._dense(normed, name, "_shexp"), gate)

    def _up_width(self, name: str, kind: str) -> int | None:
        found = self.shape.tensors.get(f"{name}ffn_up{kind}.weight")
        return None if found is None else found[1]

    def _dense(self, normed: Value, name: str, kind: str) -> Value:
        width = self.shape.tensors[f"{name}ffn_up{kind}.weight"][1]
        up = self._bias(self._weighted(normed, width), f"{name}ffn_up{kind}")
        if f"{name}ffn_gate{kind}.weight" in self.shape.tensors:
            gate = self._bias(self._weighted(normed, width), f"{name}ffn_gate{kind}")
            active = Value(shape=gate.shape, sources=(gate, up))
        elif self.shape.tensors[f"{name}ffn_down{kind}.weight"][0] * 2 == width:
            width //= 2
            active = Value(shape=(width, *up.shape[1:]), sources=(up,))
        else:
            active = self._same(up)
            if self.family.squared:
                active = self._same(active)
        return self._bias(self._weighted(active, self.shape.embedding), f"{name}ffn_down{kind}")

    def _experts(self, layer: int, normed: Value) -> Value:
        name, used, tokens = f"blk.{layer}.", self.shape.experts_used or 1, normed.shape[1]
        count = self.shape.tensors[name + "ffn_gate_inp.weight"][1]
        logits = self._bias(self._weighted(normed, count), name + "ffn_gate_inp")
        chosen, weights = self._route(logits, name, count)
        self.graph.expand(weights)
        width = self.shape.tensors[name + "ffn_down_exps.weight"][0]
        entering = self._view(normed, (self.shape.embedding, 1, tokens, 1), normed)
        if self.family.weights_before_experts:
            repeated = Value(shape=(self.shape.embedding, used, tokens, 1), sources=(entering,))
            entering = self._same(repeated, weights)
        sizes = (width, used, tokens, 1)
        if name + "ffn_gate_up_exps.weight" in self.shape.tensors:
            both = Value(shape=(2 * width, used, tokens, 1), sources=(self._weight(), entering, chosen))
            halves = self._view(both, sizes, both), self._view(both, sizes, both)
            active = Value(shape=sizes, sources=halves)
        else:
            up = self._expert_bias(
                Value(shape=sizes, sources=(self._weight(), entering, chosen)), name + "ffn_up_exps", chosen
            )
            active = self._activate(up, entering, chosen, name)
        out = Value(shape=(self.shape.embedding, used, tokens, 1), sources=(self._weight(), active, chosen))
        out = self._expert_bias(out, name + "ffn_down_exps", chosen)
        if not self.family.weights_before_experts:
            out = self._same(out, weights)
        self.graph.expand(out)
        return self._sum(out, used, tokens)

    def _activate(self, up: Value, entering: Value, chosen: Value, name: str) -> Value:
        if name + "ffn_gate_exps.weight" not in self.shape.tensors:
            active = self._same(up)
            return self._same(active) if self.family.squared else active
        gate = Value(shape=up.shape, sources=(self._weight(), entering, chosen))
        gate = self._expert_bias(gate, name + "ffn_gate_exps", chosen)
        return Value(shape=up.shape, sources=(gate, up))

    def _sum(self, out: Value, used: int, tokens: int) -> Value:
        parts = [self._view(out, (self.shape.embedding, tokens, 1, 1), out) for _ in range(used)]
        for part in parts:
            self.graph.expand(part)
        total = parts[0]
        for part in parts[1:]:
            total = self._same(total, part)
            self.graph.expand(total)
        return total if used > 1 else Value(shape=total.shape, sources=(total,))

    def _route(self, logits: Value, name: str, count: int) -> tuple[Value, Value]:
        """The experts that each token goes to, and their weights."""
        used, tokens = self.shape.experts_used or 1, logits.shape[1]
        plain = self.family.gating is Gating.SOFTMAX_OF_CHOSEN
        odds = logits if plain else self._same(logits)
        judged = odds
        if name + "exp_probs_b.bias" in self.shape.tensors:
            judged = self._same(odds, self._weight())
        if self.family.gating is Gating.LOGITS_THEN_SIGMOID:
            judged = logits
        if (self.shape.routing.groups or 1) > 1:
            judged = self._choose_groups(judged, count)
        order = Value(shape=judged.shape, sources=(judged,))
        chosen = self._view(order, (used, tokens, 1, 1), order)
        rows = self._view(self._root(odds), (1, count, tokens, 1), odds)
        weights = Value(shape=(1, used, tokens, 1), sources=(rows, chosen))
        if plain:
            weights = self._same(self._view(weights, (used, tokens, 1, 1), weights))
            weights = self._view(weights, (1, used, tokens, 1), weights)
        normed = self.shape.routing.normed
        if self.family.normed_weights if normed is None else normed:
            flat = self._view(self._root(weights), (used, tokens, 1, 1), weights)
            total = self._same(Value(shape=(1, tokens, 1, 1), sources=(flat,)))
            flat = self._same(flat, total)
            weights = self._view(flat, (1, used, tokens, 1), flat)
        if self.shape.routing.scaled:
            weights = self._same(weights)
        return chosen, weights

    def _choose_groups(self, judged: Value, count: int) -> Value:
        groups, tokens = self.shape.routing.groups or 1, judged.shape[1]
        each, kept = count // groups, self.shape.routing.groups_used or 1
        grouped = self._view(self._root(judged), (each, groups, tokens, 1), judged)
        order = Value(shape=grouped.shape, sources=(grouped,))
        best = self._view(order, (2, groups, tokens, 1), order)
        scores = Value(
            shape=(1, 2, groups, tokens),
            sources=(self._view(self._root(judged), (1, each, groups, tokens), grouped), best),
        )
        scores = Value(
            shape=(1, groups, tokens, 1), sources=(self._view(scores, (2, groups, tokens, 1), scores),)
        )
        flat = self._view(scores, (groups, tokens, 1, 1), scores)
        ranked = Value(shape=flat.shape, sources=(flat,))
        taken = self._view(ranked, (kept, tokens, 1, 1), ranked)
        left = Value(shape=(each, kept, tokens, 1), sources=(grouped, taken))
        blank = self._same(grouped)
        filled = self._view(blank, blank.shape, left, taken, blank)
        return self._view(blank, (count, tokens, 1, 1), filled)

    def _cache(self, windowed: bool) -> _Cache:
        """The inputs of a cache, made at once for both kinds as llama.cpp makes them."""
        if not self.caches:
            self.caches[False] = _Cache.of(self, self.batch.cells)
            if self.shape.window:
                self.caches[True] = _Cache.of(self, self.batch.window_cells)
        return self.caches[windowed]

    def _norm(self, value: Value, name: str) -> Value:
        """The value as it is when the model has no such norm (unless the architecture norms without weights)."""
        if name + ".weight" not in self.shape.tensors:
            return value
        normed = Value(shape=value.shape, sources=(value,), may_overwrite=self.family.norm_overwrites)
        normed = self._same(normed, self._weight())
        return self._same(normed, self._weight()) if name + ".bias" in self.shape.tensors else normed

    def _bias(self, value: Value, name: str) -> Value:
        return self._same(value, self._weight()) if name + ".bias" in self.shape.tensors else value

    def _expert_bias(self, value: Value, name: str, chosen: Value) -> Value:
        return self._same(value, self._weight(), chosen) if name + ".bias" in self.shape.tensors else value

    def _weighted(self, value: Value, width: int) -> Value:
        return Value(shape=(width, *value.shape[1:]), sources=(self._weight(), value))

    def _rows(self, value: Value, wanted: Value) -> Value:
        return Value(shape=(value.shape[0], wanted.shape[0], 1, 1), sources=(value, wanted))

    def _given(self, *extents: int, item: int = SINGLE) -> Value:
        return Value(shape=(*extents, *(1,) * (4 - len(extents))), item_bytes=item, given=True)

    @staticmethod
    def _weight() -> Value:
        return Value(shape=(1, 1, 1, 1), stored=True)

    @staticmethod
    def _stored(shape: tuple[int, ...]) -> Value:
        return Value(shape=shape, item_bytes=HALF, stored=True)

    @staticmethod
    def _same(value: Value, *others: Value) -> Value:
        return Value(shape=value.shape, sources=(value, *others), may_overwrite=True)

    @staticmethod
    def _root(value: Value) -> Value:
        return value.base if value.base is not None else value

    def _view(self, base: Value, shape: tuple[int, ...], *sources: Value) -> Value:
        return Value(shape=shape, base=self._root(base), sources=sources, item_bytes=base.item_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """The inputs that one cache needs: where keys and values go, and which tokens may see which."""

    cells: int
    keys_at: Value
    values_at: Value
    mask: Value
    key_rotation: Value | None
    value_rotation: Value | None

    @classmethod
    def of(cls, builder: _Builder, cells: int) -> _Cache:
        batch, shape = builder.batch, builder.shape
        each = 1 if batch.flash_attention else shape.widest_values
        item = HALF if batch.flash_attention else SINGLE
        key, value = rotation(shape.key), SMALLEST_ROTATION
        return cls(
            cells=cells,
            keys_at=builder._given(batch.tokens, item=LONG),
            values_at=builder._given(batch.tokens * each, item=LONG),
            mask=builder._given(cells, batch.tokens // batch.streams, 1, batch.streams, item=item),
            key_rotation=builder._given(key, key) if batch.rotated_keys else None,
            value_rotation=builder._given(value, value) if batch.rotated_values else None,
        )

    def store(self, builder: _Builder, keys: Value, values: Value | None) -> None:
        """Write into the cache: views of memory that lies elsewhere, so that only the order matters."""
        for value, where in ((keys, self.keys_at), (values, self.values_at)):
            if value is not None:
                flat = builder._view(builder._root(value), value.shape, value)
                cache = builder._stored((1, 1, 1, 1))
                builder.graph.expand(builder._view(cache, cache.shape, flat, where, cache))

    def rotate(self, builder: _Builder, *parts: Value) -> tuple[Value, Value, Value]:
        turns = (self.key_rotation, self.key_rotation, self.value_rotation)
        done = [part if by is None else _turn(builder, part, by) for part, by in zip(parts, turns, strict=True)]
        return done[0], done[1], done[2]

    def rotate_back(self, builder: _Builder, mixed: Value) -> Value:
        return mixed if self.value_rotation is None else _turn(builder, mixed, self.value_rotation)


def _turn(builder: _Builder, value: Value, by: Value) -> Value:
    length = by.shape[0]
    rows = value.size_bytes // SINGLE // length
    flat = builder._view(builder._root(value), (length, rows, 1, 1), value)
    turned = Value(shape=(length, rows, 1, 1), sources=(by, flat))
    return builder._view(turned, value.shape, turned)


def rotation(length: int) -> int:
    """Rows of the matrix that rotates keys: the largest power of two that divides a head, at least 64."""
    size = SMALLEST_ROTATION
    while length % (2 * size) == 0:
        size *= 2
    return size
