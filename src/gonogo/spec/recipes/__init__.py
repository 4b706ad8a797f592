"""The recipes that come with gonogo, one YAML file each; their schema is `gonogo.spec.recipe.Recipe`.

The only place of this package that reads files, and only its own; and that knows where an installed model lies.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from importlib import resources

from gonogo.spec.recipe import ModelSource, load_recipes


def texts() -> Mapping[str, str]:
    """The text of each recipe that comes with gonogo, by file name."""
    files = (file for file in resources.files(__package__).iterdir() if file.name.endswith(".yaml"))
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)}


def find_model(asked: str) -> str | None:
    """The path of the file that `model: asked` means, whether it exists or not; None: neither a recipe nor a path.

    The file of a recipe lies in an installed package, which is found and never imported. Where that is not installed,
    the path is `PACKAGE/FILE`, so that looking there says what is missing.
    """
    source = _sources().get(asked)
    if source is None:
        return asked if "/" in asked or asked.lower().endswith(".gguf") else None
    package = importlib.util.find_spec(source.python_package)
    folders = list(package.submodule_search_locations or ()) if package is not None else []
    return f"{folders[0] if folders else source.python_package}/{source.file}"


@cache
def _sources() -> Mapping[str, ModelSource]:
    """Read once: what comes with gonogo does not change while it runs."""
    return {name: recipe.source for name, recipe in load_recipes(texts()).items()}
