"""From what probes saw to findings: one per fact that should be there, and what is missing is unknown. Pure.

A probe is a `ProbeFacts` whose `name` is the check's, or the check's, a colon and the name of the spec's probe
(`answers_right:sum`; of several screens each has its own). One that needs images where the model sees none does not
apply, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Mapping

from gonogo.checks.answers import names_of, needs_images
from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.facts.probe import ProbeFacts
from gonogo.facts.world import World
from gonogo.spec import Revision

Seen = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """`reason` is given by what was seen; `reasons` are all there are: the first passes, the last is unknown.

    `general`: asked of every service, beside what its spec asks. `none`: why it does not apply where nobody asks.
    """

    name: str
    reasons: tuple[str, ...]
    reason: Callable[[Seen], str]
    general: bool
    none: str = "NoSuchProbe"


def probe_check(condition: Condition, judge: Judge) -> Check:
    """A check that blocks, before traffic is given and while the service lives."""

    def ask(revision: Revision, world: World) -> Iterator[Finding]:
        return _findings(judge, revision, world)

    return Check(
        name=judge.name,
        condition=condition,
        stages=(Stage.DEPLOY, Stage.LIVE),
        blocks=True,
        reasons=judge.reasons,
        ask=ask,
    )


def sees_no_images(revision: Revision, world: World) -> bool:
    """Whether it is known that the model has no image encoder; a model that was not seen may have one."""
    model = world.model_of(revision.spec)
    return model is not None and model.sees_images is False


def _findings(judge: Judge, revision: Revision, world: World) -> Iterator[Finding]:
    subject = f"service/{revision.service}"
    facts = {one.name: one for one in world.probes or () if _of(one, revision)}
    mine = [probe for probe in revision.spec.probes if names_of(probe)[0].partition(":")[0] == judge.name]
    if judge.general:
        yield _finding(judge, judge.name, facts, subject)
    elif not mine:
        yield _not_applicable(subject, {"why": judge.none})
    for probe in mine:
        if needs_images(probe) and sees_no_images(revision, world):
            yield _not_applicable(subject, {"why": "ModelSeesNoImages", "probe": probe.name})
        else:
            for name in names_of(probe):
                yield _finding(judge, name, facts, subject)


def _not_applicable(subject: str, values: Seen) -> Finding:
    return Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values=values)


def _finding(judge: Judge, name: str, facts: Mapping[str, ProbeFacts], subject: str) -> Finding:
    fact, probe = facts.get(name), name.partition(":")[2]
    error = "not asked yet" if fact is None else fact.error
    if fact is None or error is not None:
        values: Seen = {"probe": probe, "error": error}
        return Finding(reason=judge.reasons[-1], verdict=Verdict.UNKNOWN, subject=subject, values=values)
    reason = judge.reason(fact.seen)
    verdict = Verdict.PASS if reason == judge.reasons[0] else Verdict.FAIL
    return Finding(reason=reason, verdict=verdict, subject=subject, values={"probe": probe, **fact.seen})


def _of(fact: ProbeFacts, revision: Revision) -> bool:
    return (fact.service, fact.revision) == (revision.service, revision.number)
