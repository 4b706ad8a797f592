"""Each file of tests/cases/spec and what is said of it. `--accept` rewrites the expected; the diff is the review."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gonogo.spec.load import SpecMistakes, decode, parse

CASES = Path(__file__).parents[1] / "cases" / "spec"
FILES = sorted(CASES.glob("*.yaml"))


def outcome(path: Path) -> dict[str, Any]:
    try:
        spec = parse(decode(path.read_bytes(), path.name), path.name)
    except SpecMistakes as error:
        mistakes = [
            {"reason": each.reason, "field": each.field, "values": dict(each.values), "text": str(each)}
            for each in error.mistakes
        ]
        return {"mistakes": mistakes, "left_out": error.left_out}
    return {"spec": spec.model_dump(mode="json")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_gives_what_is_expected_of_it(path: Path, pytestconfig: pytest.Config) -> None:
    seen = outcome(path)
    expected = path.with_suffix(".expected.json")
    if pytestconfig.getoption("--accept"):
        expected.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert seen == json.loads(expected.read_text(encoding="utf-8"))


def test_only_files_that_say_so_are_right() -> None:
    right = {path.stem for path in FILES if "spec" in outcome(path)}
    assert right == {path.stem for path in FILES if path.stem.startswith("right-")}


def test_no_expected_file_is_left_without_its_case() -> None:
    assert {path.name.removesuffix(".expected.json") for path in CASES.glob("*.json")} == {p.stem for p in FILES}


def test_what_is_said_stays_short_enough_to_read() -> None:
    for path in FILES:
        for mistake in outcome(path).get("mistakes", []):
            assert len(mistake["text"]) < 400, path.name
            assert "\n" not in mistake["text"], path.name
