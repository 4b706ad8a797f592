"""Rows of engine memory logs (the facts folder's `ground_truth.jsonl`) → what our plan says of each. It prints nothing.

A row is planned from its model's configuration, its flags and its card alone; what a row does not say is taken as the
engine would choose it, and where nothing can be taken the row is left out with the reason. An unknown engine version is
planned for one of each era: it "fits" when all do, and does not when none does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Iterable, Mapping, Sequence

from model_rows import architecture_of

from gonogo.engines.capacity import Capacity, Fit, Model, capacity_of
from gonogo.engines.hardware import card_limits, card_named
from gonogo.engines.planners import PLANNERS
from gonogo.engines.serving import Corrections, Device, Serving, Version
from gonogo.facts.architecture import Architecture, Scheme
from gonogo.facts.catalogue import known_model
from gonogo.facts.numbers import ConfigError
from gonogo.facts.parse_config import parse_config
from gonogo.facts.weights import groups_of

GIB = 1024**3
LLAMACPP = "llama.cpp"
"""It has its own evaluation: benchmarks/llamacpp_rows.py."""
ERAS: tuple[Version, ...] = ((0, 7, 3), (0, 16, 0), (0, 33, 0))
NEW_SINCE: Version = (0, 17)
ADAPTER_RANK = 64
"""Of rows that load LoRA without saying its rank: what their notebooks use most."""
SCHEMES = {
    "fp8": "fp8",
    "compressed-tensors": "fp8",
    "fp8/compressed-tensors": "fp8_block",
    "gptq_marlin": "int4",
    "awq": "int4",
    "awq_marlin": "int4",
    "bitsandbytes": "bnb4",
    "w8a8 int8": "int8",
}
CARDS = (("24GB class", "RTX 3090"), ("24GB", "RTX 3090"), ("80GB", "H100"), ("H800", "H800"), ("A40", "L40S"))
"""Cards that a row names by their size only: the card of that size whose engine settings are the usual ones."""
ALIASES = {
    "mistralai/Mistral-Small-3.2-24B-Instruct-2506": "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
    "Qwen/Qwen2.5-3B": "Qwen/Qwen2.5-3B-Instruct",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A term of one row: planned beside printed, in the row's own unit."""

    planned: float
    printed: float

    @property
    def error(self) -> float:
        """Relative, signed."""
        return self.planned / self.printed - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One row: its class, its numbers by name, whether it was said to fit, or why it was left out."""

    id: str
    engine: str
    era: str
    model: str
    model_class: str
    outcome: str
    numbers: Mapping[str, Numbers]
    fit: Fit | None = None
    judged: bool = False
    known_flags: bool = False
    thumb_error: float | None = None
    skipped: str | None = None

    @property
    def false_fit(self) -> bool:
        return self.judged and self.outcome == "failed" and self.fit in (Fit.FITS, Fit.TIGHT)

    @property
    def false_no(self) -> bool:
        return self.judged and self.outcome == "ok" and self.fit is Fit.DOES_NOT_FIT


def evaluate(rows: Iterable[Mapping[str, Any]], models: Mapping[str, Any], leave_out: bool = False) -> list[RowResult]:
    """Every row of a GPU engine that is planned here. `leave_out`: constants are refitted without the row's model."""
    ours = [row for row in rows if row.get("engine") != LLAMACPP]
    known = [row for row in ours if planner_name(row) is not None]
    return [
        _row(row, models, _without(known, row) if leave_out else Corrections())
        if planner_name(row) is not None
        else replace(_blank(row), skipped=f"no plan for the engine {row.get('engine')}")
        for row in ours
    ]


def planner_name(row: Mapping[str, Any]) -> str | None:
    """The planner of a row's engine; None: none (llama.cpp has its own evaluation, Ascend and forks none)."""
    name = str(row.get("engine"))
    return name if name in PLANNERS and name != LLAMACPP else None


def version_of(row: Mapping[str, Any]) -> Version | None:
    """The version that a row names, in numbers."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", str(row.get("engine_version") or ""))
    return tuple(int(part) for part in found.groups() if part is not None) if found else None


def architecture_for(row: Mapping[str, Any], models: Mapping[str, Any]) -> Architecture | None:
    """From our catalogue by the row's key or name, else from the table of models that was given."""
    for name in (row.get("model_config_key"), row.get("model"), ALIASES.get(str(row.get("model")))):
        known = known_model(str(name)) if name else None
        if known is not None:
            return parse_config(known.config)
    entry = models.get(str(row.get("model_config_key")))
    if entry is None:
        return None
    try:
        return architecture_of(entry)
    except ConfigError:
        return None


