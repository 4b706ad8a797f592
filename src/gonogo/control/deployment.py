"""What control holds of one state directory: its paths, processes, store, lease, and what it remembers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gonogo.facts.probe import ProbeFacts
from gonogo.facts.replica import Deaths, MemoryMeasured
from gonogo.runtimes.local import LocalRuntime
from gonogo.runtimes.paths import StatePaths
from gonogo.store.change import Change
from gonogo.store.store import Store

if TYPE_CHECKING:
    from gonogo.control.watch import ReplicaWatch


@dataclass(slots=True)
class Memory:
    """What control remembers between two looks; a new control process starts with none of it.

    `watches`, `measured` and `ending` are keyed by handle (`ending`: replicas that we end ourselves, whose end is no
    death), `deaths` by replica name, `probes` by service and revision. `published`: digest of the last snapshot.
    `ca_file`: what clients verify the gateway with; None: the system's own trust store.
    """

    watches: dict[str, ReplicaWatch] = field(default_factory=dict)
    deaths: dict[str, list[Deaths]] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    probes: dict[tuple[str, int], tuple[ProbeFacts, ...]] = field(default_factory=dict)
    published: str | None = None
    ca_file: str | None = None
    measured: dict[str, MemoryMeasured] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One per control process. `epoch` is the lease's fencing token: the store refuses an older one."""

    paths: StatePaths
    runtime: LocalRuntime
    store: Store
    epoch: int
    memory: Memory

    def change(
        self, actor: str = "control", principal: str = "control", request_id: str | None = None
    ) -> AbstractContextManager[Change]:
        """One fenced transaction of the store, with its events."""
        return self.store.change(epoch=self.epoch, actor=actor, principal=principal, request_id=request_id)
