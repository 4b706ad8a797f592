"""Condition 4, the network: the processes beside the replicas, one row of a table for each check. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Mapping

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.facts.part import PARTS, POLICY, RELAY, RPC, TASKS, VALKEY, WORKER, PartFacts
from gonogo.facts.world import World
from gonogo.spec import Revision

Serving = Mapping[str, int]
"""Role → how many of its processes run, listen and answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A question about the parts of some roles. `reasons`: all serve, one is missing, nobody looked.

    `blocks`: whether interactive requests suffer without them. `values`: the numbers of a finding.
    """

    name: str
    roles: tuple[str, ...]
    reasons: tuple[str, str, str]
    blocks: bool
    values: Callable[[Revision, Serving], Mapping[str, Value]]


_ROWS = (
    _Row(
        name="policy_servers",
        roles=(POLICY,),
        reasons=("PolicyServersReady", "PolicyServersMissing", "PolicyServersUnknown"),
        blocks=True,
        values=lambda _, serving: {"running": serving[POLICY], "wanted": PARTS[POLICY]},
    ),
    _Row(
        name="relays",
        roles=(RELAY,),
        reasons=("RelaysReady", "RelaysMissing", "RelaysUnknown"),
        blocks=True,
        values=lambda _, serving: {"running": serving[RELAY], "wanted": PARTS[RELAY]},
    ),
    _Row(
        name="counters_shared",
        roles=(VALKEY,),
        reasons=("CountersShared", "CountersApart", "CountersUnknown"),
        blocks=False,
        values=lambda _, __: {"servers": PARTS[POLICY]},
    ),
    _Row(
        name="grpc_served",
        roles=(RPC,),
        reasons=("GrpcServed", "GrpcNotServed", "GrpcUnknown"),
        blocks=False,
        values=lambda revision, _: {"port": revision.spec.gateway.port},
    ),
    _Row(
        name="queue_runs",
        roles=(TASKS, WORKER),
        reasons=("QueueRuns", "QueueStands", "QueueUnknown"),
        blocks=False,
        values=lambda _, serving: {"part": next((role for role in (TASKS, WORKER) if not serving[role]), None)},
    ),
)


def _check(row: _Row) -> Check:
    well, missing, unknown = row.reasons

    def ask(revision: Revision, world: World) -> Iterator[Finding]:
        if world.parts is None:
            yield Finding(reason=unknown, verdict=Verdict.UNKNOWN, subject="gateway")
            return
        serving = {role: sum(one.role == role and _serves(one) for one in world.parts) for role in row.roles}
        enough = all(serving[role] >= PARTS[role] for role in row.roles)
        yield Finding(
            reason=well if enough else missing,
            verdict=Verdict.PASS if enough else Verdict.FAIL,
            subject="gateway",
            values=row.values(revision, serving),
        )

    return Check(
        name=row.name,
        condition=Condition.NETWORK,
        stages=(Stage.DEPLOY, Stage.LIVE),
        blocks=row.blocks,
        reasons=row.reasons,
        ask=ask,
    )


def _serves(part: PartFacts) -> bool:
    """A part that dies at each start is a process most of the time, and never a server."""
    return part.running and not part.hung and part.listening is not False


CHECKS = tuple(map(_check, _ROWS))
