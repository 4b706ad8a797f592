"""Ends everything of a state directory, also when control is dead: `gonogo down` must always work."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gonogo.facts.part import PARTS
from gonogo.runtimes.local import LocalRuntime, Process
from gonogo.runtimes.paths import StatePaths
from gonogo.store import open_store

STARTERS = ("control", "keeper")
ORDER = ("gateway", *reversed(tuple(PARTS)), "replica")
ROUNDS = 5
"""Keeper and control start each other again: both are ended until neither is found."""
PATIENCE_S = {"keeper": 2.0, "control": 5.0, "gateway": 3.0, **dict.fromkeys(PARTS, 3.0), "replica": 5.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenDown:
    """What was ended: (role, name, pid) of each process, the services removed, and what would not end."""

    ended: tuple[tuple[str, str, int], ...]
    services: tuple[str, ...]
    left: tuple[tuple[str, str, int], ...]


def take_down(paths: StatePaths, principal: str) -> TakenDown:
    """Remove every service and end every process: control and keeper first, so that nothing is started again."""
    services = _remove_services(paths, principal)
    runtime = LocalRuntime(paths.root)
    ended: list[tuple[str, str, int]] = []
    left: list[tuple[str, str, int]] = []
    for role in (*STARTERS * ROUNDS, *ORDER):
        for process in _of(runtime, role):
            # What control has started is asked to end, too, in its own order: a worker gives back what it holds.
            end = runtime.end_alone if role in STARTERS else runtime.end
            gone = end(process.handle, PATIENCE_S[role])
            (ended if gone else left).append((role, process.name, process.pid))
    runtime.sweep("replica", None, tuple(paths.logs.glob("replica-*.log")))
    return TakenDown(ended=tuple(ended), services=services, left=tuple(left))


def _of(runtime: LocalRuntime, role: str) -> tuple[Process, ...]:
    return tuple(process for process in runtime.scan() if process.role == role)


def _remove_services(paths: StatePaths, principal: str) -> tuple[str, ...]:
    if not paths.database.exists():
        return ()
    store = open_store(paths.database, clock=time.time)
    try:
        names = tuple(service.name for service in store.services())
        for name in names:
            with store.change(epoch=None, actor="cli", principal=principal) as change:
                change.remove_service(name)
        return names
    finally:
        store.close()
