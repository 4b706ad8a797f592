"""Models that gonogo knows without asking a hub: the fields of their `config.json` that matter, each with its source.

The only place of this package that reads files, and only its own. What a hub or a folder says goes before it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """One model: its hub id, its configuration (trimmed) and where that comes from."""

    name: str
    config: Mapping[str, Any]
    source: str


@cache
def known_models() -> Mapping[str, KnownModel]:
    """By hub id."""
    text = resources.files(__package__).joinpath("models.json").read_text(encoding="utf-8")
    return {
        name: KnownModel(name=name, config=entry["config"], source=entry["source"])
        for name, entry in json.loads(text).items()
    }


def known_model(asked: str) -> KnownModel | None:
    """The model of this hub id, whatever the case of its letters; None when it is not known here."""
    models = known_models()
    return models.get(asked) or _by_folded_name().get(asked.casefold())


@cache
def _by_folded_name() -> Mapping[str, KnownModel]:
    return {name.casefold(): model for name, model in known_models().items()}
