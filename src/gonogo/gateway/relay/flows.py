"""When which replica last gave a piece to any stream of this relay, and how long its pauses are. Pure.

Not here: what follows from it (`silence`).
"""

from __future__ import annotations

from dataclasses import dataclass

REMEMBERED_S = 30.0
"""Pauses are remembered for one to two times as long."""
HUNG_FOR_S = 30.0
"""Then it is tried like any other: somebody has started it again, or Envoy's health checks have found it."""
MANY_PAUSES = 100
"""Of so many the longest is a measure, also of what a prompt does to the other streams."""
MOST_REPLICAS = 1024


@dataclass(slots=True, kw_only=True, eq=False)
class _Flow:
    last: float
    since: float
    longest_s: float = 0.0
    pauses: int = 0
    earlier_s: float = 0.0
    earlier_pauses: int = 0


class Flows:
    """Times are monotonic seconds, replicas are `service/revision/replica`."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._hung: dict[str, float] = {}

    def gave(self, replica: str, now: float, pause_s: float | None) -> None:
        """A piece came, after this pause; None: the pause says nothing of the replica."""
        self._hung.pop(replica, None)
        flow = self._flows.get(replica)
        if flow is None:
            self._forget()
            flow = self._flows[replica] = _Flow(last=now, since=now)
        flow.last = now
        if now - flow.since > REMEMBERED_S:
            just_now = now - flow.since <= 2 * REMEMBERED_S
            flow.earlier_s, flow.earlier_pauses = (flow.longest_s, flow.pauses) if just_now else (0.0, 0)
            flow.longest_s, flow.pauses, flow.since = 0.0, 0, now
        if pause_s is not None:
            flow.longest_s = max(flow.longest_s, pause_s)
            flow.pauses += 1

    def hangs(self, replica: str, now: float) -> None:
        """It was taken for hung."""
        self._hung[replica] = now

    def hung(self, now: float) -> frozenset[str]:
        """Those that were taken for hung not long ago and have given nothing to anybody since."""
        return frozenset(name for name, at in self._hung.items() if now - at <= HUNG_FOR_S)

    def last(self, replica: str) -> float | None:
        """When it gave its last piece."""
        flow = self._flows.get(replica)
        return None if flow is None else flow.last

    def longest_gap_s(self, replica: str) -> float:
        """The longest pause between two pieces of one of its streams, of the last minute."""
        flow = self._flows.get(replica)
        return 0.0 if flow is None else max(flow.longest_s, flow.earlier_s)

    def is_known(self, replica: str) -> bool:
        """Whether many of its pauses were seen of late."""
        flow = self._flows.get(replica)
        return flow is not None and flow.pauses + flow.earlier_pauses >= MANY_PAUSES

    def _forget(self) -> None:
        if len(self._flows) >= MOST_REPLICAS:
            oldest = min(self._flows, key=lambda name: self._flows[name].last)
            del self._flows[oldest]
            self._hung.pop(oldest, None)
