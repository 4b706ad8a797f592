"""The checklist out of answers as the API gives them: the latest of each question, by condition. Pure.

The same question is asked at several stages; what was found last is what counts, the earlier answers stay in the API.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterable, Mapping, Sequence

Answer = Mapping[str, Any]
CONDITIONS = ("hardware", "software", "model", "network", "security")
STAGES = ("preflight", "deploy", "live")
VERDICTS = ("pass", "fail", "unknown", "not_applicable")


def latest(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """One answer per service, check and thing looked at: of the newest revision, and there of the last stage."""
    kept: dict[tuple[object, ...], Answer] = {}
    for answer in answers:
        key = (answer.get("service"), answer["check"], answer["subject"], answer["values"].get("probe"))
        if key not in kept or _age(answer) >= _age(kept[key]):
            kept[key] = answer
    return tuple(kept.values())


def by_condition(answers: Iterable[Answer]) -> tuple[tuple[str, tuple[Answer, ...]], ...]:
    """The answers of each condition, in the order of the checklist; a condition without answers is left out."""
    found = tuple(answers)
    groups = ((name, tuple(one for one in found if one["condition"] == name)) for name in CONDITIONS)
    return tuple((name, group) for name, group in groups if group)


def blocking(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """What stops: failed or unknown answers of checks that block."""
    return tuple(one for one in answers if one["blocks"] and one["verdict"] in ("fail", "unknown"))


def advising(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """What is not as it should be and stops nothing."""
    return tuple(one for one in answers if not one["blocks"] and one["verdict"] in ("fail", "unknown"))


def counts(answers: Sequence[Answer]) -> dict[str, int]:
    """How many answers there are of each verdict, all four verdicts named."""
    found = Counter(one["verdict"] for one in answers)
    return {verdict: found.get(verdict, 0) for verdict in VERDICTS}


def _age(answer: Answer) -> tuple[int, int]:
    return (answer.get("revision") or 0, STAGES.index(answer["stage"]))
