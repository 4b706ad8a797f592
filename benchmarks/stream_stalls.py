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
EXPLAINS_S = 12.0
"""A stopped replica is killed after six seconds."""
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


def stalls(traced: Mapping[str, Any], records: Mapping[str, Any], struck: Sequence[Blow]) -> tuple[list[Stall], int]:
    """Of every loss that a blow explains and that was followed by a piece; and how many losses no blow explains."""
    found: list[Stall] = []
    unexplained = 0
    for request_id, trace in traced.items():
        attempts = records[request_id]["attempts"]
        for loss, lost, after in zip(trace["losses"], attempts, attempts[1:], strict=False):
            blow = _blow(loss, struck)
            unexplained += blow is None
            if blow is not None and loss["first"] is not None:
                found.append(_stall(blow, loss, lost, after))
    return found, unexplained


def _stall(blow: Blow, loss: Mapping[str, Any], lost: Mapping[str, Any], after: Mapping[str, Any]) -> Stall:
    began = max(blow.at, loss["noticed"] - lost["ms"] / 1000)  # a hung replica is also sent new requests
    prompt_ms = after["prompt_ms"] or 0.0
    return Stall(
        kind=blow.kind,
        whole=1000 * (loss["first"] - began),
        noticed=1000 * (loss["noticed"] - began),
        asked=1000 * (loss["asked"] - loss["noticed"]),
        prompt=prompt_ms,
        waited=max(0.0, 1000 * (loss["first"] - loss["asked"]) - prompt_ms),
    )


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
    for name in ("replica", "streams", "limit", "kept", *STEPS):
        table.add_column(name, justify="left" if name == "replica" else "right")
    for kind in LIMITS_MS:
        those = {one["step"]: one for one in some if one["kind"] == kind}
        if those:
            first = those["whole"]
            cells = [f"{those[step]['p50_ms']:.0f} / {those[step]['p99_ms']:.0f}" for step in STEPS]
            kept = "yes" if first["p99_ms"] <= first["limit_ms"] else "NO"
            table.add_row(kind, str(first["count"]), f"{first['limit_ms']:.0f}", kept, *cells)
    return table


def _blow(loss: Mapping[str, Any], struck: Sequence[Blow]) -> Blow | None:
    """The last one before it, on its replica where that is known, and not long ago."""
    named = loss["replica"] is not None
    index = int(loss["replica"].rpartition("/")[2]) if named else -1
    recent = (blow for blow in struck if 0 <= loss["noticed"] - blow.at <= EXPLAINS_S)
    return max((blow for blow in recent if not named or blow.replica == index), key=lambda one: one.at, default=None)
