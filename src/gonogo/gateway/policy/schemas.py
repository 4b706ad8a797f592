"""JSON schemas that clients send with tools and structured answers: engines compile them, so they are judged first.

A malformed one has killed engines' workers (CVE-2025-48944), a large one keeps a grammar compiler busy for all. Only
what such harm needs is judged: types, patterns, counts, references, size. Pure.
"""

from __future__ import annotations

import re
from typing import Any, Iterator

from gonogo.gateway.policy.judges import mapping, refuse, wrong_type
from gonogo.gateway.policy.rules import ServiceRules

MOST_SCHEMAS, MOST_COUNT, LONGEST_PATTERN = 2000, 100_000, 512
"""Schemas inside one schema; the largest minLength, maxItems and so on; characters of a regular expression."""
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_ONE = ("additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "items", "additionalItems")
_SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_REPEATED = re.compile(r"\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}")
_MOST_REPEATED = 1000


def schema(value: Any, path: str, _rules: ServiceRules) -> None:
    """A judge (`judges.Judge`): raises `Mistake` for a schema that an engine should not get."""
    waiting, seen = [mapping(value, path)], 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if seen > MOST_SCHEMAS:
            raise refuse(path, f"holds more than {MOST_SCHEMAS:,} schemas.", "schema_too_large")
        _judge(one, path)
        waiting.extend(_inside(one, path))


def _judge(one: dict[str, Any], path: str) -> None:
    types = one.get("type", [])
    for name in types if isinstance(types, list) else [types]:
        if not isinstance(name, str) or name not in _TYPES:
            raise refuse(path, 'has a "type" that JSON Schema does not know.', "invalid_schema")
    for name in _COUNTS:
        _judge_count(one.get(name, 0), f"{path}: {name}", path)
    if "pattern" in one:
        _judge_pattern(one["pattern"], path)
    for pattern in one.get("patternProperties") or ():
        _judge_pattern(pattern, path)
    reference = one.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise refuse(path, 'has a "$ref" that does not begin with #: only its own parts can be.', "invalid_schema")
    if "enum" in one and (not isinstance(one["enum"], list) or not one["enum"]):
        raise refuse(path, 'has an "enum" that is no list, or an empty one.', "invalid_schema")


def _judge_count(value: Any, what: str, path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_COUNT:
        raise refuse(path, f"has a wrong bound ({what} must be from 0 to {MOST_COUNT:,}).", "invalid_schema")


def _judge_pattern(value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise wrong_type(path, value, 'a schema whose "pattern" is a string')
    if len(value) > LONGEST_PATTERN:
        raise refuse(path, f'has a "pattern" of more than {LONGEST_PATTERN} characters.', "invalid_schema")
    for least, most in _REPEATED.findall(value):
        if max(int(least[:9]), int(most[:9] or 0)) > _MOST_REPEATED:
            raise refuse(path, f'has a "pattern" that repeats more than {_MOST_REPEATED} times.', "invalid_schema")


def _inside(one: dict[str, Any], path: str) -> Iterator[dict[str, Any]]:
    """The schemas that stand in this one; a boolean is one too, and says nothing."""
    for name in _BY_NAME:
        for value in mapping(one.get(name) or {}, path).values():
            yield from _as_schema(value, path)
    for name in _ONE:
        if not isinstance(one.get(name), list):
            yield from _as_schema(one.get(name, True), path)
    for name in _SEVERAL:
        value = one.get(name)
        if isinstance(value, list):
            for each in value:
                yield from _as_schema(each, path)
        elif value is not None and name != "items":
            raise refuse(path, f'has an "{name}" that is no list.', "invalid_schema")


def _as_schema(value: Any, path: str) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    elif not isinstance(value, bool):
        raise refuse(path, "holds something else where a schema must stand.", "invalid_schema")
