"""What the reply to each kind of probe shows, as the numbers and texts that its check judges. Pure.

Not here: what is right (`recipe_probes.py`) and asking (`gonogo.control.ask`).
"""

from __future__ import annotations

import json
import re
from typing import Mapping, Sequence, TypeVar

from gonogo.checks.finding import Value
from gonogo.checks.screens import Screen
from gonogo.facts.call import NotACall, parse_call
from gonogo.facts.chat import ChatReply, split
from gonogo.spec import Spec
from gonogo.spec.recipe_probes import (
    AnswerFormat,
    Grounding,
    LargestImage,
    NoLeakedStopToken,
    NoRepetition,
    Picture,
    Probe,
    ReasoningLength,
    RecipeProbe,
    ToolCall,
    WarmedCompletion,
    kind_of,
)

START_CHARACTERS = 200
PIECE_UNITS = 8
"""Half words: 4 words or 8 Chinese characters are the shortest piece whose repetition counts."""
LONGEST_PIECE_TOKENS = 200
REFUSALS = (400, 413, 415, 422, 500)
"""With which an engine refuses this one request; others (401, 429, 503 …) say that nobody could ask it."""
_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]{1,12}|[^\w\s]|_")
Kind = TypeVar("Kind")
Seen = Mapping[str, Value]


class NotAnswered(ValueError):
    """The reply is an error of somebody: the probe could not be asked."""


def names_of(probe: RecipeProbe) -> tuple[str, ...]:
    """The names of the facts that asking this probe gives: `check:name`, with the screen where there are several."""
    if isinstance(probe, Probe):
        return (f"answers_right:{probe.name}",)
    if isinstance(probe, Grounding):
        return tuple(
            f"{probe.kind}:{probe.name}/{at}-{picture.width}x{picture.height}"
            for at, picture in enumerate(probe.pictures, start=1)
        )
    return (f"{kind_of(probe)}:{probe.name}",)


def needs_images(probe: RecipeProbe) -> bool:
    """Whether it sends a picture."""
    return isinstance(probe, Grounding) or isinstance(getattr(probe, "picture", None), Picture)


def of_kind(spec: Spec, kind: type[Kind]) -> tuple[Kind, ...]:
    """The spec's probes of this kind."""
    return tuple(probe for probe in spec.probes if isinstance(probe, kind))


def seen_of(probe: RecipeProbe, reply: ChatReply, spec: Spec) -> Seen:
    """For each kind whose reply says it all; a tap is also held against its screen, an image against its size."""
    if isinstance(probe, Probe):
        return question_seen(probe, reply)
    if isinstance(probe, AnswerFormat):
        return format_seen(probe, reply, spec)
    if isinstance(probe, NoLeakedStopToken):
        return leak_seen(probe, reply)
    if isinstance(probe, NoRepetition):
        return repetition_seen(probe, reply)
    if isinstance(probe, ReasoningLength):
        return reasoning_seen(probe, reply)
    if isinstance(probe, WarmedCompletion):
        return warmed_seen(probe, reply)
    if isinstance(probe, ToolCall):
        return tool_seen(probe, reply)
    raise TypeError(f"{type(probe).__name__} needs more than the reply")


def question_seen(probe: Probe, reply: ChatReply) -> Seen:
    """`answer`, to be searched for `pattern`."""
    _require_answer(reply)
    return {"prompt": probe.prompt, "answer": reply.text[:400], "pattern": probe.expect_pattern}


def format_seen(probe: AnswerFormat, reply: ChatReply, spec: Spec) -> Seen:
    """`problem`: None, `cut` (by max_tokens), `pattern` (not found) or `call` (does not parse: `detail`).

    A stop token that stands after the call is not this check's where another probe of the spec forbids it.
    """
    _require_answer(reply)
    answer = split(reply, probe.calls)[1]
    problem, detail = _format_problem(probe, _without_leaks(answer, spec))
    if problem is not None and reply.cut:
        problem = "cut"
    told: Seen = {"pattern": probe.expect_pattern, "problem": problem, "detail": detail}
    return {**told, "max_tokens": probe.max_tokens, "answer": _start(answer or reply.whole)}


