"""A phone agent's model by script (AutoGLM's form), and each way in which engines break it; for `ScriptedEngine`.

It reads the pictures by their pixels, so that a probe which sent another picture than it judges by would fail here.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Callable

from gonogo.checks.screens import RED
from tests.shell.png import Pixels
from tests.shell.scripted_engine import Answer, Asked, Script

THOUGHT = "屏幕上是桌面，没有打开任何应用。用户想完成一个任务，我先看看屏幕上有什么，再决定下一步。"
SEA = "The sea is wide and blue, and ships cross it from one coast to the other by day and by night."
NONSENSE = "Quarterly umbrellas forgive the patient lighthouse, and nine violins agree about the colour of rain."
LOOP = "我先看屏幕上有什么内容。" * 9
Fault = Callable[[Asked, Answer], Answer]
Move = Callable[[int, int, Pixels], tuple[int, int]]


def right(asked: Asked) -> Answer:
    """What a good model answers an agent; it also answers what every service is asked."""
    if asked.body.get("tools"):
        return Answer(tool_calls=(("get_weather", '{"city": "北京"}'),))
    return Answer(text=_text(asked), gap_s=0.002)


def with_fault(fault: Fault) -> Script:
    return lambda asked: fault(asked, right(asked))


def is_tap(asked: Asked) -> bool:
    return "红色" in asked.prompt


def is_task(asked: Asked) -> bool:
    """One of an agent's tasks, which the model thinks about."""
    return bool(asked.pictures) and not is_tap(asked)


def square(asked: Asked) -> tuple[int, int, Pixels]:
    """The middle of the red square in the picture that was sent, 0 to 1000, and the picture."""
    pixels = _pixels(asked.pictures[-1])
    x, y = pixels.middle_of(RED)
    return round(1000 * x / pixels.width), round(1000 * y / pixels.height), pixels


def taps_moved(move: Move) -> Fault:
    """Every tap on the square is moved by this."""

    def fault(asked: Asked, answer: Answer) -> Answer:
        if not is_tap(asked):
            return answer
        x, y = move(*square(asked))
        return replace(answer, text=f'do(action="Tap", element=[{x},{y}])')

    return fault


def thinks_apart(field: str) -> Fault:
    """An engine with a reasoning parser: the reasoning comes in a field of its own."""

    def fault(asked: Asked, answer: Answer) -> Answer:
        thought = re.match(r"<think>(.*?)</think>\s*", answer.text)
        if thought is None:
            return answer
        text = answer.text[thought.end() :]
        return replace(answer, text=text, reasoning=thought[1], reasoning_field=field)

    return fault


def thinks_without_tags(asked: Asked, answer: Answer) -> Answer:
    """What Open-AutoGLM sees of some engines: special tokens are left out, and what is before the call is thought."""
    return replace(answer, text=re.sub("</?(think|answer)>", "", answer.text))


def leaks(asked: Asked, answer: Answer) -> Answer:
    return replace(answer, text=f"{answer.text}</answer>") if is_task(asked) else answer


def loops(asked: Asked, answer: Answer) -> Answer:
    if "说明当前屏幕" not in asked.prompt:
        return answer
    return replace(answer, text=f'<think>{LOOP}</think><answer>do(action="Home")')


def ignores_the_format(asked: Asked, answer: Answer) -> Answer:
    """It says what it would do instead of doing it."""
    return replace(answer, text=f"<think>{THOUGHT}</think>好的，我来帮您打开微信。") if is_task(asked) else answer


def hardly_thinks(asked: Asked, answer: Answer) -> Answer:
    return replace(answer, text=re.sub("<think>.*</think>", "<think>点</think>", answer.text))


def refuses_large_images(asked: Asked, answer: Answer) -> Answer:
    """As vLLM 0.12 does without a bound on pixels."""
    seen = _pixels(asked.pictures[-1]) if asked.pictures else None
    if seen is None or seen.width * seen.height < 4_000_000:
        return answer
    return Answer(status=400, text="The image exceeds the pre-allocated encoder cache size 3721")


def is_cut(asked: Asked, answer: Answer) -> Answer:
    """It does not come to its call: the engine's own bound ends it before."""
    if not is_task(asked) or not asked.system:
        return answer
    return replace(answer, text=f"<think>{THOUGHT}", finish_reason="length")


def never_stops_thinking(asked: Asked, answer: Answer) -> Answer:
    if "洗发水" not in asked.prompt:
        return answer
    return replace(answer, text=f"<think>{THOUGHT}", finish_reason="length")


def leaves_calls_open(asked: Asked, answer: Answer) -> Answer:
    return replace(answer, text=answer.text.removesuffix(")")) if is_task(asked) and asked.system else answer


def breaks_json(asked: Asked, answer: Answer) -> Answer:
    return replace(answer, tool_calls=(("get_weather", '{"city": "北京'),)) if answer.tool_calls else answer


def writes_calls_as_text(asked: Asked, answer: Answer) -> Answer:
    text = '<tool_call>get_weather\n{"city": "北京"}</tool_call>'
    return Answer(text=text) if answer.tool_calls else answer


def asks_for_another_city(asked: Asked, answer: Answer) -> Answer:
    return replace(answer, tool_calls=(("get_weather", '{"city": "Oslo"}'),)) if answer.tool_calls else answer


def talks_nonsense(asked: Asked, answer: Answer) -> Answer:
    return replace(answer, text=NONSENSE)


def is_slow(asked: Asked, answer: Answer) -> Answer:
    return replace(answer, delay_s=0.6) if asked.prompt == "Hi" else answer


def starts_cold(asked: Asked, answer: Answer) -> Answer:
    """Only what warms it up is slow."""
    return replace(answer, delay_s=0.6) if asked.prompt.endswith(" Hi") else answer


def hangs(asked: Asked, answer: Answer) -> Answer:
    return replace(answer, delay_s=3.0) if asked.prompt == "Hi" else answer


def _text(asked: Asked) -> str:
    if is_tap(asked):
        x, y, _ = square(asked)
        return f'<think>{THOUGHT}</think>\n<answer>do(action="Tap", element=[{x}, {y}])'
    if asked.pictures:
        return f'<think>{THOUGHT}</think>\n<answer>do(action="Launch", app="微信")'
    return "It is Paris." if "France" in asked.prompt else SEA


@lru_cache(maxsize=16)
def _pixels(png: bytes) -> Pixels:
    return Pixels.of(png)
