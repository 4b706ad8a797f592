"""The two GPU engines' adapters, made ready for tests: a model folder, two cards, a plan's numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gonogo.engines.model import Launch, Placement
from gonogo.engines.serving import Serving
from gonogo.engines.settings import EngineSettings
from gonogo.engines.sglang import SGLang
from gonogo.engines.vllm import Vllm
from gonogo.facts.model import ModelFacts
from gonogo.facts.replica import ReplicaName
from gonogo.spec import Spec
from gonogo.spec.recipe import load_recipes
from gonogo.spec.recipe_parts import EngineNeeds
from gonogo.spec.recipes import texts

Adapter = Vllm | SGLang
ADAPTERS: dict[str, type[Vllm] | type[SGLang]] = {"vllm": Vllm, "sglang": SGLang}
NEWEST = {"vllm": "0.33.0", "sglang": "0.5.23"}
RECIPES = load_recipes(texts())
SPEC = Spec(service="phone-agent", model="autoglm-phone-9b")
MODEL = ModelFacts(asked="autoglm-phone-9b", path="/models/autoglm")
PYTHON = "/envs/engine/bin/python"
SERVING = Serving(version=(0, 33, 0), context_tokens=25480, share=0.9)


def settings(engine: str, recipe: str | None = None, serving: Serving = SERVING, **changes: Any) -> EngineSettings:
    needs = RECIPES[recipe].engines[engine] if recipe is not None else None
    return replace(EngineSettings(version=NEWEST[engine], serving=serving, needs=needs), **changes)


def adapter(engine: str, recipe: str | None = None, serving: Serving = SERVING, **changes: Any) -> Adapter:
    return ADAPTERS[engine](PYTHON, settings(engine, recipe, serving, **changes))


def placement(index: int = 0, devices: tuple[str, ...] = ("0",), seed: str = "a1", **changes: Any) -> Placement:
    name = ReplicaName(service="phone-agent", revision=3, index=index)
    here = Placement(name=name, host="gpu-1", address="127.0.0.1", port=18100 + index, threads=4)
    return replace(here, devices=devices, seed=seed, **changes)


def launch(engine: str, recipe: str | None = None, place: Placement | None = None, **changes: Any) -> Launch:
    serving = changes.pop("serving", SERVING)
    made = adapter(engine, recipe, serving, **changes)
    return made.launch(SPEC, MODEL, place or placement(devices=tuple(map(str, range(serving.devices)))))


def after(command: tuple[str, ...], flag: str) -> str | None:
    """The word after a flag; None when the command has no such flag."""
    return command[command.index(flag) + 1] if flag in command else None


def needs_with(flag: str, value: str | None = None, **fields: Any) -> EngineNeeds:
    why = {"en": "a reason", "zh": "理由"}
    entry = {"flag": flag, "why": why, "source": "nowhere", **({"value": value} if value is not None else {})}
    return EngineNeeds.model_validate({"source": "nowhere", "flags": (entry,), **fields})
