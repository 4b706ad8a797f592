"""What was seen of one running engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaName:
    """`service/revision/index`, used in every name: process, endpoint, log file, event."""

    service: str
    revision: int
    index: int

    def __str__(self) -> str:
        return f"{self.service}/{self.revision}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> ReplicaName:
        service, revision, index = text.rsplit("/", 2)
        return cls(service=service, revision=int(revision), index=int(index))


class Health(str, Enum):
    """starting: not one token yet. ready: generates. hung: alive, yet neither answers nor works. dead: gone."""

    STARTING = "starting"
    READY = "ready"
    HUNG = "hung"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMeasured:
    """What the engine printed of its buffers, in bytes, and of the tokens that its cache holds; the process's resident
    set."""

    weights_bytes: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_tokens: int | None = None
    compute_bytes: int | None = None
    output_bytes: int | None = None
    resident_bytes: int | None = None


LOADS_TOO_LONG = "LoadsTooLong"
"""Why a replica was ended that had not generated a token when its time for loading was over."""
FAILED_TO_START = "EngineFailedToStart"
"""Why a replica died whose log ends, while it starts, with an error that is not among those that are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaths:
    """How often a replica ended unasked of late, when last (Unix seconds), and the last lines of its log then."""

    count: int
    last_at: float
    why: str
    last_log_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFacts:
    """One engine process, with the children it has. `handle` is the runtime's own (a pid for the local runtime), None
    outside it. `devices`: the accelerators that it was given, by UUID or index. `ready_after_s`: from its start to its
    first token; None: not yet, or not seen.

    `url`: of an external replica, which is nobody's process here; its health is what the gateway found, `age_s` counts
    from when we first looked. None: one of ours.
    """

    name: ReplicaName
    host: str
    address: str
    port: int
    handle: str | None
    health: Health | None
    age_s: float
    restarts: int = 0
    requests_running: int | None = None
    requests_waiting: int | None = None
    tokens_generated: int | None = None
    last_log_lines: tuple[str, ...] = ()
    memory: MemoryMeasured | None = None
    listens_on: tuple[str, ...] | None = None
    devices: tuple[str, ...] = ()
    ready_after_s: float | None = None
    url: str | None = None
