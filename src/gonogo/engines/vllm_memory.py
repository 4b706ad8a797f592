"""vLLM's memory: what it asks of each card, what of that is not cache, and what it needs beside it. Pure.

The budget is arithmetic that vLLM prints; the activation peak follows from the buffers that its profiling run holds at
once, read in the sources of 0.16 and 0.19 and held against 50 printed peaks (`benchmarks/capacity.py`):

* the sampler's warm-up over S sequences of V words: 16-bit logits and three float32 copies (from 0.17: logits, softmax,
  noise, and one row per multiprocessor), or 38 bytes per word with the full sort (before);
* what stands beside it: hidden states of T tokens and twice S, the workspace of cuBLAS, buffers of mixture-of-experts
  layers, an image encoder's outputs and pixels;
* or the forward pass alone, where vocabularies are small.

The second model runner (`_second_runner`) samples as it profiles from 16-bit logits alone until 0.32, and until 0.29 it
estimates no graphs: there they are captured beside the budget. Read in the sources of 0.20, 0.22, 0.24, 0.26, 0.30 and
0.33, and seen on an H200 (0.26.0). What no source gives is a table with its origin: memory outside torch, and graphs.
"""

from __future__ import annotations

from typing import Sequence

from gonogo.engines.memory import Term
from gonogo.engines.replica_memory import Pool, RankMemory, ReplicaMemory
from gonogo.engines.serving import Device, Serving
from gonogo.engines.shard import Cut, rank_weights, stage_layers
from gonogo.engines.vllm_cache import cache_layout
from gonogo.facts.architecture import Architecture, Vision
from gonogo.facts.weights import Group

GIB, MIB = 1024**3, 1024**2
DEFAULT_SHARE = 0.9
TRITON_SAMPLER_SINCE, SHARED_EXPERT_BUFFERS_SINCE, GRAPHS_INSIDE_SINCE = (0, 16, 1), (0, 17), (0, 20)
SECOND_RUNNER_SINCE, SECOND_RUNNER_FOR_ALL_SINCE = (0, 26), (0, 30)
"""Models without experts and without fixed states first; 0.22 to 0.25 had it for a few named architectures."""
SECOND_SAMPLES_ALL_SINCE = (0, 33)
CHUNKED_PREFILL_SINCE, BIG_BATCHES_SINCE = (0, 8), (0, 8, 4)
LOADS_TWICE_SINCE, STREAMS_SINCE = (0, 13), (0, 15)
"""Weights quantized while loading: all in 16 bit at first, from 0.13 beside the quantized ones, since 0.15 one by one
(vllm pull requests 29196, 31914, 32773)."""
SORT_BYTES, SAMPLE_BYTES, SINGLE = 38, 12, 4
LARGE_CARD_BYTES = 70 * GIB
FORWARD_HIDDEN = 3.75
"""Vectors of the hidden size per token that a forward pass holds beside its feed-forward (CodeLlama-7B: 0.77 GiB)."""
CUDA_CONTEXT_BYTES, CONNECTED_CONTEXT_BYTES = round(0.51 * GIB), round(1.53 * GIB)
"""Taken on an idle card before vLLM looks (H100 logs: 79.19 GiB in all, 78.68 free; 77.66 when cards are connected)."""
MXFP4_RESERVE, MXFP4_RESERVE_SINCE = 4, (0, 17)
"""gpt-oss-20b at 0.95 of an H100 makes its cache and then fails for want of one S × V × 4, with two or three of them
free; at 0.90 it runs. So many must be left: a hypothesis from three logs."""
EXPERT_GRAPHS_GIB = 0.2
"""Graphs of models with experts are larger: 1.41 and 1.10 GiB printed where layers alone would give 1.20 and 0.78."""


def sequences(serving: Serving, device: Device) -> int:
    """Sequences in one step, as vLLM chooses: 1024 on cards of 70 GiB and more (A100 not), 256 on others."""
    return serving.sequences or (1024 if _large(serving, device) else 256)


def batch_tokens(serving: Serving, device: Device) -> int:
    """Tokens in one step, as `vllm serve` chooses; before 0.8 a whole prompt had to fit."""
    if serving.batch_tokens is not None:
        return serving.batch_tokens
    if serving.version < CHUNKED_PREFILL_SINCE:
        return max(serving.context_tokens, 2048)
    return 8192 if _large(serving, device) else 2048


