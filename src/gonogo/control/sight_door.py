"""The front door as facts: Envoy and the parts beside it, which of them run, listen or hang, and since when.

Not here: watching them (`parts`), and what the gateway acknowledged (`gonogo.gateway.ads`).
"""

from __future__ import annotations

import socket
import time
from typing import Callable, Iterable, Sequence

from gonogo.control.deployment import Deployment
from gonogo.control.parts import PartsWatch
from gonogo.facts.gateway import GatewayFacts, ResourceStatus
from gonogo.facts.part import PARTS, PartFacts
from gonogo.plan.model import DesiredService
from gonogo.runtimes.local import Process

DOOR_EVERY_S = 5.0
PART_STARTS_S = 10.0
"""A part that does not listen yet is waited for before anything is judged; one that dies at each start is not."""


class DoorSight:
    """What was seen last is kept: doors that were open for a while, parts since they went away."""

    def __init__(
        self,
        deployment: Deployment,
        gateway_status: Callable[[], tuple[ResourceStatus, ...] | None],
        watch: PartsWatch,
    ) -> None:
        self._paths = deployment.paths
        self._memory = deployment.memory
        self._gateway_status = gateway_status
        self._watch = watch
        self._door_seen = (frozenset[tuple[str, int]](), 0.0)
        self._away_since: dict[tuple[str, int], float] = {}

    def gateway(self, processes: Iterable[Process], services: Sequence[DesiredService]) -> GatewayFacts:
        """Envoy: whether it runs, answers, and listens where every service wants it."""
        envoy = next((process for process in processes if process.role == "gateway"), None)
        doors = frozenset((one.desired.spec.gateway.address, one.desired.spec.gateway.port) for one in services)
        return GatewayFacts(
            running=envoy is not None,
            handle=envoy.handle if envoy else None,
            resources=self._gateway_status(),
            listening=self._listening(doors) if envoy else False,
            published=self._memory.published,
            hung=envoy is not None and self._watch.hung(envoy.handle),
        )

    def parts(self, processes: Iterable[Process]) -> tuple[PartFacts, ...]:
        """Each part that there must be, also one that does not run."""
        found = {(one.role, one.name): one for one in processes}
        return tuple(
            self._part(role, index, found.get((role, str(index)))) for role, n in PARTS.items() for index in range(n)
        )

    def _part(self, role: str, index: int, process: Process | None) -> PartFacts:
        listening = process is not None and _accepts(str(self._paths.part_socket(role, index)))
        now = time.monotonic()
        away_since = now if listening else self._away_since.get((role, index), now)
        self._away_since[role, index] = away_since
        return PartFacts(
            role=role,
            index=index,
            running=process is not None,
            handle=process.handle if process else None,
            listening=listening,
            starting=not listening and now - away_since < PART_STARTS_S,
            hung=process is not None and self._watch.hung(process.handle),
        )

    def _listening(self, doors: frozenset[tuple[str, int]]) -> bool:
        """Whether every listener accepts connections; asked again each 5 s, not at every look."""
        seen, at = self._door_seen
        if doors == seen and time.monotonic() - at < DOOR_EVERY_S:
            return bool(doors)
        open_doors = bool(doors) and all(_answers(address, port) for address, port in doors)
        if open_doors:
            self._door_seen = (doors, time.monotonic())
        return open_doors


def _answers(address: str, port: int) -> bool:
    """Whether somebody accepts connections there; loopback, so it takes microseconds."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    try:
        with socket.create_connection((target, port), timeout=0.3):
            return True
    except OSError:
        return False


def _accepts(socket_path: str) -> bool:
    """Whether somebody accepts connections on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.3)
        try:
            probe.connect(socket_path)
        except OSError:
            return False
    return True
