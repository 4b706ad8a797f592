"""The recipes that come with gonogo, one YAML file each; their schema is `gonogo.spec.recipe.Recipe`.

The only place of this package that reads files, and only its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources


def texts() -> Mapping[str, str]:
    """The text of each recipe that comes with gonogo, by file name."""
    files = (file for file in resources.files(__package__).iterdir() if file.name.endswith(".yaml"))
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)}