def replica_memory(model: Architecture, groups: Sequence[Group], serving: Serving, device: Device) -> ReplicaMemory:
    """One replica of `serving.devices` such cards."""
    found = [_rank(model, groups, serving, device, stage) for stage in range(serving.pipeline)]
    tokens = batch_tokens(serving, device)
    pools = []
    for rank in found:
        layers = stage_layers(len(model.layers), serving.pipeline, rank.stage)
        layout = cache_layout(model, serving, tokens, layers)
        if layout is not None:
            pools.append((layout.blocks(rank.cache_bytes), layout))
    if not pools:
        return ReplicaMemory(ranks=tuple(found), pool=None, sequences=sequences(serving, device))
    blocks, layout = min(pools, key=lambda pool: pool[0])
    return ReplicaMemory(
        ranks=tuple(found),
        pool=Pool(
            tokens=layout.printed_tokens(blocks, serving),
            requests=layout.requests(blocks),
            request_bytes=layout.blocks_per_request * layout.block_bytes,
            blocks=blocks,
            block_tokens=layout.block_tokens,
            block_bytes=layout.block_bytes,
        ),
        sequences=sequences(serving, device),
    )


def _rank(model: Architecture, groups: Sequence[Group], serving: Serving, device: Device, stage: int) -> RankMemory:
    cut = Cut(tensor=serving.tensor, pipeline=serving.pipeline, stage=stage, encoder_copied=serving.encoder_copied)
    budget = round((serving.share or DEFAULT_SHARE) * device.total_bytes)
    weights = rank_weights(model, groups, serving.dtype_bytes or model.dtype_bytes, serving.scheme or model.scheme, cut)
    terms = [
        Term(name="weights", size_bytes=weights, source="the model's tensors, divided as vLLM does, and positions"),
        _activation(model, serving, device, cut),
        _non_torch(serving, device),
    ]
    if serving.adapter_rank:
        terms.append(_adapters(model, serving, cut))
    graphs = _graphs(model, serving, cut)
    unseen = serving.version < SECOND_RUNNER_FOR_ALL_SINCE and _second_runner(model, serving)
    inside = serving.version >= GRAPHS_INSIDE_SINCE and not unseen
    if inside:
        terms += graphs
    idle = device.total_bytes - _context(serving)
    free = idle if device.free_bytes is None else min(idle, device.free_bytes)
    return RankMemory(
        stage=stage,
        budget_bytes=budget,
        free_bytes=free,
        terms=tuple(terms),
        cache_bytes=budget - sum(term.size_bytes for term in terms),
        outside=() if inside else graphs,
        reserve_bytes=_reserve(model, serving, device),
        loading_bytes=_loading(model, groups, serving, cut, weights),
    )


def _loading(model: Architecture, groups: Sequence[Group], serving: Serving, cut: Cut, weights: int) -> int:
    """Bytes held at once while weights are made FP8; 0 where they are stored so, or made one by one (bitsandbytes)."""
    made = serving.scheme is not None and serving.scheme != model.scheme and serving.scheme.method.startswith("fp8")
    if not made or serving.version >= STREAMS_SINCE:
        return 0
    stored = rank_weights(model, groups, serving.dtype_bytes or model.dtype_bytes, model.scheme, cut)
    return stored + weights if serving.version >= LOADS_TWICE_SINCE else stored


def _reserve(model: Architecture, serving: Serving, device: Device) -> int:
    """Bytes that must stay free beside the budget for the engine to come through its warm-up."""
    scheme = serving.scheme or model.scheme
    if scheme is None or scheme.method != "mxfp4" or serving.version < MXFP4_RESERVE_SINCE:
        return 0
    return MXFP4_RESERVE * sequences(serving, device) * model.vocabulary * SINGLE


def _large(serving: Serving, device: Device) -> bool:
    return (
        device.total_bytes >= LARGE_CARD_BYTES
        and "a100" not in device.name.lower()
        and serving.version >= CHUNKED_PREFILL_SINCE
    )


