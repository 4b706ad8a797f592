"""Recipes: the embedded one is complete, and a spec takes up what it does not say itself."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml
from gguf import GGUFReader
from pydantic import ValidationError

from gonogo.spec import Spec
from gonogo.spec.load import SpecMistakes, parse
from gonogo.spec.recipe import load_recipe, load_recipes, nearest_recipe, resolve, spec_for
from gonogo.spec.recipes import find_model, texts

RECIPES = load_recipes(texts())
SMOLLM2 = RECIPES["smollm2-135m"]


def recipe_text(**changes: object) -> str:
    data = yaml.safe_load(texts()["smollm2-135m.yaml"])
    data.update(changes)
    return yaml.safe_dump({name: value for name, value in data.items() if value is not None})


def test_each_recipe_file_is_named_after_its_recipe() -> None:
    assert [f"{name}.yaml" for name in RECIPES] == list(texts())


def test_a_spec_takes_context_and_probes_from_its_recipe() -> None:
    spec = resolve(parse("model: smollm2-135m\nexpect: {concurrent_requests: 9}\n", "f"), RECIPES)
    assert spec.probes == SMOLLM2.probes
    assert spec.expect.context_tokens == SMOLLM2.context_tokens
    assert spec.expect.concurrent_requests == 9


def test_what_the_spec_says_itself_wins_over_the_recipe() -> None:
    other = load_recipe(recipe_text(context_tokens=4096))
    text = "model: smollm2-135m\nexpect: {context_tokens: 2048}\nprobes: [{name: a, prompt: b, expect_pattern: c}]\n"
    spec = resolve(parse(text, "f"), {"smollm2-135m": other})
    assert spec.expect.context_tokens == 2048, "said, and by chance the default: still said"
    assert [probe.name for probe in spec.probes] == ["a"]
    assert resolve(parse("model: smollm2-135m", "f"), {"smollm2-135m": other}).expect.context_tokens == 4096


def test_resolving_twice_is_resolving_once_even_after_the_store() -> None:
    once = spec_for("smollm2-135m", RECIPES)
    stored = Spec.model_validate_json(once.model_dump_json())
    assert resolve(once, RECIPES).digest() == once.digest() == resolve(stored, RECIPES).digest()


def test_a_model_without_a_recipe_stays_as_it_is() -> None:
    spec = Spec(service="a", model="/m/a.gguf")
    assert resolve(spec, RECIPES) is spec


def test_a_model_alone_becomes_a_whole_spec() -> None:
    assert spec_for("smollm2-135m", RECIPES) == resolve(parse("model: smollm2-135m", "f"), RECIPES)
    assert spec_for("/m/My Model.gguf", RECIPES).service == "my-model"
    with pytest.raises(ValidationError):
        spec_for("", RECIPES)


def test_a_misspelled_recipe_is_recognised() -> None:
    assert nearest_recipe("SmolLM2-135", RECIPES) == "smollm2-135m"
    assert nearest_recipe("/m/a.gguf", RECIPES) is None


def test_a_value_without_its_source_is_a_mistake() -> None:
    sources = {name: text for name, text in SMOLLM2.sources.items() if name != "probes"}
    with pytest.raises(SpecMistakes) as caught:
        load_recipe(recipe_text(sources=sources), "r.yaml")
    assert [(each.reason, each.field) for each in caught.value.mistakes] == [("MissingField", "sources.probes")]


def test_wrong_recipes_are_refused_with_a_place() -> None:
    with pytest.raises(SpecMistakes) as caught:
        load_recipe(recipe_text(probes=[], engine=None, source={"python_package": "../x", "file": "../../etc/passwd"}))
    found = {(each.reason, each.field) for each in caught.value.mistakes}
    assert ("MissingField", "engine") in found
    assert ("MissingField", "source.distribution") in found
    assert {"source.python_package", "source.file", "probes"} <= {field for _, field in found}


def test_two_recipes_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="is taken by another file"):
        load_recipes({"a.yaml": recipe_text(), "b.yaml": recipe_text()})


def test_the_file_of_a_recipe_is_found_without_importing_its_package() -> None:
    path = find_model("smollm2-135m")
    assert path is not None
    assert Path(path).name == SMOLLM2.source.file
    assert Path(path).is_file()
    assert SMOLLM2.source.python_package not in sys.modules


def test_a_model_that_is_no_recipe_is_a_path_or_nothing() -> None:
    assert find_model("/m/a.gguf") == "/m/a.gguf"
    assert find_model("a.GGUF") == "a.GGUF"
    assert find_model("smollm3") is None


def test_a_recipe_whose_package_is_not_installed_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert find_model("smollm2-135m") == f"{SMOLLM2.source.python_package}/{SMOLLM2.source.file}"


def test_what_the_recipe_says_of_the_model_file_stands_in_the_file() -> None:
    reader = GGUFReader(str(find_model("smollm2-135m")))
    facts = {name: field.contents() for name, field in reader.fields.items() if name.startswith(("general.", "llama."))}
    assert facts["llama.context_length"] == SMOLLM2.trained_context_tokens
    assert facts["general.license"] == SMOLLM2.license.lower()
    assert SMOLLM2.context_tokens <= SMOLLM2.trained_context_tokens


def test_no_probe_is_answered_right_by_its_own_question() -> None:
    for probe in SMOLLM2.questions:
        assert not re.search(probe.expect_pattern, probe.prompt, re.IGNORECASE), probe.name
