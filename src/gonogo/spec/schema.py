"""The JSON Schema of a spec, made from the model, for editors; and what of it a mistake must say.

Not here: any limit. They stand in `model.py`, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Mapping

from gonogo.spec.model import Spec
from gonogo.spec.part import Part
from gonogo.spec.recipe_probes import QUESTION
from gonogo.spec.tree import Path

Schema = dict[str, Any]
NO_TAGS: Mapping[Path, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What may stand at one place of the file."""

    kinds: frozenset[str]
    minimum: float | None = None
    maximum: float | None = None
    lengths: tuple[int, int | None] = (0, None)
    most_entries: int | None = None
    choices: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    name_of: str | None = None

    @property
    def range(self) -> str:
        """`1…65535`, in a notation that every language reads."""
        low = "" if self.minimum is None else str(self.minimum)
        high = "" if self.maximum is None else str(self.maximum)
        return f"{low}…{high}"


def json_schema() -> Schema:
    """JSON Schema (draft 2020-12) of `gonogo.yaml`, with a description of each field."""
    schema = schema_of(Spec)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "gonogo.yaml: one service"}


def schema_of(kind: type[Part]) -> Schema:
    """The schema of one kind of file, including the short forms that its validators accept."""
    schema = kind.model_json_schema()
    parts = schema.get("$defs", {})
    if "Replicas" in parts:
        section = parts["Replicas"]
        count = {name: section["properties"]["min"][name] for name in ("type", "minimum", "maximum")}
        section["if"] = {"not": {"required": ["external"]}}
        section["then"] = {"required": section.pop("required")}
        parts["Replicas"] = {"description": section.pop("description"), "anyOf": [count, section]}
    if "VersionRange" in parts:
        section = parts["VersionRange"]
        alone = next(one for one in section["properties"]["min"]["anyOf"] if one.get("type") == "string")
        parts["VersionRange"] = {"description": section.pop("description"), "anyOf": [alone, section]}
    if "Expect" in parts:
        tokens = parts["Expect"]["properties"]["context_tokens"]
        count = {name: tokens.pop(name) for name in ("type", "minimum", "maximum")}
        tokens["anyOf"] = [count, {"type": "string", "pattern": "^[0-9]{1,6}[kK]$"}]
    if kind is Spec:
        schema["required"] = [name for name in schema["required"] if name != "service"]
    return schema


def wanted(kind: type[Part], path: Path, tags: Mapping[Path, str] = NO_TAGS) -> Wanted:
    """What may stand at `path` in a file of this kind; nothing (`kinds` empty) when there is no such place.

    `tags`: where the file has chosen a member of a union by its `kind`, which one; the others' fields are left out.
    """
    schema = _cached(kind)
    found = [schema]
    for count, step in enumerate(path, start=1):
        found = [child for option in _options(found, schema) for child in _children(option, step)]
        tag = tags.get(path[:count])
        if tag is not None:
            found = [option for option in _options(found, schema) if _tag(option) in (tag, None)]
    return _summary(_options(found, schema))


def _tag(option: Schema) -> str | None:
    """What stands in the `kind` of this member of a union (`question`: nothing); None when it is no section."""
    if "properties" not in option:
        return None
    return str(option["properties"].get("kind", {}).get("const", QUESTION))


def known_fields(kind: type[Part]) -> dict[str, str]:
    """Each field name and the dotted path of its place in this kind of file, inside of lists left out."""
    sections = {field: wanted(kind, (field,)).fields for field in wanted(kind, ()).fields}
    inner = {name: f"{field}.{name}" for field, names in sections.items() for name in names}
    return inner | {field: field for field in sections}


@cache
def _cached(kind: type[Part]) -> Schema:
    return schema_of(kind)


def _options(schemas: list[Schema], root: Schema) -> list[Schema]:
    """The alternatives behind `$ref`, `anyOf` and `oneOf`. Our schemas are not recursive, so this ends."""
    flat: list[Schema] = []
    for schema in schemas:
        if "$ref" in schema:
            flat.extend(_options([root["$defs"][schema["$ref"].rpartition("/")[2]]], root))
        elif "anyOf" in schema or "oneOf" in schema:
            flat.extend(_options(schema.get("anyOf") or schema["oneOf"], root))
        else:
            flat.append(schema)
    return flat


def _children(schema: Schema, step: str | int) -> list[Schema]:
    if isinstance(step, int):
        return [schema["items"]] if "items" in schema else []
    properties = schema.get("properties", {})
    if step in properties:
        return [properties[step]]
    values = schema.get("additionalProperties")
    return [values] if isinstance(values, dict) else []


def _summary(options: list[Schema]) -> Wanted:
    merged: Schema = {}
    for option in reversed(options):
        merged.update(option)
    choices = merged.get("enum") or ([merged["const"]] if "const" in merged else [])
    fields = dict.fromkeys(name for option in options for name in option.get("properties", {}))
    return Wanted(
        kinds=frozenset(option["type"] for option in options if "type" in option) - {"null"},
        minimum=merged.get("minimum", merged.get("exclusiveMinimum")),
        maximum=merged.get("maximum", merged.get("exclusiveMaximum")),
        lengths=(merged.get("minLength", 0), merged.get("maxLength")),
        most_entries=merged.get("maxItems"),
        choices=tuple(str(choice) for choice in choices),
        fields=tuple(fields),
        name_of=merged.get("x-name-of"),
    )