def leak_seen(probe: NoLeakedStopToken, reply: ChatReply) -> Seen:
    """`leaked`: the first of the forbidden texts that stands in what the model wrote, and `around`: where."""
    _require_answer(reply)
    at = {text: reply.whole.find(text) for text in probe.forbidden if text in reply.whole}
    leaked = min(at, key=lambda text: at[text], default=None)
    around = "" if leaked is None else reply.whole[max(0, at[leaked] - 60) : at[leaked] + len(leaked) + 20]
    return {
        "leaked": leaked,
        "around": _start(around),
        "forbidden": " ".join(probe.forbidden),
        "answer": _start(reply.text),
    }


def repetition_seen(probe: NoRepetition, reply: ChatReply) -> Seen:
    """`longest_repeat`: how many times in a row the piece `repeated` stands; `most_repeats` are allowed."""
    _require_answer(reply)
    times, piece = repeated_piece(reply.whole)
    words = max(1, sum(_half_words(one) for one in _UNIT.findall(piece)) // 2)
    told: Seen = {"longest_repeat": times, "repeated": _start(piece), "repeated_words": words}
    return {**told, "most_repeats": probe.most_repeats, "answer": _start(reply.whole)}


def reasoning_seen(probe: ReasoningLength, reply: ChatReply) -> Seen:
    """`characters` of reasoning, and whether the answer was `cut` before it ended."""
    _require_answer(reply)
    reasoning, answer = split(reply, probe.calls)
    told = {"characters": len(reasoning), "least_characters": probe.least_characters, "cut": reply.cut}
    return {**told, "max_tokens": probe.max_tokens, "reasoning": _start(reasoning), "answer": _start(answer)}


def grounding_seen(probe: Grounding, picture: Picture, screen: Screen, reply: ChatReply) -> Seen:
    """Where it taps beside where the square is, in the answer's own scale; the errors in percent of each side.

    `pixel_error_percent`: the larger of the errors if the numbers were pixels. All None when no place is named.
    """
    _require_answer(reply)
    answer = split(reply)[1]
    taps = list(re.finditer(probe.answer_pattern, answer))
    wanted_x, wanted_y = screen.x / picture.width, screen.y / picture.height
    seen: dict[str, Value] = {
        "screen": f"{picture.width}x{picture.height}",
        "wanted_x": round(wanted_x * probe.scale),
        "wanted_y": round(wanted_y * probe.scale),
        "most_error_percent": probe.most_error_percent,
        "answer": _start(answer),
        **dict.fromkeys(("tapped_x", "tapped_y", "error_x_percent", "error_y_percent", "pixel_error_percent")),
    }
    if not taps:
        return seen
    x, y = float(taps[-1]["x"]), float(taps[-1]["y"])
    in_pixels = max(abs(x / picture.width - wanted_x), abs(y / picture.height - wanted_y))
    return {
        **seen,
        "tapped_x": x,
        "tapped_y": y,
        "error_x_percent": round(100 * abs(x / probe.scale - wanted_x), 2),
        "error_y_percent": round(100 * abs(y / probe.scale - wanted_y), 2),
        "pixel_error_percent": round(100 * in_pixels, 2),
    }


def image_seen(probe: LargestImage, sent_bytes: int, reply: ChatReply) -> Seen:
    """`status`, and the engine's own words when it refused."""
    if reply.status not in (200, *REFUSALS):
        raise NotAnswered(_refusal(reply))
    told: Seen = {"screen": f"{probe.picture.width}x{probe.picture.height}", "size_mb": round(sent_bytes / 1e6, 2)}
    return {**told, "status": reply.status, "problem": reply.problem, "answer": _start(reply.text)}


def warmed_seen(probe: WarmedCompletion, reply: ChatReply) -> Seen:
    """`seconds` from the request to the last byte."""
    _require_answer(reply)
    told = {"seconds": round(reply.seconds, 2), "within_s": probe.within_s}
    return {**told, "given_up": False, "answer": _start(reply.text)}


def warmed_given_up(probe: WarmedCompletion, seconds: float) -> Seen:
    """No whole answer after so many seconds."""
    return {"seconds": round(seconds, 2), "within_s": probe.within_s, "given_up": True, "answer": ""}


def tool_seen(probe: ToolCall, reply: ChatReply) -> Seen:
    """`problem`: None, `none` (not called), `json` (arguments are not the object asked for) or `value`."""
    _require_answer(reply)
    called = next((one for one in reply.tool_calls if one.name == probe.function), None)
    seen: dict[str, Value] = {"function": probe.function, "argument": probe.argument, "pattern": probe.expect_pattern}
    if called is None:
        others = ", ".join(one.name for one in reply.tool_calls)
        return {**seen, "problem": "none", "arguments": others, "answer": _start(reply.text)}
    return {
        **seen,
        "problem": _argument_problem(probe, called.arguments),
        "arguments": _start(called.arguments),
        "answer": _start(reply.text),
    }


def repeated_piece(text: str) -> tuple[int, str]:
    """(times, piece): the piece of 4 words or 8 Chinese characters or more that stands most often in a row.

    (1, ""): none repeats. A shorter piece counts by what it is a part of: one word 16 times is four words 4 times.
    """
    found = list(_UNIT.finditer(text))
    tokens = [one[0] for one in found]
    weights = [_half_words(token) for token in tokens]
    worst, piece = 1, ""
    for size in range(1, min(len(tokens) // 2, LONGEST_PIECE_TOKENS) + 1):
        start = 0
        while start + 2 * size <= len(tokens):
            times = 1
            while tokens[start + times * size : start + (times + 1) * size] == tokens[start : start + size]:
                times += 1
            if times > worst and sum(weights[start : start + size]) >= PIECE_UNITS:
                worst, piece = times, text[found[start].start() : found[start + size - 1].end()]
            start += max(1, (times - 1) * size)
    return worst, piece


def _half_words(token: str) -> int:
    """A word counts twice as much as a Chinese character or a mark."""
    return 2 if len(token) > 1 or (token.isascii() and token.isalnum()) else 1


def _format_problem(probe: AnswerFormat, answer: str) -> tuple[str | None, str]:
    if re.search(probe.expect_pattern, answer) is None:
        return "pattern", ""
    if probe.calls:
        try:
            parse_call(answer, probe.calls)
        except NotACall as error:
            return "call", str(error)
    return None, ""


def _without_leaks(answer: str, spec: Spec) -> str:
    forbidden = [text for probe in of_kind(spec, NoLeakedStopToken) for text in probe.forbidden]
    leaked: Sequence[str] = forbidden
    while leaked:
        leaked = [text for text in forbidden if answer.endswith(text)]
        if leaked:
            answer = answer.removesuffix(leaked[0]).rstrip()
    return answer


def _argument_problem(probe: ToolCall, arguments: str) -> str | None:
    try:
        told = json.loads(arguments)
    except (ValueError, RecursionError):
        return "json"
    if not isinstance(told, dict) or not isinstance(told.get(probe.argument), str):
        return "json"
    return None if re.search(probe.expect_pattern, told[probe.argument]) else "value"


def _require_answer(reply: ChatReply) -> None:
    if reply.status != 200:
        raise NotAnswered(_refusal(reply))


def _refusal(reply: ChatReply) -> str:
    return f"HTTP {reply.status}: {reply.problem}"


def _start(text: str) -> str:
    """On one line, for a finding."""
    line = " ".join(text.split())
    return line if len(line) <= START_CHARACTERS else f"{line[: START_CHARACTERS - 1]}…"
