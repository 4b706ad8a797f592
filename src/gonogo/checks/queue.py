"""Condition 4, the network: the queue's server, where the spec names one of other people's. Pure."""

from __future__ import annotations

from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Verdict
from gonogo.facts.world import World
from gonogo.spec import Revision

_REASON_OF = {
    "queue_silent": "QueueServerSilent",
    "queue_refuses": "QueueServerRefuses",
    "queue_password_file": "QueuePasswordUnreadable",
}


def queue_server(revision: Revision, world: World) -> Iterator[Finding]:
    """Does the server answer that the queue's bell hangs on? Without it tasks are kept, and wait."""
    queue = revision.spec.queue
    if queue is None or queue.url is None:
        yield Finding(
            reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject="queue", values={"why": "queue_own"}
        )
        return
    facts = world.queue_servers.get(queue)
    values = {"url": queue.url, "file": queue.password_file}
    if facts is None:
        yield Finding(reason="QueueServerUnknown", verdict=Verdict.UNKNOWN, subject="queue", values=values)
    elif facts.trouble is None:
        yield Finding(reason="QueueServerAnswers", verdict=Verdict.PASS, subject="queue", values=values)
    else:
        reason, told = _REASON_OF[facts.trouble], {**values, "detail": facts.detail}
        yield Finding(reason=reason, verdict=Verdict.FAIL, subject="queue", values=told)


def queue_shared(revision: Revision, world: World) -> Iterator[Finding]:
    """Does every service name the same server? There is one queue, however many services ask for it."""
    mine = revision.spec.queue
    if mine is None:
        yield Finding(
            reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject="queue", values={"why": "queue_not_named"}
        )
        return
    for service, theirs in sorted(world.queues.items()):
        if service != revision.service and theirs != mine:
            values = {"url": mine.url, "other": service, "other_url": theirs.url}
            yield Finding(reason="QueueDiffers", verdict=Verdict.FAIL, subject="queue", values=values)
            return
    yield Finding(reason="QueueShared", verdict=Verdict.PASS, subject="queue", values={"url": mine.url})


CHECKS = (
    Check(
        name="queue_shared",
        condition=Condition.NETWORK,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("QueueShared", "QueueDiffers", "NotApplicable"),
        ask=queue_shared,
    ),
    Check(
        name="queue_server",
        condition=Condition.NETWORK,
        stages=(Stage.PREFLIGHT, Stage.LIVE),
        blocks=False,
        reasons=(
            *("QueueServerAnswers", "QueueServerSilent", "QueueServerRefuses", "QueuePasswordUnreadable"),
            *("QueueServerUnknown", "NotApplicable"),
        ),
        ask=queue_server,
    ),
)