def _activation(model: Architecture, serving: Serving, device: Device, cut: Cut) -> Term:
    seqs, tokens = sequences(serving, device), batch_tokens(serving, device)
    wide = serving.dtype_bytes or model.dtype_bytes
    hidden = model.hidden * wide
    kept = hidden * (tokens + 2 * seqs) + _workspace(device)
    if cut.pipeline > 1:
        kept += 2 * tokens * hidden
    encoder, pictures = _pictures(model, serving, tokens)
    buffers = _expert_buffers(model, serving, tokens)
    persistent = serving.version >= SHARED_EXPERT_BUFFERS_SINCE
    sampler = _sampler(model, seqs, wide, serving, device) if cut.last else 0
    forward = _forward(model, serving, tokens, wide) + _workspace(device) + (0 if persistent else buffers)
    peak = max(kept + sampler, forward) + pictures + (buffers if persistent else 0)
    size = max(peak, encoder + pictures)
    parts = [f"sampler {sampler / MIB:.0f} MiB for {seqs} sequences", f"{tokens} tokens of hidden states"]
    if size > kept + sampler + pictures + (buffers if persistent else 0):
        parts = [f"forward pass of {tokens} tokens" if encoder + pictures < peak else "image encoder"]
    if buffers:
        parts.append(f"experts {buffers / MIB:.0f} MiB")
    if pictures:
        parts.append(f"images {pictures / MIB:.0f} MiB")
    return Term(name="activation", size_bytes=size, source=" + ".join(parts))


def _second_runner(model: Architecture, serving: Serving) -> bool:
    """Whether this release chooses its second model runner for this model."""
    if serving.version >= SECOND_RUNNER_FOR_ALL_SINCE:
        return True
    return model.experts is None and model.recurrent is None and serving.version >= SECOND_RUNNER_SINCE


def _sampler(model: Architecture, seqs: int, wide: int, serving: Serving, device: Device) -> int:
    """The sampler's warm-up: logits of the model's own type, and what sampling copies them into."""
    if serving.version < TRITON_SAMPLER_SINCE:
        return seqs * model.vocabulary * (SORT_BYTES + wide - 2)
    if serving.version < SECOND_SAMPLES_ALL_SINCE and _second_runner(model, serving):
        return seqs * model.vocabulary * wide
    rows = min(device.processors, seqs)
    return model.vocabulary * (seqs * (wide + SAMPLE_BYTES) + rows * SINGLE)


def _forward(model: Architecture, serving: Serving, tokens: int, wide: int) -> int:
    widest = max((layer.dense_width or 0 for layer in model.layers), default=0)
    columns = (3 if model.gated else 2) * widest / serving.tensor
    beside = serving.corrections.forward_hidden
    return round(tokens * wide * (columns + (FORWARD_HIDDEN if beside is None else beside) * model.hidden))


def _expert_buffers(model: Architecture, serving: Serving, tokens: int) -> int:
    """Two buffers of fused mixture-of-experts kernels: (T, k, max(I, H)) and (T, k, max(2I, H)). MXFP4's have none."""
    experts, scheme = model.experts, serving.scheme or model.scheme
    if experts is None or (scheme is not None and scheme.method == "mxfp4"):
        return 0
    width, inner = experts.width // serving.tensor, experts.input_width or model.hidden
    both = (2 if model.gated else 1) * width
    return tokens * experts.per_token * (max(width, inner) + max(both, inner)) * 2


