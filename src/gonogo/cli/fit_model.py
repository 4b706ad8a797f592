"""From the word on `gonogo fit`'s command line to the ways to serve that model: recipe, folder, hub id, known model.

What was kept of an earlier look at a hub goes before what gonogo knows by itself; the network is asked only for a
model that is not known, or when `--hub` says where.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from gonogo.cli.refusal import BLOCKED, WORLD_DID_NOT_COMPLY, WRONG_INPUT, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.facts.checkpoint import Checkpoint
    from gonogo.plan.choose import Way
    from gonogo.spec.recipe import Recipe

USUAL_TOKENS = 4096
PATHS = ("/", "./", "../", "~")
"""What begins so is a folder, and never a hub id."""
MISTAKES = ("id_mistaken", "not_found", "missing")
SILENCE = ("hub_unreachable", "hub_broken", "rate_limited", "unauthorized", "gated", "not_cached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The ways to serve a model, the tokens of a usual request, and where its numbers come from, in words."""

    name: str
    ways: Sequence[Way]
    usual_tokens: int
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where to look for a model: the hub's address (None: its usual one), or nowhere but here; and for which engine."""

    hub: str | None
    offline: bool
    engine: str | None


def find_model(session: Session, asked: str, where: Where) -> Found:
    """The model. Raises Refusal: not known, unreadable, of a kind that is not planned."""
    from gonogo.spec.recipes import recipe_of_hub_id, recipes

    folder = Path(asked).expanduser()
    if asked.lower().endswith(".gguf"):
        raise Refusal("GgufHasNoCards", WRONG_INPUT, {"asked": asked})
    recipe = recipes().get(asked) or recipe_of_hub_id(asked)
    if recipe is None and asked and folder.is_dir():
        return _of_checkpoint(session, asked, _folder(session, folder), where)
    if recipe is not None:
        return _of_recipe(session, recipe, asked, where)
    return _of_hub_id(session, asked, where)


def _of_recipe(session: Session, recipe: Recipe, asked: str, where: Where) -> Found:
    """By the recipe's name or its model's id: every form that can be had. By the id of one form: that one."""
    from gonogo.facts.numbers import ConfigError
    from gonogo.plan.ways import ways_of_recipe, ways_of_repository
    from gonogo.spec.recipe import HubSource, PackageSource

    if isinstance(recipe.source, PackageSource):
        raise Refusal("RecipeNeedsNoCard", BLOCKED, {"asked": recipe.name})
    seen = None
    if isinstance(recipe.source, HubSource):
        seen = _hub(session, recipe.source.hugging_face, where, ask=where.hub is not None)
    config = seen.whole_config if seen is not None and seen.problem is None else None
    try:
        ways = ways_of_recipe(recipe, config, seen.tensors if seen is not None and config is not None else None)
    except ConfigError as error:
        raise _unplannable(recipe.name, error.detail) from None
    if asked.casefold() not in (one.casefold() for one in (recipe.name, *recipe.ids)):
        ways = ways_of_repository(recipe, ways, asked)
    origin = _seen(session, seen) if seen is not None and config is not None else session.told("fit.origin.known")
    return Found(name=recipe.name, ways=ways, usual_tokens=recipe.context_tokens, origin=origin)


def _of_hub_id(session: Session, asked: str, where: Where) -> Found:
    from gonogo.facts.catalogue import known_model
    from gonogo.facts.numbers import ConfigError
    from gonogo.plan.ways import ways_of_config

    known = known_model(asked)
    if known is None and ("/" not in asked or asked.startswith(PATHS)):
        raise not_known(asked)
    seen = _hub(session, asked, where, ask=known is None or where.hub is not None)
    if seen is not None and (seen.problem is None or known is None):
        return _of_checkpoint(session, asked, seen, where)
    if known is None:
        raise not_known(asked)
    try:
        ways = ways_of_config(known.name, known.config, engine=where.engine)
    except ConfigError as error:
        raise _unplannable(asked, error.detail) from None
    return Found(name=known.name, ways=ways, usual_tokens=_usual(ways), origin=session.told("fit.origin.known"))


def _of_checkpoint(session: Session, asked: str, seen: Checkpoint, where: Where) -> Found:
    from gonogo.checks.model import reason_of
    from gonogo.facts.families import FAMILIES
    from gonogo.facts.judge_checkpoint import problems_of
    from gonogo.facts.numbers import ConfigError
    from gonogo.plan.ways import ways_of_config

    problems = problems_of(seen, FAMILIES)
    if problems:
        problem = problems[0]
        code = WRONG_INPUT if problem.kind in MISTAKES else WORLD_DID_NOT_COMPLY if problem.kind in SILENCE else BLOCKED
        values = {"asked": asked, "path": seen.source, "detail": problem.detail}
        raise Refusal(reason_of(problem), code, values)
    config = seen.whole_config or {}
    try:
        ways = ways_of_config(asked, config, seen.tensors, engine=where.engine)
    except ConfigError as error:
        raise _unplannable(asked, error.detail) from None
    return Found(name=asked, ways=ways, usual_tokens=_usual(ways), origin=_seen(session, seen))


def _folder(session: Session, folder: Path) -> Checkpoint:
    from gonogo.cli.progress import Progress
    from gonogo.runtimes.checkpoint_folder import read_folder

    with Progress(session) as progress:
        progress.step("progress.reading_model", model=str(folder))
        return read_folder(folder)


def _hub(session: Session, model: str, where: Where, ask: bool) -> Checkpoint | None:
    """What the hub says or said; None where nothing is kept and nobody is to be asked."""
    from gonogo.runtimes.checkpoint_cache import default_cache

    if not ask and not where.offline and not default_cache().is_dir():
        return None  # nothing is kept: what asks a hub takes a tenth of a second to load
    from gonogo.runtimes.hub import HubQuestion, read_from_hub

    if where.offline or not ask:
        seen = read_from_hub(HubQuestion(model=model, endpoint=where.hub, offline=True))
        return None if seen.problem is not None and not where.offline else seen
    from gonogo.cli.progress import Progress

    with Progress(session) as progress:
        progress.step("progress.asking_hub", model=model)
        return read_from_hub(HubQuestion(model=model, endpoint=where.hub))


def _seen(session: Session, seen: Checkpoint) -> str:
    hours = max(0.0, time.time() - seen.seen_at) / 3600
    commit = (seen.commit or "")[:10] or None
    return session.told("fit.origin.seen", source=seen.source, commit=commit, hours=round(hours, 1))


def _usual(ways: Sequence[Way]) -> int:
    return ways[0].model.architecture.context_tokens or USUAL_TOKENS


def not_known(asked: str) -> Refusal:
    """Neither a recipe nor an id nor a folder; with the nearest names."""
    from gonogo.facts.catalogue import known_models
    from gonogo.spec.recipes import recipes
    from gonogo.words import nearest

    near = nearest(asked, (*recipes(), *known_models()))
    return Refusal("ModelNotKnown", WRONG_INPUT, {"asked": asked, "nearest": ", ".join(near) or None})


def _unplannable(asked: str, detail: str) -> Refusal:
    return Refusal("ModelUnplannable", BLOCKED, {"asked": asked, "detail": detail})
