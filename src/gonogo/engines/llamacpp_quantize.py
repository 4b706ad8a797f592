"""Which GGML type llama.cpp's quantizer gives a tensor, and what that takes. Pure.

Read in `llama-quant.cpp` of build 11434 (no importance matrix, no overrides). Files that somebody made with other
settings differ: what the file's own table of tensors says goes before this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

BLOCKS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "MXFP4": (32, 17),
    "IQ4_NL": (32, 18),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "IQ1_S": (256, 50),
    "IQ1_M": (256, 56),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ2_S": (256, 82),
    "IQ3_XXS": (256, 98),
    "IQ3_S": (256, 110),
    "IQ4_XS": (256, 136),
}
"""Elements and bytes of one block of each type."""

MIXTURES: Mapping[str, str] = {
    **{name: name for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "IQ4_XS")},
    **{name: name for name in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ3_S", "Q6_K")},
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
    "IQ3_XS": "IQ3_S",
    "IQ3_M": "IQ3_S",
    "Q2_K": "Q2_K",
    "Q2_K_S": "Q2_K",
    "Q3_K_S": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "MXFP4": "MXFP4",
}
"""What a file is called by, and the type of most of its tensors."""

_SMALLER_BLOCKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_NEVER = ("_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d", "shortconv.conv.weight")
_TINY = frozenset({"IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ1_S", "IQ1_M"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A quantization of one model. `name` as in a file's name (`Q4_K_M`); `grouped`: query heads per key head."""

    name: str
    layers: int
    grouped: int
    experts: int
    tied: bool
    large: bool
    """One of the 80-layer models that llama.cpp calls 70B."""

    @property
    def default(self) -> str:
        return MIXTURES[self.name]


def tensor_bytes(shape: tuple[int, ...], kind: str) -> int:
    """Bytes of a tensor of this GGML type. Raises KeyError for a type that is not known."""
    elements, size = BLOCKS[kind]
    count = 1
    for extent in shape:
        count *= extent
    return count // elements * size


def tensor_kind(mixture: Mixture, name: str, shape: tuple[int, ...]) -> str:
    """The GGML type of this tensor. Raises KeyError for a mixture that is not known."""
    extents = [extent for extent in shape if extent > 1]
    if len(extents) < 2 or not name.endswith("weight") or any(part in name for part in _NEVER):
        return "F32"
    wanted = mixture.default
    if BLOCKS[wanted][0] == 1:
        return wanted
    wanted = _wanted(mixture, name, shape)
    if shape[0] % BLOCKS[wanted][0]:
        wanted = _SMALLER_BLOCKS.get(wanted, wanted)
    return "F16" if shape[0] % BLOCKS[wanted][0] else wanted


def _wanted(mixture: Mixture, name: str, shape: tuple[int, ...]) -> str:
    embedding = name in ("token_embd.weight", "per_layer_token_embd.weight")
    if name == "output.weight" or (mixture.tied and embedding):
        return _output(mixture, shape)
    if mixture.name == "MXFP4":
        return "MXFP4" if len(shape) > 2 and shape[2] > 1 else "Q8_0"
    if embedding:
        return _EMBEDDINGS.get(mixture.name, mixture.default)
    layer = _layer(name)
    if mixture.name in _TINY:
        return _tiny(mixture, name, layer)
    if any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight")):
        return _values(mixture, layer)
    if "attn_k.weight" in name and mixture.experts == 8:
        return "Q8_0"
    if "attn_k.weight" in name or "attn_q.weight" in name:
        return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(mixture.name, mixture.default)
    if "ffn_down" in name:
        return _down(mixture, layer)
    if "attn_output.weight" in name:
        return _outputs_of_heads(mixture)
    middle = mixture.layers // 8 <= layer < 7 * mixture.layers // 8
    if mixture.name == "IQ3_XS" and ("ffn_up" in name or "ffn_gate" in name) and middle:
        return "IQ3_XXS"
    return mixture.default


def _output(mixture: Mixture, shape: tuple[int, ...]) -> str:
    if mixture.name == "MXFP4" or shape[0] % BLOCKS[mixture.default][0] or mixture.default == "Q8_0":
        return "Q8_0"
    return "Q5_K" if mixture.name in _TINY | {"IQ3_XXS"} else "Q6_K"


def _layer(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" and parts[1].isdigit() else 0


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _tiny(mixture: Mixture, name: str, layer: int) -> str:
    better = "IQ3_S" if mixture.name in ("IQ2_S", "IQ2_M") else "Q2_K"
    if any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight")):
        return "Q4_K" if mixture.grouped >= 4 or mixture.experts >= 4 else better
    if mixture.experts == 8 and "attn_k.weight" in name:
        return "Q4_K"
    if "ffn_down" in name:
        return better if layer < mixture.layers // 8 else mixture.default
    if "attn_output.weight" in name:
        if mixture.experts == 8:
            return "Q5_K"
        if mixture.name in ("IQ1_S", "IQ1_M"):
            return "IQ2_XXS"
        return "IQ3_S" if mixture.name in ("IQ2_S", "IQ2_M") else mixture.default
    return mixture.default


def _values(mixture: Mixture, layer: int) -> str:
    name, wanted, many = mixture.name, mixture.default, mixture.grouped >= 4
    if name == "Q2_K":
        wanted = "Q4_K" if many else "Q3_K"
    elif name in ("Q2_K_S", "IQ3_XS", "IQ3_S") and many:
        wanted = "Q4_K"
    elif name == "IQ3_XXS":
        wanted = "Q4_K" if many else "IQ3_S"
    elif name == "IQ3_M":
        wanted = "Q4_K"
    elif name == "Q3_K_M":
        wanted = "Q5_K" if layer < 2 else "Q4_K"
    elif name == "Q3_K_L" or (name in ("IQ4_NL", "IQ4_XS") and many):
        wanted = "Q5_K"
    elif name in ("Q4_K_M", "Q5_K_M") and _more_bits(layer, mixture.layers):
        wanted = "Q6_K"
    elif name == "Q4_K_S" and layer < 4:
        wanted = "Q5_K"
    if mixture.large and wanted in ("Q3_K", "Q4_K"):
        wanted = "Q5_K"
    return "Q8_0" if mixture.experts == 8 else wanted


def _down(mixture: Mixture, layer: int) -> str:
    name, first = mixture.name, layer < mixture.layers // 8
    more = _more_bits(layer, mixture.layers)
    if name in ("Q4_K_M", "Q5_K_M") and more:
        return "Q6_K"
    if name == "Q3_K_M":
        return "Q5_K" if layer < mixture.layers // 16 else "Q4_K"
    if name == "IQ3_XXS":
        return "Q4_K" if first else "Q3_K"
    if name == "IQ3_M" and (first or (mixture.experts == 8 and more)):
        return "Q4_K"
    if first and name in ("Q2_K_S", "IQ4_NL", "IQ4_XS", "Q4_K_S"):
        return "Q4_K" if name == "Q2_K_S" else "Q5_K"
    return {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K"}.get(name, mixture.default)


def _outputs_of_heads(mixture: Mixture) -> str:
    if mixture.experts == 8:
        return "Q5_K" if mixture.name in _EIGHT_EXPERTS else mixture.default
    found = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
    return found.get(mixture.name, mixture.default)


_EMBEDDINGS = {
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"), "Q2_K"),
    **dict.fromkeys(("IQ2_S", "IQ2_M", "IQ3_XXS"), "IQ3_S"),
}
_EIGHT_EXPERTS = frozenset(
    ["Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS"]
)
