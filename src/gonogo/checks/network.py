"""Condition 4, the network: the port, what Envoy acknowledged, replicas that generate, failover. Pure."""

from __future__ import annotations

from typing import Iterator

from gonogo.checks import parts
from gonogo.checks.external import servers_ready
from gonogo.checks.finding import Check, Condition, Finding, Stage, Verdict
from gonogo.engines.exits import FINAL
from gonogo.engines.size import replicas_wanted
from gonogo.engines.table import load_limit_s
from gonogo.facts.replica import LOADS_TOO_LONG, Deaths, Health
from gonogo.facts.world import World
from gonogo.spec import Revision

CRASH_LOOP_DEATHS = 3


def port_free(revision: Revision, world: World) -> Iterator[Finding]:
    """Can the gateway listen where it should? `listening` holds other people's sockets only."""
    gateway = revision.spec.gateway
    subject = f"port/{gateway.port}"
    listening = world.host.listening if world.host else None
    values: dict[str, str | int | None] = {"address": gateway.address, "port": gateway.port}
    if listening is None:
        yield Finding(reason="PortUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
        return
    for holder in listening:
        if holder.port == gateway.port and _overlaps(holder.address, gateway.address):
            values |= {"pid": holder.pid, "command": holder.command}
            yield Finding(reason="PortTaken", verdict=Verdict.FAIL, subject=subject, values=values)
            return
    yield Finding(reason="PortFree", verdict=Verdict.PASS, subject=subject, values=values)


def _overlaps(one: str, other: str) -> bool:
    anywhere = ("0.0.0.0", "::", "*")
    return one == other or one in anywhere or other in anywhere


def gateway_accepted(_: Revision, world: World) -> Iterator[Finding]:
    """Did Envoy acknowledge every resource (ACK, not just sent)?"""
    resources = world.gateway.resources if world.gateway else None
    if resources is None:
        yield Finding(reason="GatewayUnknownState", verdict=Verdict.UNKNOWN, subject="gateway")
        return
    refused = [resource for resource in resources if resource.nack is not None]
    pending = [resource for resource in resources if resource.nack is None and not resource.acked]
    names = ", ".join(resource.type_url.rpartition(".")[2] for resource in refused or pending or resources)
    if refused:
        values = {"types": names, "words": refused[0].nack}
        yield Finding(reason="GatewayRefused", verdict=Verdict.FAIL, subject="gateway", values=values)
    elif pending:
        values = {"types": names, "words": ""}
        yield Finding(reason="GatewayUnknownState", verdict=Verdict.UNKNOWN, subject="gateway", values=values)
    else:
        yield Finding(reason="GatewayAccepted", verdict=Verdict.PASS, subject="gateway", values={"types": names})


def replicas_ready(revision: Revision, world: World) -> Iterator[Finding]:
    """Do all wanted replicas generate? If not, which one, and what were its last words?"""
    subject = f"service/{revision.service}"
    if world.replicas is None:
        yield Finding(reason="ReplicasUnknown", verdict=Verdict.UNKNOWN, subject=subject)
        return
    if revision.spec.external:
        yield servers_ready(revision, world)
        return
    wanted = replicas_wanted(revision, world)
    mine = [
        one for one in world.replicas if (one.name.service, one.name.revision) == (revision.service, revision.number)
    ]
    ready = sum(1 for one in mine if one.health is Health.READY)
    values: dict[str, str | int | None] = {"ready": ready, "wanted": wanted}
    if ready >= wanted:
        yield Finding(reason="ReplicasReady", verdict=Verdict.PASS, subject=subject, values=values)
        return
    for one in mine:
        if one.health is Health.HUNG:
            values |= {"replica": str(one.name)}
            yield Finding(reason="ReplicaHung", verdict=Verdict.FAIL, subject=subject, values=values)
            return
    for index in range(wanted):
        deaths = world.deaths.get(f"{revision.name}/{index}")
        if deaths is None:
            continue
        values |= {
            "replica": f"{revision.name}/{index}",
            "restarts": deaths.count,
            "why": deaths.why,
            "last_lines": "\n".join(deaths.last_log_lines[-5:]),
        }
        values |= {"limit_s": round(load_limit_s(revision.spec))}
        yield Finding(
            reason=hopeless(deaths) or "ReplicasMissing",
            verdict=Verdict.FAIL,
            subject=subject,
            values=values,
        )
        return
    values |= {"replica": None, "restarts": 0, "why": "", "last_lines": ""}
    yield Finding(reason="ReplicasMissing", verdict=Verdict.FAIL, subject=subject, values=values)


def hopeless(deaths: Deaths) -> str | None:
    """The reason why a replica that never served is not to be started again; None: it may be."""
    if deaths.why == LOADS_TOO_LONG:
        return "ReplicaLoadsTooLong"
    if deaths.why in FINAL:
        return "ReplicaCannotStart"
    return "ReplicaCrashLooping" if deaths.count >= CRASH_LOOP_DEATHS else None


def failover(revision: Revision, world: World) -> Iterator[Finding]:
    """Does the service survive the death of one replica?"""
    replicas = replicas_wanted(revision, world)
    several = replicas > 1
    yield Finding(
        reason="FailoverReady" if several else "NoFailover",
        verdict=Verdict.PASS if several else Verdict.FAIL,
        subject=f"service/{revision.service}",
        values={"replicas": replicas},
    )


CHECKS = (
    Check(
        name="port_free",
        condition=Condition.NETWORK,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("PortFree", "PortTaken", "PortUnknown"),
        ask=port_free,
    ),
    Check(
        name="failover",
        condition=Condition.NETWORK,
        stages=(Stage.PREFLIGHT, Stage.LIVE),
        blocks=False,
        reasons=("FailoverReady", "NoFailover"),
        ask=failover,
    ),
    Check(
        name="gateway_accepted",
        condition=Condition.NETWORK,
        stages=(Stage.DEPLOY, Stage.LIVE),
        blocks=True,
        reasons=("GatewayAccepted", "GatewayRefused", "GatewayUnknownState"),
        ask=gateway_accepted,
    ),
    Check(
        name="replicas_ready",
        condition=Condition.NETWORK,
        stages=(Stage.DEPLOY, Stage.LIVE),
        blocks=True,
        reasons=(
            *("ReplicasReady", "ReplicasMissing", "ReplicaCannotStart", "ReplicaCrashLooping", "ReplicaLoadsTooLong"),
            *("ReplicaHung", "ExternalReady", "ExternalNoneAnswers", "ReplicasUnknown"),
        ),
        ask=replicas_ready,
    ),
    *parts.CHECKS,
)
