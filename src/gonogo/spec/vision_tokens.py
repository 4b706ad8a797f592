"""How many tokens an image becomes for vision models of the Qwen2-VL and GLM-4V family: resize, patches, merge.

Such a model sees an image at its own aspect ratio: both sides are rounded to whole patches, the area is kept between
two bounds, and neighbouring patches are merged into one token. Pure arithmetic; nothing here looks at an image.
Not here: what a token costs in memory, and how many images a request may have (`recipe_parts.ImageBudget`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MOST_ASPECT = 200
"""An image whose long side is more than so many times its short side is refused by the processors themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFamily:
    """How one family counts. `patch` and the bounds are in pixels; `frames` is what a single image counts as.

    The bounds are held against frames × height × width. GLM-4V doubles a single image (`frames` 2), so its bound is
    twice the area; Qwen2-VL counts the area itself (`frames` 1). `enlarges`: whether an image with a side shorter than
    one token is enlarged as a whole before anything else is asked.
    """

    patch: int = 14
    merge: int = 2
    frames: int
    enlarges: bool
    min_pixels: int
    max_pixels: int

    @property
    def factor(self) -> int:
        """Both sides become multiples of this: one token covers factor × factor pixels."""
        return self.patch * self.merge


GLM4V = ImageFamily(frames=2, enlarges=True, min_pixels=112 * 112, max_pixels=28 * 28 * 15_000)
"""transformers `glm4v/image_processing_glm4v.py` (class defaults, seen at 052f526c and in 5.23.0)."""

QWEN2_VL = ImageFamily(frames=1, enlarges=False, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
"""transformers `qwen2_vl/image_processing_qwen2_vl.py` (class defaults, seen at 009f6376; no side below one token)."""

FAMILIES: Mapping[str, ImageFamily] = MappingProxyType({"glm4v": GLM4V, "qwen2_vl": QWEN2_VL})
"""The families by the name that a recipe gives."""


def resized(height: int, width: int, family: ImageFamily, max_pixels: int | None = None) -> tuple[int, int]:
    """Height and width in pixels after the model's own resize; `max_pixels` replaces the family's bound.

    Raises ValueError for a side below 1, an aspect ratio above 200, and a bound below the family's `min_pixels`.
    """
    factor, frames = family.factor, family.frames
    most = family.max_pixels if max_pixels is None else max_pixels
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height} × {width} pixels has no area; both sides must be 1 or more")
    if most < family.min_pixels:
        raise ValueError(f"max_pixels {most} is below the family's own min_pixels {family.min_pixels}")
    tall, wide = _enlarged(height, width, factor) if family.enlarges else (height, width)
    if max(tall, wide) > MOST_ASPECT * min(tall, wide):
        raise ValueError(f"an image of {height} × {width} pixels is more than {MOST_ASPECT} times as long as wide")
    rows, columns = round(tall / factor), round(wide / factor)
    if frames * rows * columns * factor * factor > most:
        shrink = math.sqrt(frames * tall * wide / most)
        rows = max(1, math.floor(tall / shrink / factor))
        columns = max(1, math.floor(wide / shrink / factor))
    elif frames * rows * columns * factor * factor < family.min_pixels:
        grow = math.sqrt(family.min_pixels / (frames * tall * wide))
        rows, columns = math.ceil(tall * grow / factor), math.ceil(wide * grow / factor)
    return rows * factor, columns * factor


def image_tokens(height: int, width: int, family: ImageFamily, max_pixels: int | None = None) -> int:
    """Tokens of one image of `height` × `width` pixels. Raises ValueError as `resized` does."""
    tall, wide = resized(height, width, family, max_pixels)
    return (tall // family.factor) * (wide // family.factor)


def most_tokens(family: ImageFamily, max_pixels: int | None = None) -> int:
    """No image becomes more tokens than this, slivers of one token's width excepted."""
    most = family.max_pixels if max_pixels is None else max_pixels
    return most // (family.frames * family.factor**2)


def _enlarged(height: int, width: int, factor: int) -> tuple[int, int]:
    """An image with a side shorter than one token, both sides enlarged by the same scale."""
    if height >= factor and width >= factor:
        return height, width
    scale = max(factor / height, factor / width)
    return int(height * scale), int(width * scale)
