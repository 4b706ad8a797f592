"""How weights are stored: the schemes that checkpoints use, and how to read one from `quantization_config`. Pure.

Bytes per weight with all scales counted in: block FP8 has one float32 per 128 × 128, INT4 a 2-byte scale and half a
byte of zero point per group, MXFP4 one byte per 32, NVFP4 one byte per 16 (OCP Microscaling 1.0; the formats' own
configurations), bitsandbytes a float32 per 64 or, doubly quantized, a byte and a bit.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from gonogo.facts.architecture import Scheme
from gonogo.facts.numbers import ConfigError, shown

QUANTIZED_PARTS = ("attention", "latent", "dense", "expert", "shared_expert", "recurrent", "vision")
_SAMPLES = {
    "attention": ("self_attn.q_proj", "self_attn.o_proj", "self_attn"),
    "latent": ("self_attn.q_a_proj", "self_attn.kv_b_proj", "self_attn"),
    "dense": ("mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"),
    "expert": ("mlp.experts.7.gate_proj", "mlp.experts", "mixer.experts.7.up_proj"),
    "shared_expert": ("mlp.shared_experts.gate_proj", "mlp.shared_experts", "mlp.shared_expert.gate_proj"),
    "recurrent": ("linear_attn.in_proj_qkvz", "linear_attn.in_proj_qkv", "mixer.in_proj", "linear_attn"),
}
"""Module names inside a block, by part: when a checkpoint's list of exceptions names one, the part is left as it is."""


LONGEST_PATTERN, MOST_REPEATS = 256, 5
_REPEATS, _NESTED = re.compile(r"[*+{]"), re.compile(r"\)[*+{]|\\[1-9]")
"""A stranger's pattern runs only when it surely ends: no repeated groups, few repeats."""
_EXCEPTIONS = ("ignore", "modules_to_not_convert", "exclude_modules", "llm_int8_skip_modules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A way to store weights: bytes of one, scales included; `bits` is its name's number, for people."""

    bytes_per_weight: float
    bits: int


SCHEMES: Mapping[str, Stored] = {
    "fp8": Stored(bytes_per_weight=1.0, bits=8),
    "fp8_block": Stored(bytes_per_weight=1.0 + 4 / 128**2, bits=8),
    "int8": Stored(bytes_per_weight=1.0, bits=8),
    "int4": Stored(bytes_per_weight=0.5 + 2.5 / 128, bits=4),
    "int4_g32": Stored(bytes_per_weight=0.5 + 2 / 32, bits=4),
    "mxfp4": Stored(bytes_per_weight=0.5 + 1 / 32, bits=4),
    "nvfp4": Stored(bytes_per_weight=0.5 + 1 / 16, bits=4),
    "bnb4": Stored(bytes_per_weight=0.5 + 1 / 64 + 4 / 16384, bits=4),
    "bnb4_plain": Stored(bytes_per_weight=0.5 + 4 / 64, bits=4),
}


def parse_scheme(config: Mapping[str, Any], inner: Mapping[str, Any]) -> Scheme | None:
    """The scheme that a configuration names; None: weights are as `torch_dtype` says.

    Raises ConfigError for a way of storing weights that is not known here: 16 bit would be a guess.
    """
    found = config.get("quantization_config") or inner.get("quantization_config")
    if not isinstance(found, Mapping):
        return None
    method = _method(found)
    if method is None:
        return None
    listed = [found.get(name) for name in _EXCEPTIONS]
    patterns = [str(one) for names in listed if isinstance(names, list) for one in names]
    skipped = {part for part in _SAMPLES if _excepted(part, patterns)} | {"vision"}
    if found.get("moe_quant_algo"):
        skipped -= {"expert"}
    if method == "mxfp4" and found.get("quant_method") == "mxfp4":
        skipped |= {"attention", "dense", "shared_expert"}
    return Scheme(method=method, skipped=frozenset(skipped))


def _method(found: Mapping[str, Any]) -> str | None:
    """The name in SCHEMES for what the configuration calls its method, algorithm or format."""
    algorithm = str(found.get("quant_algo") or found.get("moe_quant_algo") or "").upper()
    method = str(found.get("quant_method") or "").lower()
    if found.get("moe_quant_algo"):
        algorithm = str(found["moe_quant_algo"]).upper()
    if algorithm in ("NVFP4", "MIXED_PRECISION", "W4A16_NVFP4"):
        return "nvfp4"
    if algorithm.startswith("FP8") or method in ("fp8", "fbgemm_fp8"):
        return "fp8_block" if found.get("weight_block_size") else "fp8"
    if method == "mxfp4":
        return "mxfp4"
    if method in ("gptq", "awq", "gptq_marlin", "awq_marlin"):
        bits = found.get("bits", found.get("w_bit", 4))
        if bits not in (4, 8):
            raise _unknown(f"{method} of {shown(bits)} bits")
        return f"int{bits}"
    if method == "bitsandbytes":
        if not found.get("load_in_4bit", found.get("_load_in_4bit")):
            return "int8"
        return "bnb4" if found.get("bnb_4bit_use_double_quant") else "bnb4_plain"
    if method == "compressed-tensors":
        return _compressed(found)
    if algorithm or method not in ("", "modelopt", "modelopt_fp4"):
        raise _unknown(shown(f"{method} {algorithm}".strip()))
    return None


def _unknown(what: str) -> ConfigError:
    return ConfigError("unknown_quantization", f"a way of storing weights that is not known here: {what}")


def _compressed(found: Mapping[str, Any]) -> str | None:
    groups = found.get("config_groups")
    first: Any = next(iter(groups.values()), {}) if isinstance(groups, Mapping) else {}
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(weights, Mapping):
        return None
    bits, kind, group = weights.get("num_bits"), weights.get("type"), weights.get("group_size")
    if "mxfp4" in str(found.get("format")):
        return "mxfp4"
    if bits == 4 and kind == "float":
        return "nvfp4"
    if bits == 4:
        return "int4_g32" if group == 32 else "int4"
    if bits == 8:
        block = weights.get("strategy") == "block"
        return "int8" if kind == "int" else "fp8_block" if block else "fp8"
    raise _unknown(f"compressed-tensors of {shown(bits)} bits")


def _excepted(part: str, patterns: Sequence[str]) -> bool:
    """Whether a list of exceptions names this part in all of some middle layer's modules."""
    for sample in _SAMPLES[part]:
        name = f"model.layers.20.{sample}"
        if any(_matches(name, pattern) for pattern in patterns):
            return True
    return False


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("re:"):
        if len(pattern) > LONGEST_PATTERN or len(_REPEATS.findall(pattern)) > MOST_REPEATS or _NESTED.search(pattern):
            raise ConfigError("config_contradicts", f"a pattern of exceptions that may never end: {shown(pattern)}")
        try:
            return re.match(pattern[3:], name) is not None
        except re.error:
            return False
    bare = pattern.replace("model.language_model.", "model.").replace("language_model.model.", "model.")
    if "*" in bare or "?" in bare:
        return fnmatch.fnmatchcase(name, bare) or fnmatch.fnmatchcase(name, f"{bare}*")
    return name == bare or name.startswith(f"{bare}.") or name.endswith(f".{bare}")
