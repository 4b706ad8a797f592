"""The annotated example that `gonogo docs spec` prints, in each language. It is a test too: it names every field.

Not here: the JSON Schema (`schema.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

FILES: Mapping[str, str] = MappingProxyType({"en": "gonogo.example.yaml", "zh": "gonogo.example.zh.yaml"})


def example(language: str = "en") -> str:
    """The example with its comments in `language`; English for a language that has none."""
    name = FILES.get(language, FILES["en"])
    return resources.files("gonogo.spec").joinpath(name).read_text(encoding="utf-8")
