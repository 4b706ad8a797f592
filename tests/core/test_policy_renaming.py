"""Where a body names its model: the one value is found, whatever else looks like it, and nothing else is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from gonogo.gateway.policy.body import parse
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.renaming import SERVED_AS, SPAN, model_span, renaming
from gonogo.gateway.policy.rules import rules_of

NAME = 'Org/Model "7B" \\ 模型'


def renamed(raw: bytes) -> bytes:
    """As the gateway's filter does it."""
    headers = renaming(raw, NAME)
    first, end = map(int, headers[SPAN].split("-"))
    return raw[:first] + headers[SERVED_AS].encode("ascii") + raw[end:]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a"}',
        b' {\n "messages" : [ {"role": "user", "content": "\\"model\\": \\"no\\""} ] ,\t"model" :\r\n "a" } ',
        b'{"metadata": {"model": "no"}, "model": "a", "tools": [{"model": "no"}]}',
        b'{"stop": ["model", ","], "user": "model", "mod\\u0065l": "a\\\\", "x": "}"}',
        '{"messages": [{"content": "模型 \\\\\\" {[,"}], "model": "模"}'.encode(),
        b'{"messages": [{"content": "' + b"x" * 1_300_000 + b'"}], "model": "a"}',
        b'{"messages": [{"content": "' + b'\\"' * 1000 + b'"}], "model": "a"}',
        b'{"model": ""}',
    ],
)
def test_the_models_name_is_replaced_and_nothing_else(raw: bytes) -> None:
    assert json.loads(renamed(raw)) == {**json.loads(raw), "model": NAME}
    first, end = model_span(raw)
    assert renamed(raw)[:first] == raw[:first]
    assert renamed(raw).endswith(raw[end:])


VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(max_size=8) | some.just("model"),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from(["model", "a", ",", "}", '"']), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(
    before=some.dictionaries(some.text(max_size=6).filter(lambda name: name != "model"), VALUES, max_size=3),
    after=some.dictionaries(some.text(max_size=6).filter(lambda name: name != "model"), VALUES, max_size=3),
    model=some.text(max_size=12),
    ascii_only=some.booleans(),
    indent=some.sampled_from([None, 0, 2]),
)
def test_in_every_body_that_policy_lets_through(
    before: dict[str, Any], after: dict[str, Any], model: str, ascii_only: bool, indent: int | None
) -> None:
    fields = {**before, "model": model, **after}
    raw = json.dumps(fields, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    if isinstance(parse(raw), Deny):  # half a character, which policy refuses
        return
    assert json.loads(renamed(raw)) == {**fields, "model": NAME}


def test_a_body_without_one_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="no model"):
        model_span(b'{"models": "a", "x": {"model": "a"}}')


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"service": "s", "model": "Org/M", "replicas": {"external": ["http://h"]}}, "Org/M"),
        ({"service": "s", "model": "s", "replicas": {"external": ["http://h"]}}, None),
        ({"service": "s", "model": "Org/M", "replicas": {"min": 1, "max": 1, "external": None}}, None),
        ({"service": "s", "model": "Org/M"}, None),
    ],
)
def test_only_servers_of_others_are_told_another_name(spec: dict[str, Any], name: str | None) -> None:
    assert rules_of(spec).served_as == name
