"""The pictures that probes send: right PNG, one red square where it is said to be, screenshot size if asked."""

from __future__ import annotations

import pytest

from gonogo.checks.screens import OTHERS, RED, draw
from gonogo.spec.recipe import load_recipes
from gonogo.spec.recipe_probes import Grounding, LargestImage, Picture
from gonogo.spec.recipes import texts
from tests.shell.png import Pixels

GROUNDING = [
    (picture, f"{probe.name}/{place}")
    for recipe in load_recipes(texts()).values()
    for probe in recipe.probes
    if isinstance(probe, Grounding)
    for place, picture in enumerate(probe.pictures)
]
SHAPES = [*GROUNDING, *((Picture(width=w, height=h), "any") for w, h in ((640, 480), (720, 1600), (3840, 2160)))]


@pytest.mark.parametrize(("picture", "name"), SHAPES, ids=str)
def test_the_square_is_where_it_is_said_to_be_and_other_shapes_stand_beside_it(picture: Picture, name: str) -> None:
    screen = draw(picture, name)
    pixels = Pixels.of(screen.png)
    assert (pixels.width, pixels.height) == (picture.width, picture.height)
    assert pixels.middle_of(RED) == (screen.x, screen.y)
    middles = [pixels.middle_of(colour) for colour in OTHERS]
    for x, y in middles:
        beside = max(abs(x - screen.x) / picture.width, abs(y - screen.y) / picture.height)
        assert beside > 0.05, "who taps another shape is not within any threshold that makes sense"


def test_equal_arguments_give_equal_bytes_and_screens_of_a_probe_have_their_squares_at_different_places() -> None:
    picture = Picture(width=1080, height=2400)
    assert draw(picture, "a/0").png == draw(picture, "a/0").png
    places = {(draw(picture, f"a/{place}").x, draw(picture, f"a/{place}").y) for place in range(8)}
    assert len(places) == 8


def test_the_largest_image_of_each_recipe_is_as_many_bytes_as_a_real_screenshot() -> None:
    for recipe in load_recipes(texts()).values():
        for probe in recipe.probes:
            if isinstance(probe, LargestImage):
                screen = draw(probe.picture, probe.name, as_large_as_real=True)
                assert 1_200_000 < len(screen.data_url) < 1_500_000, recipe.name
                assert Pixels.of(screen.png).middle_of(RED) == (screen.x, screen.y), "the noise covers nothing"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 7), (10_000, 3), (3, 10_000)])
def test_the_oddest_sizes_that_a_spec_may_ask_for_are_still_pictures(width: int, height: int) -> None:
    for as_large_as_real in (False, True):
        screen = draw(Picture(width=width, height=height), "odd", as_large_as_real=as_large_as_real)
        pixels = Pixels.of(screen.png)
        assert (pixels.width, pixels.height) == (width, height)
        assert (0 <= screen.x <= width, 0 <= screen.y <= height) == (True, True)
