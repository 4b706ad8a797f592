"""When which replica last gave a piece to any stream of this relay, and how long its pauses are. Pure.

Not here: what follows from it (`silence`).
"""

from __future__ import annotations

from dataclasses import dataclass

FLOWS_S = 1.0
"""A replica that gave a piece so recently goes on."""
REMEMBERED_S = 30.0
"""Pauses are remembered for one to two times as long."""
MANY_PAUSES = 200
"""Of so many the longest is a measure, also of what a prompt does to the other streams."""
MOST_REPLICAS = 1024


@dataclass(slots=True, kw_only=True, eq=False)
class _Flow:
    last: float
    longest_s: float = 0.0
    earlier_s: float = 0.0
    since: float = 0.0
    pauses: int = 0


class Flows:
    """Times are monotonic seconds, replicas are `service/revision/replica`."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._hung: set[str] = set()

    def gave(self, replica: str, now: float, pause_s: float | None) -> None:
        """A piece came, after this pause; None: it was the first, so that the pause is a prompt's."""
        self._hung.discard(replica)
        flow = self._flows.get(replica)
        if flow is None:
            self._forget()
            flow = self._flows[replica] = _Flow(last=now, since=now)
        flow.last = now
        if now - flow.since > REMEMBERED_S:
            flow.earlier_s, flow.longest_s, flow.since = flow.longest_s, 0.0, now
        if pause_s is not None:
            flow.longest_s = max(flow.longest_s, pause_s)
            flow.pauses += 1

    def hangs(self, replica: str) -> None:
        """It was taken for hung."""
        self._hung.add(replica)

    @property
    def hung(self) -> frozenset[str]:
        """Those that have given nothing to anybody since they were taken for hung."""
        return frozenset(self._hung)

    def last(self, replica: str) -> float | None:
        """When it gave its last piece."""
        flow = self._flows.get(replica)
        return None if flow is None else flow.last

    def longest_gap_s(self, replica: str) -> float:
        """The longest pause between two pieces of one of its streams, of the last minutes."""
        flow = self._flows.get(replica)
        return 0.0 if flow is None else max(flow.longest_s, flow.earlier_s)

    def is_known(self, replica: str) -> bool:
        """Whether many of its pauses were seen."""
        flow = self._flows.get(replica)
        return flow is not None and flow.pauses >= MANY_PAUSES

    def others_go_on(self, replica: str, now: float) -> bool:
        """Whether another replica of its revision gives pieces."""
        revision = replica.rpartition("/")[0]
        return any(
            name != replica and name.rpartition("/")[0] == revision and now - flow.last <= FLOWS_S
            for name, flow in self._flows.items()
        )

    def _forget(self) -> None:
        if len(self._flows) >= MOST_REPLICAS:
            oldest = min(self._flows, key=lambda name: self._flows[name].last)
            del self._flows[oldest]
            self._hung.discard(oldest)
