"""The feed-forward part in llama.cpp's graphs: dense, or experts and how tokens find them. Pure.

Read in `build_ffn` and `build_moe_ffn` of `llama-graph.cpp`, build 11434.
"""

from __future__ import annotations

from gonogo.engines.ggml_rehearsal import Value
from gonogo.engines.llamacpp_drawing import Drawing
from gonogo.engines.llamacpp_families import Gating


def feed_forward(draw: Drawing, layer: int, normed: Value) -> Value:
    name = f"blk.{layer}."
    if name + "ffn_gate_inp.weight" not in draw.shape.tensors:
        return _dense(draw, normed, name, "")
    routed = _experts(draw, layer, normed)
    if _up_width(draw, name, "_shexp") is None:
        return routed
    shared = _shared(draw, normed, name)
    return draw.same(routed, shared)


def _shared(draw: Drawing, normed: Value, name: str) -> Value:
    if name + "ffn_gate_inp_shexp.weight" not in draw.shape.tensors:
        return _dense(draw, normed, name, "_shexp")
    gate = draw.weighted(normed, 1)
    gate = draw.same(draw.same(gate), gate) if draw.family.gate_by_division else draw.same(gate)
    return draw.same(_dense(draw, normed, name, "_shexp"), gate)


def _up_width(draw: Drawing, name: str, kind: str) -> int | None:
    found = draw.shape.tensors.get(f"{name}ffn_up{kind}.weight")
    return None if found is None else found[1]


def _dense(draw: Drawing, normed: Value, name: str, kind: str) -> Value:
    width = draw.shape.tensors[f"{name}ffn_up{kind}.weight"][1]
    up = draw.bias(draw.weighted(normed, width), f"{name}ffn_up{kind}")
    if f"{name}ffn_gate{kind}.weight" in draw.shape.tensors:
        gate = draw.bias(draw.weighted(normed, width), f"{name}ffn_gate{kind}")
        active = Value(shape=gate.shape, sources=(gate, up))
    elif draw.shape.tensors[f"{name}ffn_down{kind}.weight"][0] * 2 == width:
        width //= 2
        active = Value(shape=(width, *up.shape[1:]), sources=(up,))
    else:
        active = draw.same(up)
        if draw.family.squared:
            active = draw.same(active)
    return draw.bias(draw.weighted(active, draw.shape.embedding), f"{name}ffn_down{kind}")


def _experts(draw: Drawing, layer: int, normed: Value) -> Value:
    name, used, tokens = f"blk.{layer}.", draw.shape.experts_used or 1, normed.shape[1]
    count = draw.shape.tensors[name + "ffn_gate_inp.weight"][1]
    logits = draw.bias(draw.weighted(normed, count), name + "ffn_gate_inp")
    chosen, weights = _route(draw, logits, name, count)
    draw.graph.expand(weights)
    width = draw.shape.tensors[name + "ffn_down_exps.weight"][0]
    entering = draw.view(normed, (draw.shape.embedding, 1, tokens, 1), normed)
    if draw.family.weights_before_experts:
        repeated = Value(shape=(draw.shape.embedding, used, tokens, 1), sources=(entering,))
        entering = draw.same(repeated, weights)
    sizes = (width, used, tokens, 1)
    if name + "ffn_gate_up_exps.weight" in draw.shape.tensors:
        both = Value(shape=(2 * width, used, tokens, 1), sources=(draw.weight(), entering, chosen))
        halves = draw.view(both, sizes, both), draw.view(both, sizes, both)
        active = Value(shape=sizes, sources=halves)
    else:
        up = draw.expert_bias(
            Value(shape=sizes, sources=(draw.weight(), entering, chosen)), name + "ffn_up_exps", chosen
        )
        active = _activate(draw, up, entering, chosen, name)
    out = Value(shape=(draw.shape.embedding, used, tokens, 1), sources=(draw.weight(), active, chosen))
    out = draw.expert_bias(out, name + "ffn_down_exps", chosen)
    if not draw.family.weights_before_experts:
        out = draw.same(out, weights)
    draw.graph.expand(out)
    return _sum(draw, out, used, tokens)


