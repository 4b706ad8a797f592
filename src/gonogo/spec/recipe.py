"""`Recipe`: a known-good spec fragment and facts for one model, each with its source; and how a spec takes it up.

Pure: the texts of the recipes come from `gonogo.spec.recipes.texts()`. Not here: the sections (`recipe_parts.py`,
`recipe_probes.py`), and where a model file lies on this machine, which is a fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gonogo.spec.load import read
from gonogo.spec.model import Expect, ServiceName, Spec, service_name
from gonogo.spec.part import Part
from gonogo.spec.recipe_parts import (
    ClientHints,
    EngineNeeds,
    HubSource,
    ImageBudget,
    Languages,
    ModelSource,
    PackageSource,
    QuantizationOption,
    StopTokens,
    Text,
    Words,
)
from gonogo.spec.recipe_probes import Probe, RecipeProbe
from gonogo.spec.schema import schema_of

__all__ = [
    "SOURCED",
    "HubSource",
    "ModelSource",
    "PackageSource",
    "Recipe",
    "load_recipe",
    "load_recipes",
    "nearest_recipe",
    "recipe_schema",
    "resolve",
    "spec_for",
]

SOURCED = (
    "license",
    "source",
    "engine",
    "context_tokens",
    "trained_context_tokens",
    "probes",
    "clients",
    "images",
    "stop_tokens",
)
"""The fields of a recipe that state a fact and must therefore name where it comes from.

`engines` and `quantizations` are not among them: each of their entries has its own `source` or `link`.
"""


class Recipe(Part):
    """One model that is known to work, and how. `sources` says for each field where its value comes from."""

    name: Annotated[ServiceName, Field(description="The name that `gonogo up NAME` takes; the file's name too.")]
    description: Annotated[Languages, Field(description="What the model is and is good for, in one or two sentences.")]
    license: Annotated[Words, Field(description="The licence of the weights, by its SPDX id where it has one.")]
    source: Annotated[ModelSource, Field(description="Where the model is: in a Python package, or on a hub.")]
    engine: Annotated[Words, Field(description="The engine that serves it unless the spec asks for another.")]
    context_tokens: Annotated[
        int,
        Field(ge=128, le=1_048_576, description="Tokens of one request that are planned unless the spec says more."),
    ]
    trained_context_tokens: Annotated[
        int, Field(ge=128, le=1_048_576, description="The most that the model's own configuration allows.")
    ]
    probes: Annotated[
        tuple[RecipeProbe, ...],
        Field(min_length=1, max_length=16, description="What must be answered right before traffic."),
    ]
    clients: Annotated[ClientHints, Field(description="What clients should send.")]
    engines: Annotated[
        dict[Words, EngineNeeds],
        Field(default_factory=dict, max_length=8, description="By engine: versions, flags, and what goes wrong."),
    ]
    quantizations: Annotated[
        tuple[QuantizationOption, ...],
        Field(max_length=16, description="The forms of the weights that can be obtained and served."),
    ] = ()
    images: Annotated[ImageBudget | None, Field(description="What images cost; absent: the model sees none.")] = None
    stop_tokens: Annotated[StopTokens | None, Field(description="What ends an answer.")] = None
    sources: Annotated[dict[str, Text], Field(description="By field: where its value comes from.")]

    @model_validator(mode="after")
    def _every_value_has_its_source(self) -> Recipe:
        missing = [name for name in SOURCED if getattr(self, name) is not None and name not in self.sources]
        if missing:
            raise PydanticCustomError("MissingField", "a value without its source", {"at": f"sources.{missing[0]}"})
        return self

    @model_validator(mode="after")
    def _engines_are_the_ones_described(self) -> Recipe:
        if isinstance(self.source, PackageSource):
            return self
        allowed = {"allowed": ", ".join(self.engines) or "-"}
        if self.engine not in self.engines:
            raise PydanticCustomError(
                "UnknownWord", "an engine that `engines` does not have", {"at": "engine", **allowed}
            )
        for index, option in enumerate(self.quantizations):
            if option.engine not in self.engines:
                at = f"quantizations.{index}.engine"
                raise PydanticCustomError(
                    "UnknownWord", "an engine that `engines` does not have", {"at": at, **allowed}
                )
        return self

    @model_validator(mode="after")
    def _probes_have_names_of_their_own(self) -> Recipe:
        names = [probe.name for probe in self.probes]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise PydanticCustomError("DuplicateName", "two probes with one name", {"at": f"probes.{index}.name"})
        return self

    @property
    def questions(self) -> tuple[Probe, ...]:
        """The plain questions among the probes: a question and a pattern."""
        return tuple(probe for probe in self.probes if isinstance(probe, Probe))


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe's file, with a description of each field."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**head, **schema_of(Recipe), "title": "A recipe: one model, and how it is served right"}


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
