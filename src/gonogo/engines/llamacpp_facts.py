"""From a model file's facts to the numbers that llama.cpp's buffers follow from. Pure.

Where the facts hold no single tensors (facts that an older version stored), the usual ones of the architecture are
assumed, in its own sizes.
"""

from __future__ import annotations

from typing import Mapping

from gonogo.engines.llamacpp_families import FAMILIES
from gonogo.engines.llamacpp_shape import GgufShape, Routing
from gonogo.facts.model import ModelFacts


def shape_from(model: ModelFacts) -> GgufShape:
    """The shape of a model that was read. Raises ValueError for one that was not."""
    if model.tensors is None or model.layers is None or model.embedding_length is None:
        raise ValueError(f"the model {model.asked!r} was not read: {model.problem or 'metadata is missing'}")
    architecture = model.architecture or "unknown"
    heads = model.heads or 0
    head = model.embedding_length // heads if heads else 0
    family = FAMILIES.get(architecture)
    every = (model.window_every or family.full_every) if family is not None and family.full_every else None
    window = model.sliding_window if every or family is None else None
    if every and family is not None:
        window = window or family.window
    layers = max(1, model.layers - (model.draft_layers or 0))
    kv_heads = (model.kv_heads or (heads,) * model.layers)[:layers]
    latent = model.latent_rank
    tensors = {tensor.name: tensor.shape for tensor in model.tensors}
    if not any(name.startswith("blk.") for name in tensors):
        tensors = dict(_usual(model, architecture, kv_heads, model.key_length or head))
    return GgufShape(
        architecture=architecture,
        embedding=model.embedding_length,
        vocabulary=model.vocabulary or 0,
        heads=heads,
        kv_heads=kv_heads,
        key=model.key_length or head,
        value=model.value_length or head,
        tensors=tensors,
        windowed=_windowed(model, window, every, layers),
        window=window,
        latent_rank=latent,
        latent_key=model.latent_key_length or 0,
        latent_value=model.latent_value_length or 0,
        rope_length=model.rope_length or 0,
        state_elements=model.state_elements or 0,
        index_length=model.index_length or 0,
        index_layers=model.index_layers,
        experts_used=model.experts_used,
        routing=Routing(
            groups=model.expert_groups,
            groups_used=model.expert_groups_used,
            normed=model.expert_weights_normed,
            scaled=bool(model.expert_weights_scaled),
        ),
    )


def _windowed(model: ModelFacts, window: int | None, every: int | None, layers: int) -> tuple[bool, ...]:
    """Which layers keep only the window: as the file lists them, else in the architecture's rhythm."""
    if window is not None and every is not None and model.windowed_layers is not None:
        return model.windowed_layers[:layers]
    return tuple(bool(window and every and (index + 1) % every) for index in range(layers))


def _usual(model: ModelFacts, architecture: str, kv_heads: tuple[int, ...], head: int) -> Mapping[str, tuple[int, ...]]:
    hidden = model.embedding_length or 0
    width = model.feed_forward_length or 4 * hidden
    queries = (model.heads or 0) * head
    found: dict[str, tuple[int, ...]] = {"output_norm.weight": (hidden,)}
    for index, heads in enumerate(kv_heads):
        block = f"blk.{index}."
        found |= {
            block + "attn_norm.weight": (hidden,),
            block + "attn_q.weight": (hidden, queries),
            block + "attn_k.weight": (hidden, heads * head),
            block + "attn_v.weight": (hidden, heads * head),
            block + "attn_output.weight": (queries, hidden),
            block + "ffn_norm.weight": (hidden,),
            block + "ffn_gate.weight": (hidden, width),
            block + "ffn_up.weight": (hidden, width),
            block + "ffn_down.weight": (width, hidden),
        }
        if architecture in ("qwen3", "gemma3"):
            found |= {block + f"attn_{name}_norm.weight": (head,) for name in "qk"}
        if architecture == "gemma3":
            found |= {block + f"{name}.weight": (hidden,) for name in ("post_attention_norm", "post_ffw_norm")}
    return found
