"""Vision tokens: the table of phone screens exactly, and what must hold for every image."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gonogo.spec.vision_tokens import (
    FAMILIES,
    GLM4V,
    MOST_ASPECT,
    QWEN2_VL,
    ImageFamily,
    image_tokens,
    most_tokens,
    resized,
)

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases/vision_tokens/glm4v.yaml").read_text(encoding="utf-8"))
SIDES = st.integers(min_value=1, max_value=20_000)
FAMILY = st.sampled_from(list(FAMILIES.values()))
# Just above min_pixels rounding up may pass the bound, in the engines too; nobody sets it there.
BOUND = st.one_of(st.none(), st.integers(min_value=4 * GLM4V.min_pixels, max_value=30_000_000))


def is_sliver(height: int, width: int) -> bool:
    return max(height, width) > MOST_ASPECT * min(height, width)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['screen']}-{case['max_pixels']}")
def test_a_phone_screen_becomes_exactly_so_many_tokens(case: dict[str, str]) -> None:
    width, height = map(int, case["screen"].split("x"))
    bound = None if case["max_pixels"] == "none" else int(case["max_pixels"])
    tall, wide = resized(height, width, GLM4V, bound)
    assert f"{tall}x{wide}" == case["resized"]
    assert image_tokens(height, width, GLM4V, bound) == case["tokens"]


@given(SIDES, SIDES, FAMILY, BOUND)
def test_both_sides_are_whole_tokens_and_the_bound_holds(
    height: int, width: int, family: ImageFamily, bound: int | None
) -> None:
    if is_sliver(height, width):
        return
    tall, wide = resized(height, width, family, bound)
    assert tall % family.factor == 0 and wide % family.factor == 0
    assert tall >= family.factor and wide >= family.factor
    most = family.max_pixels if bound is None else bound
    one_token_wide = min(tall, wide) == family.factor
    assert family.frames * tall * wide <= most or one_token_wide
    assert image_tokens(height, width, family, bound) <= most_tokens(family, bound) or one_token_wide


@given(SIDES, SIDES, FAMILY)
def test_turning_the_image_turns_the_result(height: int, width: int, family: ImageFamily) -> None:
    if not is_sliver(height, width):
        assert resized(height, width, family) == resized(width, height, family)[::-1]


@given(SIDES, SIDES, FAMILY)
def test_resizing_twice_with_room_to_spare_is_resizing_once(height: int, width: int, family: ImageFamily) -> None:
    if is_sliver(height, width):
        return
    once = resized(height, width, family)
    if not is_sliver(*once) and min(once) > family.factor:
        assert resized(*once, family) == once


@given(SIDES, SIDES, FAMILY, st.integers(min_value=200_000, max_value=10_000_000))
def test_a_larger_bound_never_gives_fewer_tokens(height: int, width: int, family: ImageFamily, bound: int) -> None:
    if not is_sliver(height, width):
        assert image_tokens(height, width, family, bound) <= image_tokens(height, width, family, 2 * bound)


@given(st.integers(min_value=28, max_value=300), st.integers(min_value=28, max_value=300), FAMILY)
def test_a_small_image_is_enlarged_to_the_least_area(height: int, width: int, family: ImageFamily) -> None:
    tall, wide = resized(height, width, family)
    assert family.frames * tall * wide >= family.min_pixels


def test_what_has_no_area_is_too_thin_or_leaves_no_room_is_refused_with_numbers() -> None:
    with pytest.raises(ValueError, match="0 × 100"):
        image_tokens(0, 100, GLM4V)
    with pytest.raises(ValueError, match="100 × -1"):
        image_tokens(100, -1, QWEN2_VL)
    with pytest.raises(ValueError, match="more than 200 times"):
        image_tokens(28, 28 * 201, GLM4V)
    with pytest.raises(ValueError, match="max_pixels 12543 is below the family's own min_pixels 12544"):
        image_tokens(100, 100, GLM4V, 12_543)


def test_a_single_image_of_glm4v_counts_twice_against_its_bound_and_one_of_qwen2_vl_once() -> None:
    assert most_tokens(GLM4V, 5_000_000) == 3188
    assert most_tokens(QWEN2_VL, 5_000_000) == 6377
