"""Rows of measured speeds (in the form of `perf_truth.jsonl`) → samples: what ran, under which load, what was measured.

A row that cannot be understood is counted with the reason, never bent. Not here: judging predictions (`speed`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Mapping

from model_rows import architecture_of
from speed_cards import Host, host

from gonogo.engines.shard import Cut, rank_weights
from gonogo.engines.vllm_cache import token_bytes
from gonogo.facts.architecture import Architecture, Scheme
from gonogo.facts.catalogue import known_models
from gonogo.facts.numbers import ConfigError
from gonogo.facts.parse_config import parse_config
from gonogo.facts.weights import Part, groups_of, parameters
from gonogo.plan.roofline import Layout, Stored
from gonogo.plan.speed import Deployment, Load

GIB = 1024**3
CACHE_SHARE, OTHER_GIB = 0.9, 4.0
"""Of a card's memory that serving engines take, and what they need beside weights and cache: enough for a speed."""
LARGEST_TENSOR = 16


@dataclass(frozen=True)
class Sample:
    """One measured row. `quantity`: itl_s, prompt_s, duration_s or tokens_per_s, and its value; `ttft_s` beside it."""

    kind: str
    model: str
    deployment: Deployment
    load: Load
    quantity: str
    value: float
    ttft_s: float | None


class NotAttempted(Exception):
    """Why a row says too little."""


