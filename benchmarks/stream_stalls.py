"""Where the time of a stall goes: from the blow to the client's next piece, in the steps that it takes.

`noticed`: from the blow until the relay knew. `asked`: from then until it had asked another replica for the rest (its
questions about ids included). `prompt`: what that engine says that it computed the prompt and the answer so far for.
`waited`: the rest until the first piece, which is the wait for a free slot of that engine, and the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from rich.table import Table
from tests.acceptance.streams import Blow

LIMITS_MS = {"killed": 2000.0, "stopped": 5000.0, "loop stopped": 5000.0}
STEPS = ("whole", "noticed", "asked", "prompt", "waited")


@dataclass(frozen=True)
class Stall:
    """One stall, milliseconds."""

    kind: str
    whole: float
    noticed: float
    asked: float
    prompt: float
    waited: float


@dataclass(frozen=True)
class Step:
    """One column of one kind of blow."""

    kind: str
    step: str
    count: int
    p50_ms: float
    p99_ms: float
    limit_ms: float


def stalls(traced: Mapping[str, Any], records: Mapping[str, Any], struck: Sequence[Blow]) -> list[Stall]:
    """Of every loss that was followed by a piece, and whose blow is known: the last one on its replica before it."""
    found: list[Stall] = []
    for request_id, trace in traced.items():
        attempts = records[request_id]["attempts"]
        for number, loss in enumerate(trace["losses"]):
            blow = _blow(loss, struck)
            if blow is None or loss["first"] is None or number + 1 >= len(attempts):
                continue
            prompt_ms = attempts[number + 1].get("prompt_ms") or 0.0
            after_ms = 1000 * (loss["first"] - loss["asked"])
            found.append(
                Stall(
                    kind=blow.kind,
                    whole=1000 * (loss["first"] - blow.at),
                    noticed=1000 * (loss["noticed"] - blow.at),
                    asked=1000 * (loss["asked"] - loss["noticed"]),
                    prompt=prompt_ms,
                    waited=max(0.0, after_ms - prompt_ms),
                )
            )
    return found


def steps(some: Sequence[Stall]) -> list[Step]:
    """Percentiles of each step by kind of blow."""
    found: list[Step] = []
    for kind, limit_ms in LIMITS_MS.items():
        those = [one for one in some if one.kind == kind]
        for step in STEPS if those else ():
            values = sorted(getattr(one, step) for one in those)
            p50, p99 = (round(values[min(len(values) - 1, int(share * len(values)))]) for share in (0.5, 0.99))
            found.append(Step(kind, step, len(values), p50, p99, limit_ms))
    return found


def shown(some: Sequence[Mapping[str, Any]]) -> Table:
    """For a terminal: p50 / p99 of each step."""
    table = Table(title="stall of a client, ms, p50 / p99")
    for name in ("replica", "streams", "limit", *STEPS):
        table.add_column(name, justify="left" if name == "replica" else "right")
    for kind in LIMITS_MS:
        those = {one["step"]: one for one in some if one["kind"] == kind}
        if those:
            first = those["whole"]
            cells = [f"{those[step]['p50_ms']:.0f} / {those[step]['p99_ms']:.0f}" for step in STEPS]
            table.add_row(kind, str(first["count"]), f"{first['limit_ms']:.0f}", *cells)
    return table


def _blow(loss: Mapping[str, Any], struck: Sequence[Blow]) -> Blow | None:
    index = None if loss["replica"] is None else int(loss["replica"].rpartition("/")[2])
    before = [blow for blow in struck if blow.replica == index and blow.at < loss["noticed"]]
    return before[-1] if before else None
