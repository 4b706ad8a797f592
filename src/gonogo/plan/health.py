"""Is a replica well? Judged from a short history of looks: pure, so that each rule has its test.

A busy replica is not a sick one: as long as it answers, computes or gives tokens it is left alone. Measured:
SIGSTOP leaves an engine that answers nothing and uses no CPU; overload leaves one that answers late and computes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gonogo.facts.replica import Health

STILL_S = 1.5
"""No CPU used for so long, and unanswered looks: stopped or dead-locked."""
STUCK_S = 45.0
"""Busy for so long without one token or prompt token more: spinning."""
SEEING_STUCK_S = 600.0
"""The same where pictures are read: no counter moves while one is encoded, which takes minutes on a CPU."""
LOOKS_STOPPED, LOOKS_SILENT, LOOKS_BROKEN = 2, 3, 2
"""Unanswered looks in a row until the verdict: when the kernel says it is stopped, otherwise, and when it answers that
it is broken. vLLM does so 0.2 s after its engine process was killed, and ends 4.8 s after it (measured, 0.32.0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a replica.

    `answered`: /health in time and well. `broken`: it answered that it is not well, which while it loads is no news, or
    one of its processes is gone.
    `shared`: another program listens on its port too. `cpu_s`: CPU seconds used so far. `tokens`: all counters summed.
    """

    at: float
    answered: bool
    stopped: bool
    cpu_s: float
    tokens: int | None
    busy: bool | None
    broken: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the looks so far amount to. Times are those of the looks."""

    born_at: float
    load_limit_s: float
    stuck_s: float = STUCK_S
    generated_at: float | None = None
    unanswered: int = 0
    broken: int = 0
    shared: bool = False
    stopped: bool = False
    cpu_s: float = -1.0
    cpu_moved_at: float = 0.0
    tokens: int = -1
    progress_at: float = 0.0
    last_at: float = 0.0


def add(history: History, look: Look) -> History:
    """The history with one more look."""
    moved = look.cpu_s > history.cpu_s + 0.001
    progressed = look.busy is False or (look.tokens is not None and look.tokens != history.tokens)
    return replace(
        history,
        unanswered=0 if look.answered else history.unanswered + 1,
        broken=history.broken + 1 if look.broken else 0,
        shared=history.shared or look.shared,
        stopped=look.stopped,
        cpu_s=look.cpu_s,
        cpu_moved_at=look.at if moved else history.cpu_moved_at,
        tokens=history.tokens if look.tokens is None else look.tokens,
        progress_at=look.at if progressed or history.progress_at == 0.0 else history.progress_at,
        last_at=look.at,
    )


def generated(history: History, at: float) -> History:
    """The history after the replica generated a token for us."""
    return replace(history, generated_at=at, progress_at=at)


def judge(history: History) -> Health | None:
    """The verdict as of the last look; None before the first."""
    if history.last_at == 0.0:
        return None
    if history.shared:
        return Health.HUNG
    still_s = history.last_at - history.cpu_moved_at
    if history.stopped and history.unanswered >= LOOKS_STOPPED:
        return Health.HUNG
    if history.unanswered >= LOOKS_SILENT and still_s >= STILL_S:
        return Health.HUNG
    if history.generated_at is None:
        late = history.last_at - history.born_at > history.load_limit_s
        return Health.HUNG if late else Health.STARTING
    if history.broken >= LOOKS_BROKEN:
        return Health.HUNG
    if history.last_at - history.progress_at >= history.stuck_s:
        return Health.HUNG
    return Health.READY
