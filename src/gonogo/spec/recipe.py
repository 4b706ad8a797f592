"""`Recipe`: a known-good spec fragment and facts for one model, each with its source; and how a spec takes it up.

Pure: the texts of the recipes come from `gonogo.spec.recipes.texts()`. Not here: where the model file lies on this
machine, which is a fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gonogo.spec.load import read
from gonogo.spec.model import Expect, Part, Probe, ServiceName, Spec, service_name

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Words = Annotated[str, Field(min_length=1, max_length=200)]
SOURCED = ("license", "source", "engine", "context_tokens", "trained_context_tokens", "probes", "clients")
"""The fields of a recipe that state a fact and must therefore name where it comes from."""


class Languages(Part):
    """One text for the user in each language."""

    en: Text
    zh: Text


class ModelSource(Part):
    """The model file inside an installed Python package, which is found by its path and never imported."""

    python_package: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    distribution: Words
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.gguf$")]


class Clients(Part):
    """What a client should send to get good answers."""

    temperature: Annotated[float, Field(ge=0, le=2)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)]
    hint: Languages


class Recipe(Part):
    """One model that is known to work, and how. `sources` says for each field where its value comes from."""

    name: ServiceName
    description: Languages
    license: Words
    source: ModelSource
    engine: Words
    context_tokens: Annotated[int, Field(ge=128, le=1_048_576)]
    trained_context_tokens: Annotated[int, Field(ge=128, le=1_048_576)]
    probes: Annotated[tuple[Probe, ...], Field(min_length=1, max_length=16)]
    clients: Clients
    sources: dict[str, Text]

    @model_validator(mode="after")
    def _every_value_has_its_source(self) -> Recipe:
        missing = [name for name in SOURCED if name not in self.sources]
        if missing:
            raise PydanticCustomError("MissingField", "a value without its source", {"at": f"sources.{missing[0]}"})
        return self


def load_recipe(text: str, filename: str = "recipe.yaml") -> Recipe:
    """One recipe from its YAML. Raises SpecMistakes with every mistake and its place."""
    return read(text, filename, Recipe)


def load_recipes(texts: Mapping[str, str]) -> Mapping[str, Recipe]:
    """Recipes by name, from texts by file name. Raises SpecMistakes, and ValueError when two have one name."""
    recipes: dict[str, Recipe] = {}
    for filename, text in texts.items():
        recipe = load_recipe(text, filename)
        if recipe.name in recipes:
            raise ValueError(f"{filename}: the recipe name {recipe.name} is taken by another file")
        recipes[recipe.name] = recipe
    return recipes


def resolve(spec: Spec, recipes: Mapping[str, Recipe]) -> Spec:
    """The spec with what its model's recipe knows filled in where the spec says nothing: context and probes.

    A spec whose model is not a recipe stays as it is. Doing it twice is doing it once.
    """
    recipe = recipes.get(spec.model)
    if recipe is None:
        return spec
    tokens = spec.expect.context_tokens if "context_tokens" in spec.expect.model_fields_set else recipe.context_tokens
    expect = Expect(concurrent_requests=spec.expect.concurrent_requests, context_tokens=tokens)
    return spec.model_copy(update={"expect": expect, "probes": spec.probes or recipe.probes})


def spec_for(model: str, recipes: Mapping[str, Recipe]) -> Spec:
    """The spec of `gonogo up MODEL`: everything but the model by default. Raises ValueError when `model` is empty."""
    return resolve(Spec(service=service_name(model), model=model), recipes)


def nearest_recipe(model: str, recipes: Iterable[str]) -> str | None:
    """The recipe that was probably meant by `model`, None when no name is close."""
    from difflib import get_close_matches

    close = get_close_matches(model.lower(), list(recipes), n=1, cutoff=0.6)
    return close[0] if close else None
