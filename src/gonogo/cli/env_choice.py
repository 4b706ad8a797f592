"""From an engine's or a recipe's name to the release that fits this host, and its lock; or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from gonogo.cli.refusal import BLOCKED, WRONG_INPUT, Refusal
from gonogo.facts.matrix import matrix
from gonogo.plan.environment import Choice, choose_build
from gonogo.plan.environment_constraints import Wish, constraints
from gonogo.runtimes.environment_host import look_at_limits
from gonogo.runtimes.environment_locking import (
    LockOrder,
    companions_of,
    make_lock,
    read_lock,
    refuse_misfit,
)
from gonogo.runtimes.package_sources import sources_here
from gonogo.runtimes.uv import EnvironmentFault, Uv, find_uv

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.facts.engine_build import EngineBuild
    from gonogo.facts.environment import HostLimits, PythonAtHand
    from gonogo.facts.environment_lock import Lock
    from gonogo.runtimes.environments import EnvironmentStore
    from gonogo.spec.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the options of `env` ask for."""

    target: str | None = None
    versions: str | None = None
    engine: str | None = None
    python: str | None = None
    wheels: tuple[str, ...] = ()
    offline: bool = False
    lock_file: str | None = None
    bundle_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A lock, the interpreter for it, and the release in the matrix where the lock's is there."""

    lock: Lock
    python: PythonAtHand
    build: EngineBuild | None
    fresh: bool

    def plain(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "engine": self.lock.engine,
            "version": self.lock.version,
            "python": self.python.version,
            "packages": len(self.lock.packages),
            "download_bytes": self.lock.download_bytes,
            "overridden": list(self.lock.overridden),
            "left_out": list(self.lock.left_out),
        }


def wished(target: str, order: Order) -> tuple[Wish, Recipe | None]:
    """The engine of a target, and its recipe where it is one. Raises Refusal for a name or a range that is none."""
    from gonogo.spec.recipes import recipes
    from gonogo.words import nearest

    known = matrix().builds
    recipe = recipes().get(target)
    engine = recipe.engine if recipe is not None else target
    if recipe is not None and order.engine is not None:
        engine = order.engine
        if engine not in recipe.engines:
            values = {"option": "--engine", "words": f"{engine}: {' | '.join(recipe.engines) or recipe.engine}"}
            raise Refusal("OptionMistaken", WRONG_INPUT, values)
    if engine not in known:
        near = nearest(target, (*known, *recipes()))
        unknown: dict[str, Any] = {"asked": target, "nearest": ", ".join(near) or None, "known": ", ".join(known)}
        raise Refusal("EngineNotInMatrix", WRONG_INPUT, unknown)
    return Wish(engine=engine, versions=_range(order.versions)), recipe


def choice_for(wish: Wish, recipe: Recipe | None, host: HostLimits) -> Choice:
    """The release that fits, or why none does."""
    known = matrix()
    return choose_build(known.builds[wish.engine], constraints(wish, recipe, host, known), host)


def locked(session: Session, store: EnvironmentStore, order: Order, fresh: bool) -> Locked:
    """A lock for this host: the given one, one that is kept for the same release, or a new one (`fresh`: always).

    Raises Refusal when no release fits, before anything is downloaded; EnvironmentFault when the lock cannot be had.
    """
    host = look_at_limits()
    if order.lock_file is not None:
        return _given(Path(order.lock_file), host)
    assert order.target is not None
    wish, recipe = wished(order.target, order)
    if order.python is not None:
        host = replace(host, pythons=tuple(one for one in host.pythons if _is_python(one, order.python)))
    choice = choice_for(wish, recipe, host)
    if choice.build is None or choice.python is None:
        raise refusal_of(session, wish.engine, choice)
    kept = None if fresh else _kept(store, choice.build, choice.python, host)
    if kept is not None:
        return Locked(lock=kept, python=choice.python, build=choice.build, fresh=False)
    return _resolved(session, store, order, choice, recipe, host)


def refusal_of(session: Session, engine: str, choice: Choice) -> Refusal:
    """Why no release fits, with the two constraints that clash and the command that mends it."""
    from gonogo.words.environment import choice_reason

    reason, values = choice_reason(engine, choice, session.lang)
    return Refusal(reason, BLOCKED, values)


def uv_for(store: EnvironmentStore) -> Uv:
    """uv, with the cache and the log of this store. Raises EnvironmentFault."""
    store.make()
    return Uv(binary=find_uv(), cache=store.cache, log=store.log)


def _given(path: Path, host: HostLimits) -> Locked:
    known = matrix()
    lock = read_lock(path, known)
    refuse_misfit(lock, host)
    python = next(one for one in host.pythons if one.minor == lock.python)
    build = next((one for one in known.builds[lock.engine] if one.version == lock.version), None)
    return Locked(lock=lock, python=python, build=build, fresh=False)


def _kept(store: EnvironmentStore, build: EngineBuild, python: PythonAtHand, host: HostLimits) -> Lock | None:
    """The newest lock that is kept for the same release, Python and machine; what cannot be read is as none."""
    paths = sorted(store.locks.glob("*.lock"), key=lambda path: -path.stat().st_mtime)
    for path in paths:
        try:
            lock = read_lock(path, matrix())
        except EnvironmentFault:
            continue
        same = (lock.engine, lock.version, lock.python) == (build.engine, build.version, python.minor)
        if same and lock.misfits(host) is None:
            return lock
    return None


def _resolved(
    session: Session, store: EnvironmentStore, order: Order, choice: Choice, recipe: Recipe | None, host: HostLimits
) -> Locked:
    from gonogo.cli.progress import Progress

    assert choice.build is not None and choice.python is not None
    build = choice.build
    companions = (
        recipe.engines[build.engine].companions if recipe is not None and build.engine in recipe.engines else ()
    )
    requirements, overrides = companions_of([(one.package, one.versions) for one in companions], build)
    with Progress(session) as progress:
        progress.step("env.resolving", engine=build.title, version=build.version, python=choice.python.version)
        asked = LockOrder(build=build, python=choice.python, host=host, requirements=requirements, overrides=overrides)
        lock = make_lock(uv_for(store), asked, sources_here(order.wheels, order.offline), matrix())
    return Locked(lock=lock, python=choice.python, build=build, fresh=True)


def _range(versions: str | None) -> str:
    if versions is None:
        return ""
    text = f"=={versions}" if versions[:1].isdigit() else versions
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier:
        values = {"option": "--version", "words": f"{versions}: 0.19.0, '>=0.20,<0.30'"}
        raise Refusal("OptionMistaken", WRONG_INPUT, values) from None


def _is_python(one: PythonAtHand, asked: str) -> bool:
    return asked in (one.version, one.minor)
