"""What measuring programs print is read strictly: a number is a speed or it is nothing, and no text is an exception."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gonogo.facts.parse_measured import accelerators_measured, cpu_measured, parse_line, storage_measured

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
)
FIELDS = ("threads", "flops_f32", "accelerators", "links", "index", "name", "first", "second", "bytes_per_s", "cache")


@given(st.text(max_size=200))
def test_any_line_is_read_or_left_out(text: str) -> None:
    assert parse_line(text) is None or isinstance(parse_line(text), dict)


@given(
    st.dictionaries(
        st.sampled_from(FIELDS), JSON | st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON)), max_size=6
    )
)
def test_any_result_is_read_without_an_exception(result: dict[str, Any]) -> None:
    cpu_measured(result)
    storage_measured("hot", "/x", result)
    for card in accelerators_measured(result).accelerators:
        assert card.index >= 0


def test_what_is_no_speed_is_not_observed() -> None:
    for value in (0, -1, float("nan"), float("inf"), "5", True, None):
        found = cpu_measured({"threads": 2, "flops_f32": value})
        assert found is not None and found.flops_f32 is None, value


def test_only_lines_of_ours_are_read() -> None:
    assert parse_line(json.dumps({"step": "matrix"})) == {"step": "matrix"}
    assert parse_line('{"other": 1}') is None
    assert parse_line("UserWarning: something") is None
    assert parse_line("[" * 100_000) is None
