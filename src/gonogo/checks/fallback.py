"""A hosted API as fallback: is its key private (security), is it in use now (network)? Pure."""

from __future__ import annotations

from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.facts.world import World
from gonogo.spec import Revision


def fallback_key(revision: Revision, world: World) -> Iterator[Finding]:
    """Is the key of the fallback there, one word, and readable by its owner alone?"""
    fallback, subject = revision.spec.fallback, f"service/{revision.service}"
    if fallback is None:
        yield _not_asked(subject)
        return
    seen = world.key_files.get(fallback.key_file)
    values: dict[str, Value] = {"path": fallback.key_file, "why": seen.trouble if seen is not None else None}
    if seen is None:
        yield Finding(reason="FallbackKeyUnseen", verdict=Verdict.UNKNOWN, subject=subject, values=values)
    elif seen.owner_only is False:
        yield Finding(reason="FallbackKeyExposed", verdict=Verdict.FAIL, subject=subject, values=values)
    elif seen.trouble is not None:
        yield Finding(reason="FallbackKeyUnusable", verdict=Verdict.FAIL, subject=subject, values=values)
    else:
        yield Finding(reason="FallbackKeyPrivate", verdict=Verdict.PASS, subject=subject, values=values)


def fallback_in_use(revision: Revision, world: World) -> Iterator[Finding]:
    """Do requests leave the house now, because no replica is well?"""
    fallback, subject = revision.spec.fallback, f"service/{revision.service}"
    if fallback is None:
        yield _not_asked(subject)
        return
    away = world.fallen_back.get(revision.name)
    values: dict[str, Value] = {"url": fallback.url, "model": fallback.model}
    if away is None:
        yield Finding(reason="FallbackUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
        return
    yield Finding(
        reason="FallbackInUse" if away else "FallbackIdle",
        verdict=Verdict.FAIL if away else Verdict.PASS,
        subject=subject,
        values=values,
    )


def _not_asked(subject: str) -> Finding:
    return Finding(
        reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values={"why": "NoFallback"}
    )


CHECKS = (
    Check(
        name="fallback_key",
        condition=Condition.SECURITY,
        stages=(Stage.PREFLIGHT, Stage.LIVE),
        blocks=True,
        reasons=("FallbackKeyPrivate", "FallbackKeyExposed", "FallbackKeyUnusable", "FallbackKeyUnseen"),
        ask=fallback_key,
    ),
    Check(
        name="fallback_in_use",
        condition=Condition.NETWORK,
        stages=(Stage.LIVE,),
        blocks=False,
        reasons=("FallbackIdle", "FallbackInUse", "FallbackUnknown"),
        ask=fallback_in_use,
    ),
)