def device_for(row: Mapping[str, Any]) -> Device | None:
    """The row's card. Memory in all and what was free are the log's own: a plan has them from the host."""
    measured, named = row.get("measured") or {}, str(row.get("gpu") or "")
    card = next((card for text, card in CARDS if text in named), named)
    found = card_named(re.sub(r"NVIDIA|\(.*?\)|Force|PCIe (?=RTX)", " ", card).strip())
    total = measured.get("total_gpu_mem_gib")
    limits = card_limits(found) if found is not None else None
    if limits is None and total is None:
        return None
    free = re.search(r"\(([\d.]+)/[\d.]+ GiB\) on startup", str(row.get("failure") or ""))
    free_gib = float(free.group(1)) if free else None
    return Device(
        name=found.name if found is not None else named,
        total_bytes=round(float(total) * GIB) if total is not None else limits.usable_bytes if limits else 0,
        free_bytes=None if free_gib is None else round(free_gib * GIB),
        processors=limits.processors if limits is not None else 132,
        capability=limits.capability if limits is not None else (9, 0) if float(total or 0) > 70 else (8, 6),
    )


def serving_for(row: Mapping[str, Any], model: Architecture, version: Version, corrections: Corrections) -> Serving:
    """The row's flags; None where it does not say, so that the engine's own choice is planned."""
    scheme = SCHEMES.get(str(row.get("quantization")))
    if scheme == "bnb4" and not str(row.get("model")).startswith("unsloth/"):
        scheme = "bnb4_plain"  # the format's own default; unsloth's checkpoints quantize the scales once more
    cache = str(row.get("kv_cache_dtype") or "auto")
    flags = str(row.get("other_flags") or "")
    block = re.search(r"block-size[= ](\d+)", flags)
    return Serving(
        version=version,
        context_tokens=row.get("max_model_len") or model.context_tokens or 4096,
        share=row.get("gpu_memory_utilization") or row.get("mem_fraction_static"),
        sequences=row.get("max_num_seqs"),
        batch_tokens=row.get("max_num_batched_tokens"),
        tensor=row.get("tp") or 1,
        pipeline=row.get("pp") or 1,
        kv_bytes=1.0 if cache.startswith("fp8") else None,
        dtype_bytes=4 if row.get("dtype") == "float32" else None,
        scheme=Scheme(method=scheme, skipped=frozenset({"vision"})) if scheme and model.scheme is None else None,
        block_tokens=int(block.group(1)) if block else 16,
        graphs=not row.get("enforce_eager"),
        adapter_rank=ADAPTER_RANK if "LoRA" in flags else None,
        corrections=corrections,
    )


def _blank(row: Mapping[str, Any]) -> RowResult:
    engine = str(row.get("engine"))
    return RowResult(
        id=str(row.get("id")),
        engine=engine,
        era=_era(engine, version_of(row)),
        model=str(row.get("model_config_key") or row.get("model")),
        model_class="",
        outcome=str(row.get("outcome")),
        numbers={},
    )


def _row(row: Mapping[str, Any], models: Mapping[str, Any], corrections: Corrections) -> RowResult:
    version, blank = version_of(row), _blank(row)
    model, device = architecture_for(row, models), device_for(row)
    if model is None:
        return replace(blank, skipped="the model's configuration is not known")
    named = replace(blank, model_class=model_class(model))
    if device is None:
        return replace(named, skipped="the card is not known, nor its memory")
    if model.oddity is not None:
        return replace(named, skipped=f"not covered: {model.oddity}", fit=Fit.UNKNOWN)
    planned = Model(name=named.model, architecture=model, groups=groups_of(model), exact=False)
    planner = PLANNERS[str(row["engine"])]
    eras = (version,) if version is not None else ERAS if planner.name == "vllm" else (planner.newest,)
    seen = [capacity_of(planned, planner, device, serving_for(row, model, era, corrections)) for era in eras]
    return _judged(named, row, seen, version)