class Models:
    """Models by the loose names that rows use; rows of `--models` go beside the catalogue."""

    def __init__(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        self._rows = {_plain(name): row for name, row in rows.items()}
        self._known = {_plain(name): model.config for name, model in known_models().items()}
        self._seen: dict[str, Architecture] = {}

    def find(self, name: str, precision: str) -> Architecture:
        """The architecture; a checkpoint of that precision where the catalogue has one of its own."""
        key = f"{name}|{precision}"
        if key not in self._seen:
            self._seen[key] = self._find(name, precision)
        return self._seen[key]

    def _find(self, name: str, precision: str) -> Architecture:
        plain = _plain(name)
        base = _ALIASES.get(plain, plain)
        bare = re.sub(_SUFFIX, "", base)
        tries = [f"{bare}-nvfp4"] if precision == "fp4" else [f"{bare}-fp8"] if precision == "fp8" else []
        for tried in (*tries, base, bare, *(f"{bare}-{more}" for more in _MORE_NAMES)):
            one = _ALIASES.get(tried, tried)
            if one in _CONFIGS:
                return parse_config(_CONFIGS[one])
            if one in self._known:
                return parse_config(self._known[one])
            if one in self._rows:
                try:
                    return architecture_of(self._rows[one])
                except ConfigError as error:
                    raise NotAttempted(f"model row incomplete: {error}") from None
        raise NotAttempted(f"model not known: {name}")


def identity(model: Architecture) -> str:
    """One model, whatever its precision or fine-tune: the shape of its layers."""
    experts = model.experts.count if model.experts else 0
    return f"{model.hidden}x{len(model.layers)}e{experts}"


def sample_of(row: Mapping[str, Any], models: Models) -> Sample:
    """Raises NotAttempted."""
    kind = str(row.get("kind"))
    reader = _READERS.get(kind)
    if reader is None:
        raise NotAttempted(f"kind {kind}: no prompt and answer lengths, or no batch")
    return reader(row, models)


def _serving(row: Mapping[str, Any], models: Models) -> Sample:
    if not row.get("concurrency"):
        raise NotAttempted("concurrency not stated")
    if not row.get("tpot_ms"):
        raise NotAttempted("no time per token")
    experimental = "token_position_decode_slo" in str(row.get("source"))
    found = _host("h200" if experimental else str(row["gpu"]))
    precision = str(row.get("precision") or ("fp8" if experimental else "")).casefold()
    model = models.find(str(row["model"]), precision)
    layout, wide = _experimental_layout(row) if experimental else _layout(row)
    engine = _engine(row)
    deployment = _deployment(model, engine, found, layout, _stored(model, precision, engine))
    deployment = replace(deployment, separate_prefill=wide)
    load = Load(
        prompt_tokens=float(row["isl"]),
        answer_tokens=float(row["osl"]),
        concurrent=float(row["concurrency"]),
        together=experimental and "/glm-5/" not in str(row["source"]),
    )
    ttft = row.get("ttft_ms")
    return Sample(
        kind="serving",
        model=identity(model),
        deployment=deployment,
        load=load,
        quantity="itl_s",
        value=float(row["tpot_ms"]) / 1e3,
        ttft_s=float(ttft) / 1e3 if ttft else None,
    )


def _single(row: Mapping[str, Any], models: Models) -> Sample:
    """Speed is (prompt + answer) ÷ time: with a prompt of one token it is the decode speed, else a duration."""
    precision = str(row.get("precision") or "").casefold()
    model = models.find(str(row["model"]), precision)
    engine = _engine(row)
    layout = Layout(tensor=int(row.get("gpu_count") or 1))
    if engine == "transformers":
        layout = Layout(pipeline=int(row.get("gpu_count") or 1))
    load = Load(prompt_tokens=float(row["isl"]), answer_tokens=float(row["osl"]))
    seconds = (load.prompt_tokens + load.answer_tokens) / float(row["total_tokens_per_s"])
    decode = load.prompt_tokens <= 16
    deployment = _deployment(model, engine, _host(str(row["gpu"])), layout, _stored(model, precision, engine))
    return Sample(
        kind="single stream" if decode else "single stream, whole request",
        model=identity(model),
        deployment=deployment,
        load=load,
        quantity="itl_s" if decode else "duration_s",
        value=seconds / load.answer_tokens if decode else seconds,
        ttft_s=None,
    )


def _bench(row: Mapping[str, Any], models: Models) -> Sample:
    """llama.cpp's own benchmark: pp = prompt tokens/s, tg = answer tokens/s, at a depth of tokens already there."""
    value = row.get("value") if "metric" in row else row.get("tok_s")
    if not value:
        raise NotAttempted("ran out of memory")
    test = str(row.get("metric") or row.get("test"))
    found = re.match(r"(pp|tg)(\d+)(?:.*d(\d+))?", test)
    if found is None:
        raise NotAttempted(f"test {test!r}")
    count, depth = int(found.group(2)), int(found.group(3) or 0)
    name = str(row["model"])
    model = models.find(name, "gguf")
    where = _host(str(row["gpu"]))
    stored = Stored(bytes_per_weight=_gguf_bytes(name, row, model))
    if stored.bytes_per_weight == 2:
        stored = Stored()
    deployment = _deployment(model, "llama.cpp", where, Layout(pipeline=where.count), stored)
    decode = found.group(1) == "tg"
    load = Load(prompt_tokens=max(1, depth) if decode else count, answer_tokens=count if decode else 1)
    if not decode and depth:
        raise NotAttempted("prompt speed behind a long context")
    return Sample(
        kind="llama.cpp answer" if decode else "llama.cpp prompt",
        model=identity(model),
        deployment=replace(deployment, cache_tokens=None),
        load=load,
        quantity="itl_s" if decode else "prompt_s",
        value=1 / float(value) if decode else count / float(value),
        ttft_s=None,
    )


def _offline(row: Mapping[str, Any], models: Models) -> Sample:
    precision = str(row.get("precision") or "").casefold()
    model = models.find(str(row["model"]), precision)
    engine = _engine(row)
    layout = Layout(tensor=int(row.get("tp") or 1))
    deployment = _deployment(model, engine, _host(str(row["gpu"])), layout, _stored(model, precision, engine))
    load = Load(prompt_tokens=float(row["isl"]), answer_tokens=float(row["osl"]), concurrent=OFFLINE_REQUESTS)
    return Sample(
        kind="offline",
        model=identity(model),
        deployment=deployment,
        load=load,
        quantity="tokens_per_s",
        value=float(row["output_tok_s_total"]),
        ttft_s=None,
    )


OFFLINE_REQUESTS = 2048
"""Requests at once when all are there from the start; TensorRT-LLM's default `max_batch_size`."""


def _layout(row: Mapping[str, Any]) -> tuple[Layout, bool]:
    """Columns multiply where experts are spread too (tp 64 with 8 × 8: eight cards). Second: prefill elsewhere."""
    tensor, data = int(row.get("tp") or 1), int(row.get("dp_attention") or 1)
    expert_tensor, expert_ways = int(row.get("moe_tp") or 1), int(row.get("moe_ep") or 1)
    pipeline = int(row.get("pp") or 1)
    if expert_tensor == expert_ways > 1 and tensor * data == expert_tensor * expert_ways:
        cards = expert_tensor
    elif tensor == data > 1:
        cards = tensor
    else:
        cards = max(tensor * data, expert_tensor * expert_ways)
    if data > 1:
        return Layout(data=cards, pipeline=pipeline), False
    if cards > LARGEST_TENSOR:
        return Layout(data=cards, pipeline=pipeline), True
    return Layout(tensor=cards, pipeline=pipeline), False


def _experimental_layout(row: Mapping[str, Any]) -> tuple[Layout, bool]:
    """InferenceX's experimental folder: eight H200 (its plots say so), `dep8` attends in eight groups.

    Its client sends prompts and asks for answers of equal lengths; only GLM-5's server guesses tokens ahead
    (`--speculative-config.method mtp`), so that there the requests soon run apart.
    """
    if "_dep8_" in str(row.get("source")):
        return Layout(data=8), False
    return Layout(tensor=8), False


def _deployment(model: Architecture, engine: str, where: Host, layout: Layout, stored: Stored) -> Deployment:
    held = rank_weights(
        model,
        groups_of(model),
        int(stored.dtype_bytes),
        stored.scheme,
        Cut(tensor=layout.tensor * layout.data, pipeline=layout.pipeline, stage=0),
    )
    free = where.memory_gib * GIB * CACHE_SHARE - held - OTHER_GIB * GIB
    each = token_bytes(model, stored.cache_bytes, layout.tensor)
    tokens = None if not each else max(free, GIB) / each * layout.data
    return Deployment(model=model, engine=engine, card=where.card, layout=layout, stored=stored, cache_tokens=tokens)


def _stored(model: Architecture, precision: str, engine: str) -> Stored:
    cache = 1.0 if engine == "tensorrt-llm" and precision in ("fp8", "fp4") else 2.0
    if precision in ("bf16", "fp16", "f16"):
        return Stored(cache_bytes=cache)
    wanted = next((method for word, method in _METHODS if word in precision), None)
    scheme = model.scheme
    if scheme is not None and (wanted is None or scheme.method.startswith(_ALIKE.get(wanted, wanted))):
        return Stored(scheme=scheme, cache_bytes=cache)
    if scheme is not None and scheme.method in ("mxfp4", "int4", "int4_g32"):
        return Stored(scheme=scheme, cache_bytes=cache)
    return Stored(scheme=None if wanted is None else Scheme(method=wanted), cache_bytes=cache)


_METHODS = (("int4", "int4"), ("awq", "int4"), ("gptq", "int4"), ("mxfp4", "mxfp4"), ("fp4", "nvfp4"), ("fp8", "fp8"))
_ALIKE = {"nvfp4": "nvfp4", "fp8": "fp8", "int4": "int4"}


def _gguf_bytes(name: str, row: Mapping[str, Any], model: Architecture) -> float:
    size = re.match(r"([\d.]+)\s*GiB", str(row.get("model_size") or ""))
    if size is not None:
        return float(size.group(1)) * GIB / parameters(g for g in groups_of(model) if g.part is not Part.VISION)
    found = next((bits for kind, bits in _GGUF_BITS.items() if kind in name.upper()), None)
    if found is None:
        raise NotAttempted(f"how {name!r} is stored is not known")
    return found / 8


_GGUF_BITS = {
    "Q4_K_M": 4.85,
    "Q5_K_M": 5.7,
    "Q6_K": 6.56,
    "Q8_0": 8.5,
    "Q4_0": 4.5,
    "MXFP4": 4.25,
    "F16": 16,
    "BF16": 16,
}
"""Bits of one weight, scales counted in; Q4_K_M as in Llama-3's files (4.92 GB for 8.03 B)."""


def _engine(row: Mapping[str, Any]) -> str:
    said = str(row.get("engine") or "").casefold()
    for word, engine in (
        ("sglang", "sglang"),
        ("trt", "tensorrt-llm"),
        ("tensorrt", "tensorrt-llm"),
        ("nim", "tensorrt-llm"),
        ("vllm", "vllm"),
        ("llama.cpp", "llama.cpp"),
        ("transformers", "transformers"),
    ):
        if word in said:
            return engine
    raise NotAttempted(f"engine not known: {said}")


def _host(name: str) -> Host:
    found = host(name)
    if found is None:
        raise NotAttempted(f"card not known: {name}")
    return found


def _plain(name: str) -> str:
    bare = name.rsplit("/", 1)[-1].casefold().replace("_", "-").replace(" ", "-")
    bare = re.sub(r"-(f16|bf16|q\d[-\w]*|mxfp4-moe|mxfp4|gguf.*)$", "", bare)
    return re.sub(r"^meta-", "", bare)


_SUFFIX = r"(-(fp8|nvfp4|fp4|instruct|it|hf|chat|base|awq|gptq|int4|gptq-int4|a\d+b-instruct-fp8))+$"
_MORE_NAMES = ("instruct", "it", "17b-16e-instruct", "17b-128e-instruct", "instruct-2507", "hf", "v0.1")
_ALIASES = {
    "llama-3-8b": "llama-3.1-8b",
    "llama-3-70b": "llama-3.1-70b",
    "llama-3.3-70b": "llama-3.3-70b-instruct",
    "llama2-70b-99": "llama-2-70b-hf",
    "llama2-70b": "llama-2-70b-hf",
    "deepseek-r1-0528": "deepseek-r1",
    "deepseek-v3-0324": "deepseek-v3",
    "deepseek-r1-nvfp4": "deepseek-v3.1-nvfp4",
    "deepseek-v3-nvfp4": "deepseek-v3.1-nvfp4",
    "deepseek-r1-fp8": "deepseek-r1",
    "deepseek-v3-fp8": "deepseek-v3",
    "kimi-k2-thinking": "kimi-k2-instruct",
    "kimi-k2": "kimi-k2-instruct",
    "qwen3.5-397b": "qwen3.5-397b-a17b",
    "gpt-oss-120b-nvfp4": "gpt-oss-120b",
    "gpt-oss-20b-nvfp4": "gpt-oss-20b",
    "qwen3moe-30b.a3b": "qwen3-30b-a3b",
    "qwen2-7b": "qwen2.5-7b-instruct",
    "gemma3-4b": "gemma-3-4b-it",
    "qwen3-30b-a3b-instruct-2507": "qwen3-30b-a3b",
    "qwen3-235b-a22b-instruct-2507": "qwen3-235b-a22b",
    "mistral-7b": "mistral-7b-instruct-v0.3",
    "mixtral-8x7b": "mixtral-8x7b-v0.1",
    "llama-7b": "llama-2-7b-hf",
    "llama-2-7b": "llama-2-7b-hf",
}
_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    # GLM-4.7-Flash, which llama.cpp calls by its architecture; transformers' configuration, quoted in vime's scripts
    "deepseek2-30b.a3b": {
        "model_type": "deepseek_v3",
        "hidden_size": 2048,
        "num_hidden_layers": 47,
        "num_attention_heads": 20,
        "num_key_value_heads": 20,
        "intermediate_size": 10240,
        "moe_intermediate_size": 1536,
        "n_routed_experts": 64,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "q_lora_rank": 768,
        "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "vocab_size": 154880,
        "max_position_embeddings": 202752,
    },
}
_READERS = {
    "serving_agg": _serving,
    "single_stream": _single,
    "llama.cpp_bench": _bench,
    "llama-bench": _bench,
    "offline_throughput": _offline,
}
