"""What a spec needs on this host before it can be deployed: its engine's environment, and the weights.

Everything that is downloaded is told and asked before the first byte. What is there already is found, not made again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gonogo.cli.refusal import INTERRUPTED, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.runtimes.environments import EnvironmentStore, Made
    from gonogo.spec.engine import EngineChoice
    from gonogo.spec.model import Spec


def provisioned(session: Session, spec: Spec) -> Spec:
    """The spec with engine, version and environment, all of them here. Raises Refusal; nothing is half-made then."""
    from gonogo.cli.choose_engine import chosen
    from gonogo.cli.env import faults
    from gonogo.cli.gguf_form import fetched_gguf, wants_gguf

    if spec.external:
        return with_health_path(spec)
    spec = chosen(session, spec)
    if wants_gguf(spec):
        spec = fetched_gguf(session, spec)
    _say(session, spec)
    if spec.engine is None or not _has_environment(spec.engine):
        return spec
    _require_release(session, spec, spec.engine)
    _weights(session, spec)  # first: a model that is not to be had costs no environment
    with faults(session):
        made = _environment(session, spec, spec.engine)
    return spec.model_copy(update={"engine": _pinned(spec.engine, made)})


def found_here(session: Session, spec: Spec) -> Spec:
    """The same without making or fetching anything: what is not here stays unsaid, and its check says so."""
    from gonogo.cli.choose_engine import chosen
    from gonogo.cli.gguf_form import gguf_here, wants_gguf
    from gonogo.runtimes.environments import EnvironmentStore

    if spec.external:
        return with_health_path(spec)
    spec = chosen(session, spec)
    if wants_gguf(spec):
        spec = gguf_here(session, spec)
    _say(session, spec)
    if spec.engine is None or not _has_environment(spec.engine):
        return spec
    there = _there(EnvironmentStore(session.paths.environments), spec.engine)
    if there is None:
        return spec
    return spec.model_copy(update={"engine": _pinned(spec.engine, there)})


def with_health_path(spec: Spec) -> Spec:
    """The spec of external replicas with what tells that they are well: `/health`, or their list of models where one of
    those that answer has none. Servers that do not answer say nothing either way.
    """
    from gonogo.control.sight_servers import keys_of
    from gonogo.facts.server import HEALTH, MODEL_LIST
    from gonogo.runtimes.look_servers import look_at_servers

    if spec.replicas is None or spec.replicas.health_path is not None:
        return spec
    seen = look_at_servers(keys_of((spec,))).values()
    path = MODEL_LIST if any(facts.has_no_health for facts in seen) else HEALTH
    return spec.model_copy(update={"replicas": spec.replicas.model_copy(update={"health_path": path})})


def _say(session: Session, spec: Spec) -> None:
    """One line that says which engine was chosen, and how it is started; none for llama.cpp as it comes with gonogo."""
    from gonogo.engines.asked import cards_of_replica

    engine = spec.engine
    if engine is None:
        return
    cards = cards_of_replica(spec)
    values = {
        "cards": cards or None,
        "percent": round(engine.share * 100) if engine.share and cards else None,
        "quantization": engine.quantization,
        "sequences": engine.sequences,
    }
    session.say("engine.chosen", model=spec.model, engine=engine.name, version=engine.version, **values)


def engine_told(spec: Spec) -> dict[str, Any]:
    """The same for `--json`: the model whose weights are served, and the spec's engine."""
    engine = None if spec.engine is None else spec.engine.model_dump(mode="json")
    return {"model": spec.model, "engine": engine}


def _pinned(engine: EngineChoice, made: Made) -> EngineChoice:
    return engine.model_copy(update={"version": made.version, "environment": made.name})


def _has_environment(engine: EngineChoice) -> bool:
    """llama.cpp came with gonogo: only a version that was asked for has an environment of its own."""
    return engine.name != "llama.cpp" or engine.version is not None or engine.environment is not None


def _require_release(session: Session, spec: Spec, engine: EngineChoice) -> None:
    """Raises Refusal, with the constraints that clash, where the engine is not here and no release of it fits."""
    from gonogo.cli.env_choice import Order, choice_for, refusal_of, wished
    from gonogo.engines.asked import recipe_of
    from gonogo.runtimes.environment_host import look_at_limits
    from gonogo.runtimes.environments import EnvironmentStore

    if _there(EnvironmentStore(session.paths.environments), engine) is not None:
        return
    wish, _ = wished(engine.name, Order(versions=engine.version))
    found = choice_for(wish, recipe_of(spec), look_at_limits())
    if found.build is None:
        raise refusal_of(session, engine.name, found)


def _environment(session: Session, spec: Spec, engine: EngineChoice) -> Made:
    """The environment that the spec names, one that is there, or a new one. Raises Refusal, EnvironmentFault."""
    from gonogo.cli.env_choice import Order
    from gonogo.cli.env_create import made_environment
    from gonogo.engines.asked import recipe_of
    from gonogo.runtimes.environments import EnvironmentStore
    from gonogo.runtimes.package_sources import sources_here

    store = EnvironmentStore(session.paths.environments)
    found = _there(store, engine)
    there = store.touch(found.name) if found is not None else None  # from now on it is not collected
    if there is not None:
        return there
    recipe = recipe_of(spec)
    known = recipe is not None and engine.name in recipe.engines
    order = Order(
        target=recipe.name if recipe is not None and known else engine.name,
        engine=engine.name if known else None,
        versions=engine.version,
    )
    made, _, _ = made_environment(session, store, order, sources_here((), False))
    if made is None:
        raise Refusal("Declined", INTERRUPTED, {})
    return made


def _weights(session: Session, spec: Spec) -> None:
    """Fetch the weights of a hub's model that are not here. Raises Refusal."""
    from gonogo.cli.choose_engine import is_of_hub
    from gonogo.cli.model_fetch import Source, fetched
    from gonogo.cli.model_wish import wish_of

    if is_of_hub(spec) and fetched(session, wish_of(spec.model), Source()).model is None:
        raise Refusal("Declined", INTERRUPTED, {})


def _there(store: EnvironmentStore, engine: EngineChoice) -> Made | None:
    """A whole environment that serves: the named one, else the newest of this engine and version."""
    if engine.environment is not None:
        return store.find(engine.environment)
    fitting = [made for made in store.of_engine(engine.name) if engine.version in (None, made.version)]
    return fitting[0] if fitting else None
