"""Condition 4, the network, where the replicas are servers of other people: do they answer, and as which model? Pure.

What a check of our own replicas asks (memory, engine, model files) does not arise there; `of_own_replicas` says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.facts.replica import Health, ReplicaFacts
from gonogo.facts.server import ServerFacts
from gonogo.facts.world import World
from gonogo.spec import Revision

PATIENCE_S = 10.0
"""So long may all of them be silent before a revision that never served is given up."""


def of_own_replicas(check: Check) -> Check:
    """The same check, which does not apply to a service whose replicas are external."""

    def ask(revision: Revision, world: World) -> Iterator[Finding]:
        if revision.spec.external:
            yield _not_asked(revision, "ExternalReplicas")
        else:
            yield from check.ask(revision, world)

    return replace(check, ask=ask)


def external_servers(revision: Revision, world: World) -> Iterator[Finding]:
    """Does one of them answer at least, and does each that answers know the model by this name?"""
    if not revision.spec.external:
        yield _not_asked(revision, "OwnReplicas")
        return
    seen, subject = _asked(revision, world), f"service/{revision.service}"
    if any(facts is None for facts in seen):
        yield Finding(reason="ExternalServersUnseen", verdict=Verdict.UNKNOWN, subject=subject)
        return
    answering = [facts for facts in seen if facts is not None and facts.models is not None]
    wanted = revision.spec.served_as
    values: dict[str, Value] = {"answering": len(answering), "count": len(seen), "model": wanted}
    if not answering:
        first = next(facts for facts in seen if facts is not None)
        values |= {"url": first.url, "why": first.trouble, "detail": first.detail}
        yield Finding(reason="ExternalNoneAnswers", verdict=Verdict.FAIL, subject=subject, values=values)
        return
    for facts in answering:
        if wanted not in (facts.models or ()):
            listed = ", ".join((facts.models or ())[:8]) or "–"
            values |= {"url": facts.url, "listed": listed}
            yield Finding(
                reason="ExternalModelUnknown", verdict=Verdict.FAIL, subject=f"server/{facts.url}", values=values
            )
            return
    yield Finding(reason="ExternalServersAnswer", verdict=Verdict.PASS, subject=subject, values=values)


def external_servers_all(revision: Revision, world: World) -> Iterator[Finding]:
    """Which of them do not answer? The gateway passes over those, and looks again each half second."""
    if not revision.spec.external:
        yield _not_asked(revision, "OwnReplicas")
        return
    silent = _silent(revision, world)
    count = len(revision.spec.external)
    if silent is None:
        subject = f"service/{revision.service}"
        yield Finding(reason="ExternalServersUnseen", verdict=Verdict.UNKNOWN, subject=subject)
    elif not silent:
        subject = f"service/{revision.service}"
        yield Finding(reason="ExternalAllAnswer", verdict=Verdict.PASS, subject=subject, values={"count": count})
    for url, (why, detail) in (silent or {}).items():
        values: dict[str, Value] = {"url": url, "why": why, "detail": detail, "count": count}
        values["answering"] = count - len(silent or {})
        yield Finding(reason="ExternalSilent", verdict=Verdict.FAIL, subject=f"server/{url}", values=values)


def _silent(revision: Revision, world: World) -> dict[str, tuple[str | None, str | None]] | None:
    """URL → why, and what was seen, of the servers that do not answer; None: not all were looked at.

    By the gateway's own health checks where it has them, before that by our question.
    """
    found = _replicas(revision, world)
    if found and all(one.health is not None for one in found):
        return {str(one.url): ("gateway_health_check", None) for one in found if one.health is not Health.READY}
    seen = _asked(revision, world)
    if any(facts is None for facts in seen):
        return None
    troubled = [facts for facts in seen if facts is not None and facts.models is None]
    return {facts.url: (facts.trouble, facts.detail) for facts in troubled}


def external_encrypted(revision: Revision, _: World) -> Iterator[Finding]:
    """Do prompts and pictures leave this host encrypted?"""
    if not revision.spec.external:
        yield _not_asked(revision, "OwnReplicas")
        return
    open_ = [one.url for one in revision.spec.external if one.scheme == "http" and not one.on_this_host]
    yield Finding(
        reason="ExternalInClear" if open_ else "ExternalEncrypted",
        verdict=Verdict.FAIL if open_ else Verdict.PASS,
        subject=f"service/{revision.service}",
        values={"urls": ", ".join(open_), "count": len(revision.spec.external)},
    )


def servers_ready(revision: Revision, world: World) -> Finding:
    """`replicas_ready` of external ones: as long as one is well, requests are answered."""
    found, subject = _replicas(revision, world), f"service/{revision.service}"
    ready = sum(1 for one in found if one.health is Health.READY)
    count = len(revision.spec.external)
    values: dict[str, Value] = {"answering": ready, "count": count, "ready": ready, "wanted": count}
    if ready:
        return Finding(reason="ExternalReady", verdict=Verdict.PASS, subject=subject, values=values)
    if len(found) < count or any(one.health is None for one in found):
        return Finding(reason="ReplicasUnknown", verdict=Verdict.UNKNOWN, subject=subject)
    return _none_answers(revision, found)


def all_silent(revision: Revision, world: World) -> Finding | None:
    """Why a revision that never served is given up: the gateway found none of its servers well for a while."""
    found = _replicas(revision, world)
    silent = bool(found) and all(one.health is Health.DEAD and one.age_s >= PATIENCE_S for one in found)
    return _none_answers(revision, found) if silent else None


def _none_answers(revision: Revision, found: tuple[ReplicaFacts, ...]) -> Finding:
    values: dict[str, Value] = {
        "answering": 0,
        "count": len(found),
        "ready": 0,
        "wanted": len(found),
        "model": revision.spec.served_as,
        "url": found[0].url,
        "why": "gateway_health_check",
        "detail": None,
    }
    subject = f"service/{revision.service}"
    return Finding(reason="ExternalNoneAnswers", verdict=Verdict.FAIL, subject=subject, values=values)


def _replicas(revision: Revision, world: World) -> tuple[ReplicaFacts, ...]:
    of_it = (revision.service, revision.number)
    return tuple(one for one in world.replicas or () if (one.name.service, one.name.revision) == of_it)


def _asked(revision: Revision, world: World) -> tuple[ServerFacts | None, ...]:
    """What each said, in the order of the spec; None: it was not asked."""
    ca_file = revision.spec.replicas.ca_file if revision.spec.replicas is not None else None
    return tuple(world.servers.get((one.url, ca_file)) for one in revision.spec.external)


def _not_asked(revision: Revision, why: str) -> Finding:
    subject = f"service/{revision.service}"
    return Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values={"why": why})


_BOTH = (Stage.PREFLIGHT, Stage.LIVE)
CHECKS = (
    Check(
        name="external_servers",
        condition=Condition.NETWORK,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("ExternalServersAnswer", "ExternalNoneAnswers", "ExternalModelUnknown", "ExternalServersUnseen"),
        ask=external_servers,
    ),
    Check(
        name="external_servers_all",
        condition=Condition.NETWORK,
        stages=_BOTH,
        blocks=False,
        reasons=("ExternalAllAnswer", "ExternalSilent", "ExternalServersUnseen"),
        ask=external_servers_all,
    ),
    Check(
        name="external_encrypted",
        condition=Condition.SECURITY,
        stages=_BOTH,
        blocks=False,
        reasons=("ExternalEncrypted", "ExternalInClear"),
        ask=external_encrypted,
    ),
)
