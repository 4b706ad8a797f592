"""The ways to serve a model: from a recipe, which says what can be obtained, or from a configuration alone. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterable, Mapping

from gonogo.engines.capacity import Model, model_of
from gonogo.engines.llamacpp_cards import planned as llamacpp_planned
from gonogo.engines.planners import PLANNERS
from gonogo.facts.architecture import Architecture, Scheme
from gonogo.facts.catalogue import known_model
from gonogo.facts.model import Tensor
from gonogo.facts.numbers import ConfigError
from gonogo.facts.weights import groups_of
from gonogo.plan.choose import NONE, Way
from gonogo.spec.recipe import HubSource, Recipe
from gonogo.spec.recipe_parts import How, QuantizationOption
from gonogo.spec.vision_tokens import FAMILIES, most_tokens

PUBLISHED: Mapping[str, str] = {
    "fp8": "fp8_block",
    "int4": "int4",
    "int8": "int8",
    "mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
}
"""What a published checkpoint of this name usually holds, where its own configuration is not known here."""
ONLINE = "fp8"
ENCODER_COPIED = ("--mm-encoder-tp-mode", "data")
"""vLLM's flag for an image encoder that each card holds whole."""


def ways_of_recipe(
    recipe: Recipe, config: Mapping[str, Any] | None = None, tensors: Iterable[Tensor] | None = None
) -> tuple[Way, ...]:
    """What the recipe says can be obtained, in its order; forms that no planner covers are left out.

    `config`, `tensors`: the model's own, where they were read; otherwise the catalogue's. Raises ConfigError where
    there is neither.
    """
    base = _base(recipe, config, tensors)
    budget = recipe.images
    tokens = most_tokens(FAMILIES[budget.family], budget.max_pixels) if budget is not None else None
    found = [_way(option, base, recipe) for option in recipe.quantizations if option.engine in PLANNERS]
    return tuple(
        replace(
            way,
            image_tokens=tokens,
            images=budget.most_per_request if budget is not None else None,
            encoder_copied=any((one.flag, one.value) == ENCODER_COPIED for one in recipe.engines[way.engine].flags),
            versions=recipe.engines[way.engine].versions,
        )
        for way in found
        if way is not None
    )


def ways_of_repository(recipe: Recipe, ways: Iterable[Way], asked: str) -> tuple[Way, ...]:
    """Of a recipe's ways those that serve the weights in the repository `asked`; all of them for the recipe's name.

    What the engine makes FP8 while loading is made of the model's own repository, and of no other form.
    """
    if asked == recipe.name:
        return tuple(ways)
    wanted = asked.casefold()
    forms = {
        form.hugging_face
        for form in recipe.quantizations
        if wanted in (one.casefold() for one in (form.hugging_face, form.modelscope) if one is not None)
    }
    original = wanted in (one.casefold() for one in recipe.ids)
    return tuple(way for way in ways if (original if way.online else way.source in forms))


def ways_of_config(
    name: str, config: Mapping[str, Any], tensors: Iterable[Tensor] | None = None, engine: str | None = None
) -> tuple[Way, ...]:
    """As it is stored, on every engine; made FP8 while loading where it is stored in 16 bit. Raises ConfigError.

    `engine`: the one that was asked for; one that serves a single request at a time is a way only then.
    """
    model = model_of(name, config, tensors)
    stored = model.architecture.scheme
    quantization = stored.method if stored is not None else NONE
    found = []
    for title, planner in PLANNERS.items():
        if (planner.alone and engine != title) or not (planner.schemes or planner.online):
            continue  # GGUF files are not made of a checkpoint here: a recipe says where there are some
        found.append(Way(engine=title, quantization=quantization, model=model, source=name))
        if stored is None and ONLINE in planner.online:
            found.append(Way(engine=title, quantization=ONLINE, online=True, model=model, source=name, official=False))
    return tuple(found)


def _base(recipe: Recipe, config: Mapping[str, Any] | None, tensors: Iterable[Tensor] | None) -> Model:
    if config is not None:
        return model_of(recipe.name, config, tensors)
    source = recipe.source
    named = (source.hugging_face, source.shaped_like) if isinstance(source, HubSource) else ()
    for name in named:
        known = known_model(name) if name is not None else None
        if known is not None:
            return model_of(recipe.name, known.config)
    raise ConfigError("not_found", f"no configuration of {recipe.name} is known here")


def _way(option: QuantizationOption, base: Model, recipe: Recipe) -> Way | None:
    known = known_model(option.hugging_face) if option.hugging_face is not None else None
    model = base
    if option.how is How.GGUF and not llamacpp_planned(base.architecture):
        return None
    if option.how is How.CHECKPOINT and known is not None:
        model = model_of(recipe.name, known.config)
    elif option.how is How.CHECKPOINT:
        model = _stored_as(base, option.name)
    return Way(
        engine=option.engine,
        quantization=option.name,
        online=option.how is How.ONLINE,
        gguf=option.how is How.GGUF,
        model=model,
        source=option.hugging_face or base.name,
        official=option.official,
        most_tensor=option.most_tensor_parallel,
    )


def _stored_as(base: Model, name: str) -> Model:
    """The base model with its weights stored as a checkpoint of this name has them."""
    method = PUBLISHED.get(name)
    own = base.architecture.scheme
    if method is None:
        architecture = base.architecture if name != NONE or own is None else _without_scheme(base.architecture)
    elif own is not None and own.method.startswith(name):
        architecture = base.architecture
    else:
        architecture = replace(base.architecture, scheme=Scheme(method=method, skipped=frozenset({"vision"})))
    return replace(base, architecture=architecture, groups=groups_of(architecture), exact=False)


def _without_scheme(architecture: Architecture) -> Architecture:
    return replace(architecture, scheme=None)