def _pictures(model: Architecture, serving: Serving, tokens: int) -> tuple[int, int]:
    """Bytes of an image encoder's forward pass, and of its outputs and pixels, which stay while the sampler runs."""
    vision = model.vision
    if vision is None or serving.images == 0:
        return 0, 0
    each = serving.image_tokens or vision.tokens_per_image
    count = max(1, max(tokens, each) // each)
    if serving.images is not None:
        count = min(count, serving.images * (serving.sequences or 256))
    outputs = count * each * model.hidden * 2
    pixels = count * _pixel_bytes(vision, each)
    patches = count * each * vision.pixels_per_token // vision.patch_pixels
    return patches * vision.columns * 2, outputs + pixels


def _pixel_bytes(vision: Vision, image_tokens: int) -> int:
    return vision.pixel_bytes_per_image * image_tokens // vision.tokens_per_image


def _workspace(device: Device) -> int:
    """cuBLAS takes 32 MiB on Hopper and newer, 8 MiB before (torch's CUDABlas.cpp)."""
    return 32 * MIB if device.hopper_or_newer else 8 * MIB


def _context(serving: Serving) -> int:
    return CONNECTED_CONTEXT_BYTES if serving.devices > 1 else CUDA_CONTEXT_BYTES


def _non_torch(serving: Serving, device: Device) -> Term:
    """Memory outside torch: a table of printed values (medians), since nothing computes it."""
    seen = serving.corrections.non_torch_bytes
    if seen is not None:
        return Term(name="non_torch", size_bytes=seen, source="as this engine printed on such a card")
    size, source = 0.0, ""
    for since, least_tensor, value, origin in _NON_TORCH:
        if serving.version >= since and serving.tensor >= least_tensor:
            size, source = value, origin
    if serving.pipeline > 1 and serving.tensor == 1:
        size, source = 0.07, "0.07 GiB per rank of a pipeline (H100, 0.19)"
    if not device.hopper_or_newer and serving.tensor == 1:
        size, source = 0.06, "0.03–0.09 GiB on T4, A100, 4090 (0.8)"
    return Term(name="non_torch", size_bytes=round(size * GIB), source=source)


def _graphs(model: Architecture, serving: Serving, cut: Cut) -> tuple[Term, ...]:
    """CUDA graphs: linear in the layers of a rank over 20 printed values (0.51 GiB for 8 layers, 1.79 for 80)."""
    if not serving.graphs:
        return ()
    layers = len(stage_layers(len(model.layers), cut.pipeline, cut.stage))
    experts = EXPERT_GRAPHS_GIB if model.experts is not None else 0.0
    factor = serving.corrections.graphs_factor
    size = round((_GRAPH_BASE_GIB + _GRAPH_LAYER_GIB * layers + experts) * (1.0 if factor is None else factor) * GIB)
    source = f"{_GRAPH_BASE_GIB} GiB + {_GRAPH_LAYER_GIB} per layer, fitted to printed values (H100, 0.19)"
    if factor is not None:
        source += f", × {factor:.2f} as this engine printed on such a card"
    return (Term(name="graphs", size_bytes=size, source=source),)


def _adapters(model: Architecture, serving: Serving, cut: Cut) -> Term:
    """Buffers of one LoRA adapter: rank × (inputs + outputs) of every linear layer and of both vocabularies."""
    columns = 2 * (model.vocabulary + model.hidden)
    for index in stage_layers(len(model.layers), cut.pipeline, cut.stage):
        layer = model.layers[index]
        if layer.attention is not None:
            query = layer.attention.heads * layer.attention.key_dim
            keys = layer.attention.kv_heads * (layer.attention.key_dim + layer.attention.value_dim)
            columns += 4 * model.hidden + 2 * query + keys
        if layer.dense_width is not None:
            columns += (3 if model.gated else 2) * (model.hidden + layer.dense_width)
    rank = serving.adapter_rank or 0
    return Term(
        name="adapters",
        size_bytes=columns * rank * 2 // cut.tensor,
        source=f"one LoRA adapter of rank {rank} over {columns} inputs and outputs",
    )


_GRAPH_BASE_GIB, _GRAPH_LAYER_GIB = 0.36, 0.0175

_NON_TORCH: tuple[tuple[tuple[int, ...], int, float, str], ...] = (
    ((0, 0), 1, 0.13, "printed 0.13 GiB (H100, up to 0.17)"),
    ((0, 18), 1, 0.25, "printed 0.24–0.27 GiB (H100, 0.18 and 0.19)"),
    ((0, 0), 2, 0.54, "printed 0.54 GiB (H100, TP 2, up to 0.16)"),
    ((0, 17), 2, 2.09, "printed 2.06–2.11 GiB (H100, TP 2, 0.19)"),
    ((0, 17), 4, 2.17, "printed 2.13–2.21 GiB (H100, TP 4, 0.19)"),
)
"""From this version on, and so many accelerators per layer: GiB and its origin. The last that applies counts."""
