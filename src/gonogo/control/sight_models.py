"""How control sees models and the environments of engines: with caches, so that a look stays cheap."""

from __future__ import annotations

import os
import re
import stat
import time
from typing import Iterable, Mapping

from gonogo.facts.environment import EnvironmentMade
from gonogo.facts.model import ModelFacts, ModelProblem, ProjectorFacts
from gonogo.runtimes.environments import EnvironmentStore
from gonogo.runtimes.gguf_file import read_model, read_projector
from gonogo.runtimes.models import ModelStore
from gonogo.runtimes.paths import StatePaths
from gonogo.spec.recipe import HubSource
from gonogo.spec.recipes import find_model, recipe_of_hub_id, recipes

ENVIRONMENTS_EVERY_S = FETCHED_EVERY_S = 2.0
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


class ModelSight:
    """Models by what was asked for, read again when the size or time of a file changes."""

    def __init__(self, paths: StatePaths) -> None:
        self._store = ModelStore(paths.models)
        self._fetched: dict[str, tuple[float, str | None]] = {}
        self._seen: dict[str, tuple[tuple[object, ...], ModelFacts]] = {}

    def look(self, asked: Iterable[str]) -> Mapping[str, ModelFacts]:
        return {name: self._one(name) for name in asked}

    def _one(self, asked: str) -> ModelFacts:
        path = self._path(asked)
        if path is None:
            return ModelFacts(asked=asked, problem=_not_here(asked))
        mark = _mark(path)
        known = self._seen.get(asked)
        if known is not None and mark is not None and known[0] == mark:
            return known[1]
        facts = read_model(asked, path)
        if mark is not None:
            self._seen[asked] = (mark, facts)
        return facts

    def _path(self, asked: str) -> str | None:
        """As below; of a hub's model looked for each 2 s, since all that was fetched is read for it."""
        now = time.monotonic()
        at, path = self._fetched.get(asked, (0.0, None))
        if path is None or now - at > FETCHED_EVERY_S:
            path = model_path(asked, self._store)
            self._fetched[asked] = (now, path)
        return path


def model_path(asked: str, store: ModelStore) -> str | None:
    """The file or folder on this host that `asked` means, a fetched model of a hub among them; None: it is not here."""
    path = find_model(asked)
    if path is not None and not (HUB_ID.fullmatch(asked) and not os.path.exists(path)):
        return path
    found = (store.find(one, None, ()) for one in _hub_ids(asked))
    return next((str(one.path) for one in found if one is not None), None)


def _hub_ids(asked: str) -> tuple[str, ...]:
    """Every id that the model has on a hub; empty: it is on none that is known."""
    recipe = recipes().get(asked) or (recipe_of_hub_id(asked) if HUB_ID.fullmatch(asked) else None)
    if recipe is None or not isinstance(recipe.source, HubSource):
        return (asked,) if HUB_ID.fullmatch(asked) else ()
    source = recipe.source
    ids = (source.hugging_face, source.modelscope) if asked in (recipe.name, source.hugging_face) else (asked,)
    return tuple(dict.fromkeys(one for one in ids if one is not None))


def _mark(path: str) -> tuple[object, ...] | None:
    """What changes when a model's files do; None: they cannot be looked at."""
    try:
        seen = os.stat(path)
        if not stat.S_ISDIR(seen.st_mode):
            return (path, seen.st_size, seen.st_mtime_ns)
        with os.scandir(path) as entries:
            files = sorted((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in entries if one.is_file())
        return (path, *files)
    except OSError:
        return None


def _not_here(asked: str) -> ModelProblem:
    """Why nothing on this machine can be `asked`: its weights are on a hub, or nobody knows the name."""
    ids = _hub_ids(asked)
    if ids:
        return ModelProblem(kind="not_fetched", detail=ids[0])
    return ModelProblem(kind="missing", detail="neither a recipe nor a path of a .gguf file")


class ProjectorSight:
    """Vision projectors by path, read again when the file's size or time changes."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[tuple[int, int], ProjectorFacts]] = {}

    def look(self, paths: Iterable[str]) -> Mapping[str, ProjectorFacts]:
        return {path: self._one(path) for path in sorted(paths)}

    def _one(self, path: str) -> ProjectorFacts:
        try:
            seen = os.stat(path)
        except OSError:
            return read_projector(path)
        mark = (seen.st_size, seen.st_mtime_ns)
        known = self._seen.get(path)
        if known is not None and known[0] == mark:
            return known[1]
        facts = read_projector(path)
        self._seen[path] = (mark, facts)
        return facts


class EnvironmentSight:
    """The whole environments of engines on this host; looked at again each 2 s."""

    def __init__(self, paths: StatePaths) -> None:
        self._store = EnvironmentStore(paths.environments)
        self._seen: tuple[float, Mapping[str, EnvironmentMade]] | None = None

    def look(self) -> Mapping[str, EnvironmentMade]:
        now = time.monotonic()
        if self._seen is None or now - self._seen[0] > ENVIRONMENTS_EVERY_S:
            self._seen = (now, environments_of(self._store))
        return self._seen[1]

    def forget(self) -> None:
        """Look anew at the next question."""
        self._seen = None


def environments_of(store: EnvironmentStore) -> Mapping[str, EnvironmentMade]:
    """Every whole environment, by name."""
    return {
        made.name: EnvironmentMade(
            name=made.name,
            engine=made.engine,
            version=made.version,
            answered=made.answered,
            lock=made.lock,
            python=str(made.python_path),
            made_at=made.made_at,
            used_at=made.used_at,
        )
        for made in store.all()
    }
