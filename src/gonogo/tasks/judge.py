"""What an answer of the gateway means for its task: done, failed for good, later, or tried once more. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Mapping


class Means(str, Enum):
    """later: the gateway has no room or no replica now, no fault of the task's. again: an attempt was used up."""

    DONE = "done"
    FAILED = "failed"
    LATER = "later"
    AGAIN = "again"


NO_ROOM = frozenset({408, 409, 425, 429, 503})
SHORTEST_LATER_S, LONGEST_LATER_S = 0.2, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the gateway said. `status` 0: nothing came, and `code` says why."""

    status: int
    body: bytes = field(repr=False, default=b"")
    request_id: str | None = None
    retry_after_s: float | None = None
    code: str | None = None


def means(answer: Answer) -> Means:
    """5xx and no answer may pass; what is wrong with the request does not."""
    if 200 <= answer.status < 300:
        return Means.DONE
    if answer.status in NO_ROOM or answer.code == "unreachable":
        return Means.LATER
    if answer.status == 0 or answer.status >= 500:
        return Means.AGAIN
    return Means.FAILED


def later_s(answer: Answer, tried: int) -> float:
    """How long to wait before the next try: what the gateway said, else longer each time."""
    if answer.retry_after_s is not None:
        return min(LONGEST_LATER_S, max(SHORTEST_LATER_S, answer.retry_after_s))
    return float(min(LONGEST_LATER_S, SHORTEST_LATER_S * 2 ** min(tried, 10)))


def words(answer: Answer) -> tuple[str, str]:
    """Reason and message for the task's owner. Ours alone: what the gateway said is in the result of one that failed
    for good; of one that is tried again nothing is kept.
    """
    if answer.status == 0:
        code = answer.code or "no_answer"
        return code, _NO_ANSWER.get(code, "The gateway gave no answer.")
    reason = answer.code or f"http_{answer.status}"
    return reason, _ANSWERED[means(answer)].format(status=answer.status)


_ANSWERED: Mapping[Means, str] = {
    Means.DONE: "The gateway answered with status {status}.",
    Means.FAILED: "The gateway answered with status {status}; `result` has its words.",
    Means.LATER: "The gateway had no room or no replica (status {status}): it is asked again, and no try is used up.",
    Means.AGAIN: "The gateway answered with status {status}, which may pass.",
}
_NO_ANSWER: Mapping[str, str] = {
    "unreachable": "The gateway could not be reached.",
    "no_answer": "The connection to the gateway ended before the answer.",
    "timeout": "The gateway did not answer in time.",
    "too_large": "The answer is larger than the queue keeps.",
}
