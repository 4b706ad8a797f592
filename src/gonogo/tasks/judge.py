"""What an answer of the gateway means for its task: done, failed for good, later, or tried once more. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Mapping

from gonogo.tasks.asked import DEEPEST, is_deeper


class Means(str, Enum):
    """later: the gateway has no room or no replica now, no fault of the task's. again: an attempt was used up."""

    DONE = "done"
    FAILED = "failed"
    LATER = "later"
    AGAIN = "again"


_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
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
    if answer.status in NO_ROOM or (answer.status == 0 and answer.code == "unreachable"):
        return Means.LATER
    if answer.status == 0 or answer.status >= 500:
        return Means.AGAIN
    return Means.FAILED


def code_of(body: bytes) -> str | None:
    """The `code` of an error of the gateway's; None: it has none that is one."""
    try:
        error = json.loads(body)["error"]
        code = error["code"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def kept(body: bytes) -> object:
    """What is kept of an answer: JSON where it is JSON that whoever asks for it can be given, else its text."""
    try:
        read: object = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
    return body.decode("utf-8", "replace") if is_deeper(read, DEEPEST) else read


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


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
