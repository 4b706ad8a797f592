"""A recipe's model in its GGUF form, for llama.cpp: which files, and the spec that serves them from this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gonogo.cli.model_wish import ModelWish, wish_of_recipe
from gonogo.cli.refusal import BLOCKED, INTERRUPTED, Refusal
from gonogo.engines.asked import LLAMACPP, engine_name, recipe_of
from gonogo.runtimes.models import ModelStore
from gonogo.spec.recipe import HubSource, Recipe
from gonogo.spec.recipe_parts import How, QuantizationOption

if TYPE_CHECKING:
    from pathlib import Path

    from gonogo.cli.session import Session
    from gonogo.spec.model import Spec

PROJECTOR = "mmproj"


def wants_gguf(spec: Spec) -> bool:
    """Whether llama.cpp was asked for a model that a recipe has on a hub."""
    recipe = recipe_of(spec)
    return spec.engine is not None and engine_name(spec) == LLAMACPP and _on_hub(recipe)


def fetched_gguf(session: Session, spec: Spec) -> Spec:
    """The spec with the paths of its files, fetched where they are not here. Raises Refusal."""
    from gonogo.cli.model_fetch import Source, fetched

    form, wish = _form(spec)
    model = fetched(session, wish, Source()).model
    if model is None:
        raise Refusal("Declined", INTERRUPTED, {})
    return _served_from(spec, form, model.path)


def gguf_here(session: Session, spec: Spec) -> Spec:
    """The same without fetching: the spec as it is where the files are not here."""
    form, wish = _form(spec)
    store = ModelStore(session.paths.models)
    found = [one for name in wish.ids if (one := store.find(name, None, wish.only)) is not None]
    return _served_from(spec, form, found[0].path) if found else spec


def _form(spec: Spec) -> tuple[QuantizationOption, ModelWish]:
    """Raises Refusal where the recipe names no GGUF files."""
    recipe = recipe_of(spec)
    assert recipe is not None
    forms = [one for one in recipe.quantizations if one.how is How.GGUF and one.files]
    if not forms:
        known = ", ".join(dict.fromkeys(f"{one.engine}/{one.name}" for one in recipe.quantizations))
        raise Refusal("NoWayLeft", BLOCKED, {"model": recipe.name, "asked": f"--engine {LLAMACPP}", "known": known})
    return forms[0], wish_of_recipe(recipe, forms[0].name)


def _served_from(spec: Spec, form: QuantizationOption, folder: Path) -> Spec:
    models = [name for name in form.files if PROJECTOR not in name.lower()]
    projectors = [name for name in form.files if PROJECTOR in name.lower()]
    projector = str(folder / projectors[0]) if projectors else None
    return spec.model_copy(update={"model": str(folder / models[0]), "projector": projector})


def _on_hub(recipe: Recipe | None) -> bool:
    return recipe is not None and isinstance(recipe.source, HubSource)
