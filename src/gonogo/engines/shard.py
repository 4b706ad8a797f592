"""How weights are divided over the accelerators of one replica: what each rank holds, in bytes. Pure.

The rules are vLLM's (`ColumnParallelLinear`, `RowParallelLinear`, `VocabParallelEmbedding`, `get_pp_indices`, read in
its 0.19.0 wheel), and SGLang's are the same: columns and rows divide; key and value heads divide until one is left, and
are copied from there; the vocabulary is padded to 64; norms, routers and latent projections are copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Sequence

from gonogo.facts.architecture import Architecture, AttentionKind, Scheme
from gonogo.facts.schemes import QUANTIZED_PARTS, SCHEMES
from gonogo.facts.weights import Group, Part

VOCABULARY_STEP = 64
MXFP4_STEP = 256
"""Columns to which MXFP4 experts are padded: gpt-oss's 2880 become 3072 (vLLM prints 64.38 GiB for gpt-oss-120b)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Which rank: stage `stage` of `pipeline`, one of `tensor`; whether it holds the whole image encoder."""

    tensor: int
    pipeline: int
    stage: int
    encoder_copied: bool = False

    @property
    def last(self) -> bool:
        return self.stage == self.pipeline - 1


def stage_layers(layers: int, pipeline: int, stage: int) -> range:
    """The layers of a stage: equal parts, and what is left over one each to the stages before the last."""
    counts = [layers // pipeline] * pipeline
    for back in range(2, layers % pipeline + 2):
        counts[-back] += 1
    start = sum(counts[:stage])
    return range(start, start + counts[stage])


def rank_weights(
    model: Architecture, groups: Iterable[Group], dtype_bytes: int, scheme: Scheme | None, cut: Cut
) -> int:
    """Bytes of weights, with the tables of positions, that one rank holds."""
    layers = stage_layers(len(model.layers), cut.pipeline, cut.stage)
    total = 0.0
    for group in groups:
        if group.part is not Part.DRAFT and _here(group, model, layers, cut):
            total += _share(group, model, cut) * _bytes_each(group, model, dtype_bytes, scheme)
    return round(total) + model.position_cells * dtype_bytes + _absorbed(model, layers, cut)


def divides(model: Architecture, tensor: int) -> str | None:
    """Why a model cannot be divided over so many accelerators; None: it can. Engines refuse all of these at start."""
    for attention in model.attentions:
        if attention.kind is AttentionKind.RECURRENT:
            continue
        if attention.heads % tensor:
            return f"{attention.heads} heads"
        if attention.kind is not AttentionKind.LATENT and attention.kv_heads % tensor and tensor % attention.kv_heads:
            return f"{attention.kv_heads} key-value heads"
    if model.recurrent is not None and model.recurrent.heads % tensor:
        return f"{model.recurrent.heads} state heads"
    for layer in model.layers:
        if layer.dense_width is not None and layer.dense_width % tensor:
            return f"a feed-forward of {layer.dense_width}"
    if model.experts is not None and model.experts.width % tensor:
        return f"experts of {model.experts.width}"
    padded = -(-model.vocabulary // VOCABULARY_STEP) * VOCABULARY_STEP
    return f"a vocabulary of {padded}" if padded % tensor else None


def _here(group: Group, model: Architecture, layers: range, cut: Cut) -> bool:
    if group.layer is not None:
        return group.layer in layers
    if group.part is Part.EMBEDDING:
        return cut.stage == 0 or (model.tied and cut.last)
    if group.part is Part.VISION:
        return cut.stage == 0
    return cut.last


def _share(group: Group, model: Architecture, cut: Cut) -> float:
    """Weights of the group that one rank holds."""
    if group.part in (Part.EMBEDDING, Part.HEAD):
        step = max(VOCABULARY_STEP, cut.tensor)
        return -(-model.vocabulary // step) * step / cut.tensor * model.hidden
    if group.part is Part.VISION and cut.encoder_copied:
        return group.elements
    ways = cut.tensor if group.ways is None else min(cut.tensor, group.ways)
    return group.elements / ways


def _bytes_each(group: Group, model: Architecture, dtype_bytes: int, scheme: Scheme | None) -> float:
    """Bytes of one weight: as the checkpoint stores it, unless it is quantized while loading."""
    part = group.part.value
    quantized = scheme is not None and part in QUANTIZED_PARTS and part not in scheme.skipped
    if group.stored_bytes is not None and (not quantized or scheme == model.scheme):
        return group.stored_bytes / group.elements if group.elements else 0.0
    if scheme is None or not quantized:
        return float(dtype_bytes)
    padding = 1.0
    if scheme.method == "mxfp4" and group.part is Part.EXPERT:
        padding = -(-model.hidden // MXFP4_STEP) * MXFP4_STEP / model.hidden
    return SCHEMES[scheme.method].bytes_per_weight * padding


def _absorbed(model: Architecture, layers: Sequence[int], cut: Cut) -> int:
    """Latent attention keeps the two halves of `kv_b_proj` a second time, in 16 bit, for decoding."""
    latent = model.latent
    if latent is None:
        return 0
    found = [model.layers[index].attention for index in layers]
    elements = sum(
        latent.kv_rank * one.heads * (latent.nope_dim + one.value_dim)
        for one in found
        if one is not None and one.kind is AttentionKind.LATENT
    )
    return 2 * elements // cut.tensor
