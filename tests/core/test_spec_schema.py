"""The JSON Schema for editors and the annotated example: both must know every field of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gonogo.spec import Spec
from gonogo.spec.example import FILES, example
from gonogo.spec.load import SpecMistakes, decode, parse
from gonogo.spec.recipe_probes import KINDS, QUESTION
from gonogo.spec.schema import NO_TAGS, json_schema, known_fields, wanted

CASES = Path(__file__).parents[1] / "cases" / "spec"
SCHEMA = json_schema()
# The schema cannot see these: they are about two fields together, about Python, or about how YAML was written.
BEYOND_A_SCHEMA = {
    "BadPattern", "ControlCharacter", "DuplicateField", "DuplicateName", "KeyNotText", "MinAboveMax",
    "DuplicateParameter", "DuplicateServer", "NotAServer", "NotAnAddress", "NotAnApi", "NotForFallback", "NotText",
    "NotWithExternal", "OnlyWithExternal", "ParametersLack", "TagNotAllowed",
    "NotAQueue", "OnlyWithQueue", "PasswordInUrl",
}  # fmt: skip


# YAML 1.1 reads another number than was written, or the number behind a short form is out of range.
LOOKS_RIGHT = {"port-octal", "port-base-60", "number-999999k"}


def is_yaml(path: Path) -> bool:
    """Whether a validator would ever see it. Aliases that multiply are kept from it; null is "left out" only to us."""
    if path.stem.startswith("alias-") or path.stem == "right-empty-fields-are-left-out":
        return False
    try:
        yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return False
    return True


JUDGED = [path for path in sorted(CASES.glob("*.yaml")) if is_yaml(path)]


def valid(data: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(data))


def field_paths(
    prefix: tuple[str | int, ...] = (), tags: Mapping[tuple[str | int, ...], str] = NO_TAGS
) -> Iterator[tuple[str | int, ...]]:
    """Every place that the model knows, with 0 for the entries of a list."""
    for name in wanted(Spec, prefix, tags).fields:
        path = (*prefix, name)
        yield path
        yield from field_paths(path, tags)
        yield from field_paths((*path, 0), tags)


def with_every_kind(text: str) -> Any:
    """The example with the probes and the fallback that it shows in comments, and the kind of each probe."""
    fallback = "".join(re.findall(r"^# (fallback: \{.*\n)#(.*\}\n)", text, re.MULTILINE)[0])
    shown = [line.strip().removeprefix("# - ") for line in text.splitlines() if line.startswith("  # - {")]
    data = yaml.safe_load(text)
    return {**data, **yaml.safe_load(fallback), "probes": [*data["probes"], *map(yaml.safe_load, shown)]}


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("language", FILES)
def test_the_example_parses_and_the_schema_agrees(language: str) -> None:
    assert parse(example(language), FILES[language]).service == "phone-agent"
    data = yaml.safe_load(example(language))
    data["gateway"] = {name: value for name, value in data["gateway"].items() if value is not None}
    jsonschema.validate(data, SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("language", FILES)
def test_the_example_holds_every_field_of_the_model(language: str) -> None:
    data = with_every_kind(example(language))
    for place, probe in enumerate(data["probes"]):
        kind = probe.get("kind", QUESTION)
        one = {**data, "probes": [probe]}
        for path in field_paths(tags={("probes", 0): kind}):
            inner: Any = one
            for step in path:
                assert isinstance(step, int) or step in inner, f"{path} is not in the example's probe {place}"
                inner = inner[step]


@pytest.mark.parametrize("language", FILES)
def test_the_example_shows_a_right_probe_of_every_kind(language: str) -> None:
    data = with_every_kind(example(language))
    assert [probe.get("kind", QUESTION) for probe in data["probes"]] == [QUESTION, *KINDS]
    for section in ("gateway", "fallback"):
        data[section] = {name: value for name, value in data[section].items() if value is not None}
    assert len(parse(yaml.safe_dump(data), "all").probes) == 1 + len(KINDS)
    assert valid(data)


@pytest.mark.parametrize("language", FILES)
def test_a_comment_stands_above_every_field(language: str) -> None:
    lines = [line.strip() for line in example(language).splitlines()]
    bare = [line for above, line in pairwise(lines) if line and not line.startswith("#") and not above.startswith("#")]
    names = {line.removeprefix("- ").partition(":")[0] for line in bare}
    assert names == {"key_file"}, "said together with certificate_file"


def test_both_examples_ask_for_the_same() -> None:
    assert parse(example("en"), "en") == parse(example("zh"), "zh")
    assert example("fr") == example("en")


def test_every_field_has_a_description_and_a_title() -> None:
    for name, section in [("Spec", SCHEMA), *SCHEMA["$defs"].items()]:
        fields = section["anyOf"][1] if "anyOf" in section else section
        for field, schema in fields.get("properties", {}).items():
            assert schema.get("description"), f"{name}.{field}"
    assert SCHEMA["title"]
    assert SCHEMA["description"]


def test_short_forms_are_in_the_schema() -> None:
    assert valid({"model": "m", "replicas": 2})
    assert valid({"model": "m", "expect": {"context_tokens": "32k"}})
    assert not valid({"model": "m", "replicas": 65})
    assert not valid({"model": "m", "expect": {"context_tokens": "32m"}})
    assert not valid({"model": "m", "prot": 1})
    assert not valid({})


@pytest.mark.parametrize("path", JUDGED, ids=lambda path: path.stem)
def test_the_schema_and_the_loader_agree_on_each_case(path: Path) -> None:
    data = yaml.safe_load(path.read_bytes())
    try:
        parse(decode(path.read_bytes(), path.name), path.name)
    except SpecMistakes as error:
        seen_only_by_the_loader = {mistake.reason for mistake in error.mistakes} <= BEYOND_A_SCHEMA
        assert valid(data) if path.stem in LOOKS_RIGHT else (not valid(data) or seen_only_by_the_loader)
    else:
        assert valid(data)


def test_a_field_is_found_in_the_section_it_belongs_to() -> None:
    paths = known_fields(Spec)
    assert paths["port"] == "gateway.port"
    assert paths["model"] == "model"
    assert "nothing" not in paths
