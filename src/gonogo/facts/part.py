"""The processes of a deployment beside Envoy, control and the replicas: which there are, and what was seen of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

POLICY = "policy"
RELAY = "relay"
RPC = "rpc"
VALKEY = "valkey"
TASKS = "tasks"
WORKER = "worker"

PARTS: Mapping[str, int] = {VALKEY: 1, POLICY: 2, RELAY: 2, RPC: 1, TASKS: 1, WORKER: 1}
"""Role → how many run, in the order in which they are started; ended the other way round. Each has a unix socket."""

COUNTERS_DB = 1
"""The database of Valkey in which policy servers count; the first one is for queues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """One such process. `listening`: its socket accepts connections; None was not asked. `hung`: alive, and silent.

    `starting`: it does not listen, and not for so long that it should by now, whether it died or was never there.
    """

    role: str
    index: int
    running: bool
    handle: str | None
    hung: bool = False
    listening: bool | None = None
    starting: bool = False