def _judged(named: RowResult, row: Mapping[str, Any], seen: Sequence[Capacity], version: Version | None) -> RowResult:
    measured, first = row.get("measured") or {}, seen[0]
    numbers: dict[str, Numbers] = {}
    memory = first.memory
    if memory is not None:
        rank = memory.ranks[0]
        printed = measured.get("weights_gib")
        if printed:
            adapters = rank.term("adapters") if row.get("other_flags") else 0
            numbers["weights"] = Numbers(planned=(rank.term("weights") + adapters) / GIB, printed=float(printed))
        if version is not None or named.engine != "vllm":
            numbers |= _cache_numbers(row, first)
    share = row.get("gpu_memory_utilization") or row.get("mem_fraction_static")
    fits = {one.fit for one in seen}
    fit = Fit.UNKNOWN if len(fits) > 1 and Fit.DOES_NOT_FIT in fits else seen[0].fit
    came_through = any(
        measured.get(name) for name in ("kv_tokens", "num_gpu_blocks", "kv_avail_gib", "max_concurrency")
    )
    judged = named.outcome == "failed" or (came_through and share is not None)
    return replace(
        named,
        numbers=numbers,
        fit=fit,
        judged=judged,
        known_flags=None not in (share, version, row.get("max_num_seqs")),
        thumb_error=_rule_of_thumb(row, first),
    )


def _cache_numbers(row: Mapping[str, Any], seen: Capacity) -> dict[str, Numbers]:
    measured, memory = row.get("measured") or {}, seen.memory
    found: dict[str, Numbers] = {}
    if memory is None:
        return found
    printed = measured.get("activation_peak_gib")
    if printed and seen.planner.name == "vllm" and seen.serving.pipeline == 1:
        found["activation"] = Numbers(planned=memory.ranks[0].term("activation") / GIB, printed=float(printed))
    if memory.pool is None or not (row.get("gpu_memory_utilization") or row.get("mem_fraction_static")):
        return found
    if measured.get("num_gpu_blocks") and memory.pool.blocks is not None:
        found["kv"] = Numbers(planned=memory.pool.blocks, printed=float(measured["num_gpu_blocks"]))
    elif measured.get("kv_tokens"):
        found["kv"] = Numbers(planned=memory.pool.tokens, printed=float(measured["kv_tokens"]))
    return found


def _rule_of_thumb(row: Mapping[str, Any], seen: Capacity) -> float | None:
    """The error in cache of the rule that others use: what the card's share leaves of weights × 1.2 + 2 GiB."""
    printed = (row.get("measured") or {}).get("kv_avail_gib")
    if not printed or seen.memory is None or float(printed) <= 0:
        return None
    weights = seen.memory.ranks[0].term("weights") / GIB
    left = seen.share * seen.device.total_bytes / GIB - (1.2 * weights + 2)
    return left / float(printed) - 1


def model_class(model: Architecture) -> str:
    """How people call it: dense, experts, latent, windows, hybrid, vision."""
    kinds = {attention.kind.value for attention in model.attentions}
    if model.vision is not None:
        return "vision"
    if "recurrent" in kinds:
        return "hybrid"
    if "latent" in kinds:
        return "latent"
    if model.experts is not None:
        return "experts"
    return "windows" if kinds - {"full"} else "dense"


def _era(engine: str, version: Version | None) -> str:
    if engine != "vllm":
        return "all"
    if version is None:
        return "unknown"
    return ">=0.17" if version >= NEW_SINCE else "<0.17"


def _without(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> Corrections:
    """Constants refitted without the row's model: memory outside torch, and what a forward pass holds."""
    others = [one for one in rows if one.get("model_config_key") != row.get("model_config_key")]
    alike = [one for one in others if _kind(one) == _kind(row)]
    seen = [one["measured"]["non_torch_gib"] for one in alike if (one.get("measured") or {}).get("non_torch_gib")]
    hidden = 0.0 if "CodeLlama-7b" in str(row.get("model_config_key")) else None
    return Corrections(
        non_torch_bytes=round(median(seen) * GIB) if len(seen) >= 3 else None,
        forward_hidden=hidden,
    )


def _kind(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Rows whose memory outside torch should be alike."""
    version = version_of(row)
    stage = None if version is None else version >= NEW_SINCE
    return (row.get("engine"), stage, (row.get("tp") or 1) > 1, (row.get("pp") or 1) > 1, "H100" in str(row.get("gpu")))