def _activate(draw: Drawing, up: Value, entering: Value, chosen: Value, name: str) -> Value:
    if name + "ffn_gate_exps.weight" not in draw.shape.tensors:
        active = draw.same(up)
        return draw.same(active) if draw.family.squared else active
    gate = Value(shape=up.shape, sources=(draw.weight(), entering, chosen))
    gate = draw.expert_bias(gate, name + "ffn_gate_exps", chosen)
    return Value(shape=up.shape, sources=(gate, up))


def _sum(draw: Drawing, out: Value, used: int, tokens: int) -> Value:
    parts = [draw.view(out, (draw.shape.embedding, tokens, 1, 1), out) for _ in range(used)]
    for part in parts:
        draw.graph.expand(part)
    total = parts[0]
    for part in parts[1:]:
        total = draw.same(total, part)
        draw.graph.expand(total)
    return total if used > 1 else Value(shape=total.shape, sources=(total,))


def _route(draw: Drawing, logits: Value, name: str, count: int) -> tuple[Value, Value]:
    """The experts that each token goes to, and their weights."""
    used, tokens = draw.shape.experts_used or 1, logits.shape[1]
    plain = draw.family.gating is Gating.SOFTMAX_OF_CHOSEN
    odds = logits if plain else draw.same(logits)
    judged = odds
    if name + "exp_probs_b.bias" in draw.shape.tensors:
        judged = draw.same(odds, draw.weight())
    if draw.family.gating is Gating.LOGITS_THEN_SIGMOID:
        judged = logits
    if (draw.shape.routing.groups or 1) > 1:
        judged = _choose_groups(draw, judged, count)
    order = Value(shape=judged.shape, sources=(judged,))
    chosen = draw.view(order, (used, tokens, 1, 1), order)
    rows = draw.view(draw.root(odds), (1, count, tokens, 1), odds)
    weights = Value(shape=(1, used, tokens, 1), sources=(rows, chosen))
    if plain:
        weights = draw.same(draw.view(weights, (used, tokens, 1, 1), weights))
        weights = draw.view(weights, (1, used, tokens, 1), weights)
    normed = draw.shape.routing.normed
    if draw.family.normed_weights if normed is None else normed:
        flat = draw.view(draw.root(weights), (used, tokens, 1, 1), weights)
        total = draw.same(Value(shape=(1, tokens, 1, 1), sources=(flat,)))
        flat = draw.same(flat, total)
        weights = draw.view(flat, (1, used, tokens, 1), flat)
    if draw.shape.routing.scaled:
        weights = draw.same(weights)
    return chosen, weights


def _choose_groups(draw: Drawing, judged: Value, count: int) -> Value:
    groups, tokens = draw.shape.routing.groups or 1, judged.shape[1]
    each, kept = count // groups, draw.shape.routing.groups_used or 1
    grouped = draw.view(draw.root(judged), (each, groups, tokens, 1), judged)
    order = Value(shape=grouped.shape, sources=(grouped,))
    best = draw.view(order, (2, groups, tokens, 1), order)
    scores = Value(
        shape=(1, 2, groups, tokens),
        sources=(draw.view(draw.root(judged), (1, each, groups, tokens), grouped), best),
    )
    scores = Value(shape=(1, groups, tokens, 1), sources=(draw.view(scores, (2, groups, tokens, 1), scores),))
    flat = draw.view(scores, (groups, tokens, 1, 1), scores)
    ranked = Value(shape=flat.shape, sources=(flat,))
    taken = draw.view(ranked, (kept, tokens, 1, 1), ranked)
    left = Value(shape=(each, kept, tokens, 1), sources=(grouped, taken))
    blank = draw.same(grouped)
    filled = draw.view(blank, blank.shape, left, taken, blank)
    return draw.view(blank, (count, tokens, 1, 1), filled)
