"""The profiles that come with gonogo, one YAML file each; their schema is `gonogo.spec.profile.Profile`.

Reads files, and only its own: the same exception as `gonogo.spec.recipes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

from gonogo.spec.profile import Profile, load_profile

DEFAULT = "default"


@cache
def built_in() -> Mapping[str, Profile]:
    """The profiles that come with gonogo, by name."""
    files = sorted(
        (file for file in resources.files(__package__).iterdir() if file.name.endswith(".yaml")),
        key=lambda file: file.name,
    )
    found = (load_profile(file.read_text(encoding="utf-8"), file.name) for file in files)
    return {profile.name: profile for profile in found}


def texts() -> Mapping[str, str]:
    """Their YAML by name, to copy and to edit (`gonogo docs profiles`)."""
    folder = resources.files(__package__)
    return {name: (folder / f"{name}.yaml").read_text(encoding="utf-8") for name in built_in()}
