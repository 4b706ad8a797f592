"""Ends everything of a state directory, also when control is dead: `gonogo down` must always work."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

from gonogo.facts.part import PARTS
from gonogo.runtimes.local import LocalRuntime, Process
from gonogo.runtimes.paths import StatePaths
from gonogo.store import open_store
from gonogo.store.faults import StoreError

STARTERS = ("control", "keeper")
ORDER = ("gateway", *reversed(tuple(PARTS)), "replica")
ROUNDS = 5
"""Keeper and control start each other again: both are ended until neither is found."""
PATIENCE_S = {"keeper": 2.0, "control": 5.0, "gateway": 3.0, **dict.fromkeys(PARTS, 3.0), "replica": 5.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenDown:
    """What was ended: (role, name, pid) of each process, the services removed, and what would not end.

    `fault`: why it could not be recorded that the services are removed; None: it was.
    """

    ended: tuple[tuple[str, str, int], ...]
    services: tuple[str, ...]
    left: tuple[tuple[str, str, int], ...]
    fault: StoreError | None = None


def take_down(paths: StatePaths, principal: str) -> TakenDown:
    """Remove every service and end every process: control and keeper first, so that nothing is started again.

    The processes end also where the store takes nothing: whoever has to make room must be able to stop them.
    """
    services, fault = _remove_services(paths, principal)
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
    return TakenDown(ended=tuple(ended), services=services, left=tuple(left), fault=fault)


def _of(runtime: LocalRuntime, role: str) -> tuple[Process, ...]:
    return tuple(process for process in runtime.scan() if process.role == role)


def _remove_services(paths: StatePaths, principal: str) -> tuple[tuple[str, ...], StoreError | None]:
    """Those that were removed, and why the others were not."""
    removed: list[str] = []
    if not paths.database.exists():
        return (), None
    try:
        with closing(open_store(paths.database, clock=time.time)) as store:
            for service in store.services():
                with store.change(epoch=None, actor="cli", principal=principal) as change:
                    change.remove_service(service.name)
                removed.append(service.name)
    except StoreError as fault:
        return tuple(removed), fault
    return tuple(removed), None
