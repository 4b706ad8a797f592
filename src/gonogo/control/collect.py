"""Takes away environments of engines that nobody needs (`gonogo.plan.collect` says which), never one in use."""

from __future__ import annotations

import time
from functools import partial
from typing import Callable

from gonogo.control.sight_models import environments_of
from gonogo.facts.matrix import matrix
from gonogo.plan.collect import Uses, unused, uses_of
from gonogo.runtimes.environment_use import processes_in
from gonogo.runtimes.environments import EnvironmentStore, Made
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.uv import EnvironmentFault
from gonogo.spec import Revision
from gonogo.store import open_store
from gonogo.store.store import Store

PROMOTIONS_READ = 100


def uses_in(store: Store) -> Uses:
    """Which revisions need which environment, as the store says."""
    services = store.services()
    before = {service.name: _before(store, service.name, service.serving) for service in services}
    return uses_of(services, {name: revision for name, revision in before.items() if revision is not None})


def uses_here(paths: StatePaths) -> Uses:
    """The same for a command; nothing was deployed where there is no database. Raises StoreError."""
    if not paths.database.exists():
        return {}
    store = open_store(paths.database, clock=time.time)
    try:
        return uses_in(store)
    finally:
        store.close()


def unused_here(environments: EnvironmentStore, uses: Uses, now: float) -> tuple[Made, ...]:
    """Those that may go now, with what they hold on the disk. Changes nothing."""
    agents = frozenset(engine for engine, builds in matrix().builds.items() if any(build.agent for build in builds))
    names = unused(tuple(environments_of(environments).values()), uses, agents, now)
    return tuple(made for made in environments.all() if made.name in names and not processes_in(made.path))


def collect(environments: EnvironmentStore, uses: Uses, now: float, tell: Callable[[Made], None]) -> tuple[Made, ...]:
    """Take them away; `tell` is called after each. One that somebody makes, uses or asks for meanwhile stays."""
    for name in uses:
        environments.touch(name)
    gone: list[Made] = []
    for made in unused_here(environments, uses, now):
        try:
            if environments.remove(made.name, 0.0, partial(_still_unused, environments, made)):
                gone.append(made)
                tell(made)
        except EnvironmentFault:  # somebody holds it, or a file cannot be removed: another time
            continue
    return tuple(gone)


def _still_unused(environments: EnvironmentStore, made: Made) -> bool:
    now = environments.find(made.name)
    return now is not None and now.used_at == made.used_at and not processes_in(made.path)


def _before(store: Store, service: str, serving: Revision | None) -> Revision | None:
    """The revision that served before this one, by the last promotion of this one."""
    if serving is None:
        return None
    for event in reversed(store.latest_events(PROMOTIONS_READ, kind="RevisionPromoted", service=service)):
        if event.revision == serving.number:
            number = event.detail.get("before")
            return store.revision(service, number) if isinstance(number, int) else None
    return None
