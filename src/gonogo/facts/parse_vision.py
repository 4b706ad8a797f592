"""Reads the image encoder's part of a `config.json`: how many parameters, and how large an image can get. Pure.

Encoder blocks have four square matrices of attention and two or three of the feed-forward; what stands around them
(patch embedding, positions, merger or projector) differs by family. Sources: modelling classes of transformers 4.57.1
and vLLM 0.19.0; checked against the parameter counts in `facts/autoglm.md` §5 (GLM-4.1V: 0.892 B).
"""

from __future__ import annotations

from typing import Any, Mapping

from gonogo.facts.architecture import Vision
from gonogo.facts.numbers import Numbers

PIXEL_BYTES, COLOURS = 2, 3
_LARGEST_PIXELS = {
    "qwen2_vl": 12_845_056,
    "qwen2_5_vl": 12_845_056,
    "qwen3_vl": 16_777_216,
    "glm4v": 11_760_000,
}
"""Pixels of the largest image that the family's processor lets through: its default `max_pixels`."""
GATED = ("qwen2_5_vl", "glm4v", "mistral3", "gemma4")
_TILED = 5
"""Tiles of one image in LLaVA-NeXT: four and the whole."""


def parse_vision(config: Mapping[str, Any], hidden: int) -> Vision | None:
    """The encoder, None where the configuration has none. `hidden`: of the language model. Raises ConfigError."""
    section = config.get("vision_config")
    if not isinstance(section, Mapping):
        return None
    numbers, family = Numbers(section), str(config.get("model_type"))
    layers = numbers.maybe("depth", "num_hidden_layers", "vt_num_hidden_layers")
    width = numbers.maybe("hidden_size", "vt_hidden_size")
    if layers is None or width is None:
        return None
    patch, merge = numbers.maybe("patch_size") or 14, numbers.maybe("spatial_merge_size") or _merge(numbers, family)
    parameters = _blocks(numbers, family, layers, width) + _around(numbers, family, width, hidden, patch, merge)
    per_token = (patch * merge) ** 2
    tokens, pixels = _largest_image(numbers, family, per_token)
    frames = numbers.maybe("temporal_patch_size") or 1
    return Vision(
        parameters=parameters,
        layers=layers,
        hidden=width,
        pixels_per_token=per_token,
        tokens_per_image=tokens,
        pixel_bytes_per_image=pixels * COLOURS * frames * PIXEL_BYTES,
        columns=_columns(numbers, family, width),
        patch_pixels=patch * patch,
    )


def _columns(numbers: Numbers, family: str, width: int) -> int:
    """Elements per patch where a block is widest: the feed-forward, five vectors, three more where positions rotate.

    Held against two logs: Qwen2.5-VL-7B prints an encoder's peak of 2.71 GiB, gemma-3's stay below its sampler's.
    """
    inner = _inner(numbers, family, width)
    rotated = 3 * width if numbers.maybe("image_size") is None or family == "glm4v" else 0
    return (3 if family in GATED else 2) * inner + 5 * width + rotated


def _merge(numbers: Numbers, family: str) -> int:
    kernel = numbers.items("merge_kernel_size")
    if kernel:
        return Numbers({"merge_kernel_size": kernel[0]}).count("merge_kernel_size")
    return 2 if family in ("mistral3", "qwen2_vl", "qwen2_5_vl") else 1


def _blocks(numbers: Numbers, family: str, layers: int, width: int) -> int:
    matrices = 3 if family in GATED else 2
    return layers * (4 * width * width + matrices * width * _inner(numbers, family, width) + 2 * width)


def _inner(numbers: Numbers, family: str, width: int) -> int:
    """Columns of a block's feed-forward. GLM-4V's blocks use the output's width, not `intermediate_size`."""
    inner = numbers.maybe("intermediate_size", "vt_intermediate_size") or 4 * width
    return (numbers.maybe("out_hidden_size") or inner) if family == "glm4v" else inner


def _around(numbers: Numbers, family: str, width: int, hidden: int, patch: int, merge: int) -> int:
    frames = numbers.maybe("temporal_patch_size") or 1
    out = numbers.maybe("out_hidden_size") or hidden
    embedding = COLOURS * frames * patch * patch * width
    positions = (numbers.maybe("num_position_embeddings") or 0) * width
    size = numbers.maybe("image_size")
    if not positions and size is not None and family not in ("mistral3", "qwen2_5_vl"):
        positions = (size // patch) ** 2 * width
    wide = merge * merge * width
    if family == "glm4v":
        inner = numbers.maybe("intermediate_size") or 4 * out
        merger = wide * out + out * out + 3 * out * inner
    elif family.startswith("qwen"):
        deep = len(numbers.items("deepstack_visual_indexes") or ())
        merger = (1 + deep) * (wide * wide + wide * out)
    elif family == "mistral3":
        merger = wide * width + width * hidden + hidden * hidden
    elif family == "llava_next":
        merger = width * hidden + hidden * hidden
    elif family.startswith("gemma"):
        merger = width * hidden
    else:
        merger = wide * wide + wide * hidden
    return embedding + positions + merger


def _largest_image(numbers: Numbers, family: str, per_token: int) -> tuple[int, int]:
    """Tokens and pixels of the largest single image."""
    for name, pixels in _LARGEST_PIXELS.items():
        if family.startswith(name):
            return pixels // per_token, pixels
    size = numbers.maybe("image_size") or 1024
    pixels = size * size
    if family.startswith("gemma3"):
        return 256, pixels
    if family.startswith("gemma4"):
        return 280, 280 * 9 * per_token
    if family == "llava_next":
        return _TILED * pixels // per_token + 24, _TILED * pixels
    return pixels // per_token, pixels
