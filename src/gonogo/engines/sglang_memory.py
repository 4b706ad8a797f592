"""SGLang's memory: its cache is what `mem_fraction_static` of the free memory leaves after the weights. Pure.

Source: `arg_groups/memory_hook.py` and `mem_cache/kv_cache_configurator.py` of the 0.5.23 wheel; the arithmetic is held
against a printed pool (Qwen3-14B on 4 × 24 GB: 298,447 tokens). Where the fraction is not given SGLang derives it from
the card's memory, so that activations and graphs have room outside it. A higher fraction leaves them less: that is told
as strained, and as no room where not even its fixed reserve and its graphs remain.
"""

from __future__ import annotations

from typing import Sequence

from gonogo.engines.memory import Term
from gonogo.engines.replica_memory import Pool, RankMemory, ReplicaMemory
from gonogo.engines.serving import Device, Serving
from gonogo.engines.shard import Cut, rank_weights, stage_layers
from gonogo.facts.architecture import Architecture, AttentionKind
from gonogo.facts.weights import Group

GIB, MIB = 1024**3, 1024**2
CONTEXT_BYTES = round(0.5 * GIB)
"""Taken before SGLang looks: 23.08 of 23.58 GiB were free (Qwen3-14B on 4 × 24 GB)."""
RUNTIME_BYTES = round(0.19 * GIB)
FIXED_MIB = 512
ROUNDING = 0.005
FLOOR_MIB, FLOOR_ABOVE_MIB = 10 * 1024, 60 * 1024
WINDOW_SHARE = 0.8
"""`swa_full_tokens_ratio`: tokens of the windowed pool per token of the full one."""
PREFILL_GRAPHS, LATENT_PREFILL_MIB = 36, 1536
_BY_MEMORY: tuple[tuple[int, int, int, int], ...] = (
    (20, 2048, 8, 8),
    (35, 4096, 48, 160),
    (60, 4096, 32, 160),
    (90, 8192, 256, 512),
    (160, 8192, 256, 512),
    (1 << 20, 16384, 512, 512),
)
"""Card below so many GiB: tokens of a prefill chunk, largest decode batch with a graph below TP 4, and from TP 4 on."""


def replica_memory(model: Architecture, groups: Sequence[Group], serving: Serving, device: Device) -> ReplicaMemory:
    """One replica of `serving.devices` such cards."""
    share = serving.share or default_share(model, serving, device)
    free = device.total_bytes - CONTEXT_BYTES if device.free_bytes is None else device.free_bytes
    found, tokens = [], []
    for stage in range(serving.pipeline):
        cut = Cut(tensor=serving.tensor, pipeline=serving.pipeline, stage=stage)
        weights = rank_weights(
            model, groups, serving.dtype_bytes or model.dtype_bytes, serving.scheme or model.scheme, cut
        )
        rank = RankMemory(
            stage=stage,
            budget_bytes=round(share * free),
            free_bytes=free,
            terms=(
                Term(name="weights", size_bytes=weights, source="the model's tensors, divided as SGLang does"),
                Term(name="runtime", size_bytes=RUNTIME_BYTES, source="0.19 GiB more were gone after loading (1 log)"),
            ),
            cache_bytes=round(share * free) - weights - RUNTIME_BYTES,
            reserve_bytes=round((FIXED_MIB + _graphs_mib(model, serving, device)) * MIB),
        )
        found.append(rank)
        each = token_bytes(model, serving, stage)
        if each:
            tokens.append((int(max(0, rank.cache_bytes) // each), each))
    if not tokens:
        return ReplicaMemory(ranks=tuple(found), pool=None)
    count, each = min(tokens)
    pool = Pool(
        tokens=count,
        requests=count / serving.context_tokens,
        request_bytes=round(each * serving.context_tokens),
    )
    strained = share > default_share(model, serving, device) + ROUNDING
    return ReplicaMemory(ranks=tuple(found), pool=pool, sequences=serving.sequences, strained=strained)


def token_bytes(model: Architecture, serving: Serving, stage: int) -> float:
    """Bytes of one token on a rank of this stage; a windowed layer keeps `WINDOW_SHARE` of the tokens."""
    value_bytes = serving.kv_bytes or serving.dtype_bytes or model.dtype_bytes
    total = 0.0
    for index in stage_layers(len(model.layers), serving.pipeline, stage):
        attention = model.layers[index].attention
        if attention is None or attention.kind is AttentionKind.RECURRENT:
            continue
        if attention.kind is AttentionKind.LATENT and model.latent is not None:
            total += (model.latent.kv_rank + model.latent.rope_dim) * value_bytes
            continue
        heads = max(1, -(-attention.kv_heads // serving.tensor))
        share = WINDOW_SHARE if attention.window is not None else 1.0
        total += heads * (attention.key_dim + attention.value_dim) * value_bytes * share
    return total


def default_share(model: Architecture, serving: Serving, device: Device) -> float:
    """`mem_fraction_static` as SGLang derives it when it is not given."""
    card_mib = device.total_bytes / MIB
    chunk = _by_memory(device)[0]
    graphs = _graphs_mib(model, serving, device)
    reserved = FIXED_MIB + 1.5 * max(serving.batch_tokens or chunk, 2048) + serving.devices / 8 * 1024 + graphs
    if card_mib > FLOOR_ABOVE_MIB:
        reserved = max(reserved, FLOOR_MIB)
    share = round((card_mib - reserved) / card_mib, 3)
    if model.vision is not None:
        score = model.vision.layers * model.vision.hidden**2 / (24 * 1024**2)
        share *= 0.95 * max(0.8, min(1.05, 1.0 - 0.1 * (score - 1.0)))
    return share


def _by_memory(device: Device) -> tuple[int, int, int]:
    return next(row[1:] for row in _BY_MEMORY if device.total_bytes / MIB < row[0] * 1024)


def _graphs_mib(model: Architecture, serving: Serving, device: Device) -> float:
    """What SGLang sets aside for CUDA graphs; 0 without them."""
    if not serving.graphs:
        return 0.0
    _, small, large = _by_memory(device)
    batch = small if serving.tensor < 4 else large
    return 2 * batch + (LATENT_PREFILL_MIB if model.latent is not None else PREFILL_GRAPHS * 8)
