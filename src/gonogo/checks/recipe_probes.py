"""Judgements on a recipe's own probes: format, stop tokens, reasoning, taps, images, time, tool calls. Pure.

What is judged is `ProbeFacts.seen` as `answers.py` makes it. Not here: what is missing (`probe_findings.py`), the
questions that every service is asked, and repetition, which a recipe's probe shares with them (`probes.py`).
"""

from __future__ import annotations

from typing import Callable

from gonogo.checks.finding import Check, Condition, Value
from gonogo.checks.probe_findings import Judge, Seen, probe_check


def _answer_format(seen: Seen) -> str:
    problems = {"cut": "AnswerCutOff", "pattern": "AnswerFormatIgnored", "call": "AnswerCallBroken"}
    return problems.get(str(seen["problem"]), "AnswerFormatRight")


def _no_leaked_stop_token(seen: Seen) -> str:
    return "NoStopTokenLeaked" if seen["leaked"] is None else "StopTokenLeaked"


def _reasoning_length(seen: Seen) -> str:
    if seen["cut"]:
        return "ReasoningEndless"
    return "ReasoningPresent" if _number(seen["characters"]) >= _number(seen["least_characters"]) else "ReasoningShort"


def _grounding(seen: Seen) -> str:
    if seen["tapped_x"] is None:
        return "GroundingWithoutTap"
    most = _number(seen["most_error_percent"])
    if max(_number(seen["error_x_percent"]), _number(seen["error_y_percent"])) <= most:
        return "GroundingRight"
    return "GroundingInPixels" if _number(seen["pixel_error_percent"]) <= most else "GroundingOff"


def _largest_image(seen: Seen) -> str:
    return "LargestImageAnswered" if seen["status"] == 200 else "LargestImageRefused"


def _warmed_completion(seen: Seen) -> str:
    in_time = not seen["given_up"] and _number(seen["seconds"]) <= _number(seen["within_s"])
    return "WarmedInTime" if in_time else "WarmedTooSlow"


def _tool_call(seen: Seen) -> str:
    problems = {"none": "ToolNotCalled", "json": "ToolArgumentsBroken", "value": "ToolArgumentWrong"}
    return problems.get(str(seen["problem"]), "ToolCalled")


def _number(value: Value) -> float:
    """A number that must be there: a fact without it is a mistake of ours, and must not read as 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _check(name: str, reasons: tuple[str, ...], reason: Callable[[Seen], str]) -> Check:
    return probe_check(Condition.MODEL, Judge(name=name, reasons=reasons, reason=reason, general=False))


CHECKS = (
    _check(
        "answer_format",
        ("AnswerFormatRight", "AnswerFormatIgnored", "AnswerCallBroken", "AnswerCutOff", "AnswerFormatUnknown"),
        _answer_format,
    ),
    _check("no_leaked_stop_token", ("NoStopTokenLeaked", "StopTokenLeaked", "StopTokenUnknown"), _no_leaked_stop_token),
    _check(
        "reasoning_length",
        ("ReasoningPresent", "ReasoningShort", "ReasoningEndless", "ReasoningUnknown"),
        _reasoning_length,
    ),
    _check(
        "grounding",
        ("GroundingRight", "GroundingOff", "GroundingInPixels", "GroundingWithoutTap", "GroundingUnknown"),
        _grounding,
    ),
    _check("largest_image", ("LargestImageAnswered", "LargestImageRefused", "LargestImageUnknown"), _largest_image),
    _check("warmed_completion", ("WarmedInTime", "WarmedTooSlow", "WarmedUnknown"), _warmed_completion),
    _check(
        "tool_call",
        ("ToolCalled", "ToolNotCalled", "ToolArgumentsBroken", "ToolArgumentWrong", "ToolUnknown"),
        _tool_call,
    ),
)
