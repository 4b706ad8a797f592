"""The processes of a deployment beside Envoy, control and the replicas: which there are, and what was seen of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

POLICY = "policy"
RELAY = "relay"
VALKEY = "valkey"

PARTS: Mapping[str, int] = {POLICY: 2, RELAY: 2, VALKEY: 1}
"""Role → how many run, in the order in which they are ended. Each has a unix socket (`StatePaths.part_socket`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """One such process. `listening`: its socket accepts connections; None was not asked. `hung`: alive, and silent."""

    role: str
    index: int
    running: bool
    handle: str | None
    hung: bool = False
    listening: bool | None = None
