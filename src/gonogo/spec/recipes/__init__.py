"""The recipes that come with gonogo, one YAML file each; their schema is `gonogo.spec.recipe.Recipe`.

The only place of this package that reads files, and only its own; and that knows where an installed model lies.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

from gonogo.spec.recipe import PackageSource, Recipe, load_recipe

SUFFIX = ".yaml"


def texts() -> Mapping[str, str]:
    """The text of each recipe that comes with gonogo, by file name."""
    return {f"{name}{SUFFIX}": _text(name) for name in _names()}


def recipes() -> Mapping[str, Recipe]:
    """Every recipe that comes with gonogo, by name and in that order; each is read when it is first asked for."""
    return _RECIPES


def recipe_of_hub_id(hub_id: str) -> Recipe | None:
    """The recipe whose model, or a form of it, has this id on Hugging Face or ModelScope; None: there is none for it.

    A recipe whose model itself has the id goes before one that lists it among its `quantizations`.
    """
    wanted = hub_id.casefold()
    named = [_RECIPES[name] for name in _names() if wanted in _text(name).casefold()]
    for ids in (lambda recipe: recipe.ids, _ids_of_forms):
        for recipe in named:
            if wanted in (one.casefold() for one in ids(recipe)):
                return recipe
    return None


def _ids_of_forms(recipe: Recipe) -> tuple[str, ...]:
    ids = (one for form in recipe.quantizations for one in (form.hugging_face, form.modelscope))
    return tuple(one for one in ids if one is not None)


def find_model(asked: str) -> str | None:
    """The path of the file that `model: asked` means, whether it exists or not; None: neither a recipe nor a path.

    The file of a recipe lies in an installed package, which is found and never imported. Where that is not installed,
    the path is `PACKAGE/FILE`, so that looking there says what is missing. A recipe whose model is on a hub has no
    file on this machine yet: None too.
    """
    recipe = _RECIPES.get(asked)
    if recipe is None:
        return asked if "/" in asked or asked.lower().endswith(".gguf") else None
    if not isinstance(recipe.source, PackageSource):
        return None
    package = importlib.util.find_spec(recipe.source.python_package)
    folders = list(package.submodule_search_locations or ()) if package is not None else []
    return f"{folders[0] if folders else recipe.source.python_package}/{recipe.source.file}"


class _Recipes(Mapping[str, Recipe]):
    """Reads one file for one recipe, once: what comes with gonogo does not change while it runs."""

    def __getitem__(self, name: str) -> Recipe:
        if name not in _names():
            raise KeyError(name)
        return _recipe(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_names())

    def __len__(self) -> int:
        return len(_names())


_RECIPES = _Recipes()


@cache
def _names() -> tuple[str, ...]:
    """A file is named after its recipe; a test keeps it so."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX)))


@cache
def _recipe(name: str) -> Recipe:
    return load_recipe(_text(name), f"{name}{SUFFIX}")


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")
