"""Profiles: what files say, which versions lie in a range, and that those that come with gonogo are what they claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.spec.load import SpecMistakes, decode
from gonogo.spec.profile import Profile, VersionRange, load_profile, numbers
from gonogo.spec.profiles import DEFAULT, built_in, texts

CASES = Path(__file__).parents[1] / "cases" / "profile"
FILES = sorted(CASES.glob("*.yaml"))


def outcome(path: Path) -> dict[str, Any]:
    try:
        profile = load_profile(decode(path.read_bytes(), path.name), path.name)
    except SpecMistakes as error:
        return {"mistakes": [str(each) for each in error.mistakes]}
    return {"profile": profile.model_dump(mode="json", exclude_unset=True)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_gives_what_is_expected_of_it(path: Path, pytestconfig: pytest.Config) -> None:
    seen = outcome(path)
    expected = path.with_suffix(".expected.json")
    if pytestconfig.getoption("--accept"):
        expected.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert seen == json.loads(expected.read_text(encoding="utf-8"))


def test_only_files_that_say_so_are_right() -> None:
    assert {path.stem for path in FILES if "profile" in outcome(path)} == {
        path.stem for path in FILES if path.stem.startswith("right-")
    }


@pytest.mark.parametrize(
    ("wish", "version", "inside"),
    [
        ({"min": "535.154.02"}, "535.154.02", True),
        ({"min": "535.154.02"}, "535.154.05", True),
        ({"min": "535.154.02"}, "550.54.15", True),
        ({"min": "535.154.02"}, "535.129.03", False),
        ({"min": "535.154.02"}, "535", False),
        ("12", "12.8", True),
        ("12", "12", True),
        ("12", "13.0", False),
        ("12", "11.8", False),
        ({"min": "24"}, "28.2.2", True),
        ({"min": "24"}, "23.0.6", False),
        ({"min": "2.15", "max": "2.19"}, "2.19.3", True),
        ({"min": "2.15", "max": "2.19"}, "2.15.5", True),
        ({"min": "2.15", "max": "2.19"}, "2.20.3", False),
        ({"min": "2.15", "max": "2.19"}, "2.9.9", False),
        ({}, "1.17.4", True),
        ({}, "unknown", False),
        ({"min": "5.15"}, "6.8.0-45-generic", True),
    ],
)
def test_as_many_numbers_are_compared_as_the_wish_names(wish: Any, version: str, inside: bool) -> None:
    assert VersionRange.model_validate(wish).holds(version) is inside


VERSIONS = st.lists(st.integers(0, 999), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))


@given(VERSIONS, VERSIONS)
def test_a_version_lies_in_its_own_range_and_an_order_has_two_sides(one: str, other: str) -> None:
    assert VersionRange(min=one, max=one).holds(one)
    assert VersionRange(min=one).holds(other) or VersionRange(max=one).holds(other)
    if numbers(one) < numbers(other):
        assert VersionRange(min=one, max=other).holds(one) and VersionRange(min=one, max=other).holds(other)


@pytest.mark.parametrize(
    ("wish", "shown"),
    [("12", "12.x"), ({"min": "24"}, "≥ 24"), ({"max": "3"}, "≤ 3"), ({"min": "2.15", "max": "2.19"}, "2.15 … 2.19")],
)
def test_a_range_reads_the_same_in_every_language(wish: Any, shown: str) -> None:
    assert str(VersionRange.model_validate(wish)) == shown


def test_the_default_profile_wishes_nothing() -> None:
    wished = built_in()[DEFAULT].model_dump(exclude_defaults=True)
    assert set(wished) == {"name", "description"}


def test_the_guide_is_what_the_guide_says() -> None:
    guide = built_in()["guide"]
    assert guide.accelerators is not None
    asked = guide.accelerators
    assert (asked.count, asked.memory_gb, asked.fp16_tflops, asked.measured_percent) == (4, 80, 312, 65)
    assert guide.storage.nvme_gb == 10_000
    software = {name: str(wish) for name, wish in guide.software if wish is not None and name != "os"}
    assert software == {
        "nvidia_driver": "≥ 535.154.02",
        "cuda": "12.x",
        "cuda_toolkit": "12.x",
        "docker": "≥ 24",
        "container_toolkit": "*",
        "nccl": "2.15 … 2.19",
    }
    assert guide.software.os is not None
    assert (guide.software.os.id, guide.software.os.version) == ("ubuntu", "22.04")


def test_each_profile_that_comes_with_gonogo_stands_in_the_file_of_its_name() -> None:
    for name, text in texts().items():
        assert load_profile(text).name == name


def test_every_field_of_a_profile_has_a_description() -> None:
    schema = Profile.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for name, field in part.get("properties", {}).items():
            assert field.get("description") or name in ("en", "zh"), name
