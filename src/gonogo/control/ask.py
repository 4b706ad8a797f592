"""Asks what a recipe wants to be asked: builds the request of each kind of probe, sends it, hands on what was seen.

Not here: the connection and the questions that every service is asked (`probe.py`), what the reply shows
(`gonogo.checks.answers`), and the judgement (`gonogo.checks.recipe_probes`).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Sequence

import httpx

from gonogo.checks import answers
from gonogo.checks.answers import Seen, names_of
from gonogo.checks.screens import Screen, draw
from gonogo.facts.chat import ChatReply, parse_chat
from gonogo.spec import Revision
from gonogo.spec.recipe_probes import (
    Grounding,
    LargestImage,
    RecipeProbe,
    ToolCall,
    WarmedCompletion,
)

ONE_S, ALL_S = 120.0, 150.0
"""The longest that one reply, and all probes of a revision together, are waited for."""
WARM_UP = "warm-up"
Look = tuple[str, Callable[[], Seen]]
"""The name of a fact, and how to get it."""


class Clock:
    """The time that is left for all probes of a revision."""

    def __init__(self, all_s: float = ALL_S) -> None:
        self._ends = time.monotonic() + all_s
        self._all_s = all_s

    def left_s(self, most_s: float = ONE_S) -> float:
        """Seconds that one reply may take now, at most `most_s`. Raises TimeoutError when none are left."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the {self._all_s:.0f} s for all probes were over")
        return min(left, most_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """Sends chat requests for one revision through the front door."""

    client: httpx.Client
    headers: Mapping[str, str]
    model: str
    clock: Clock

    def send(self, body: Mapping[str, Any], most_s: float = ONE_S) -> tuple[ChatReply, int]:
        """The reply, and how many bytes were sent. Raises httpx.HTTPError, TimeoutError, ValueError."""
        content = json.dumps({"model": self.model, "temperature": 0, **body}, ensure_ascii=False).encode()
        limit_s = self.clock.left_s(most_s)
        headers = {**self.headers, "content-type": "application/json"}
        asked_at, read = time.monotonic(), bytearray()
        with self.client.stream(
            "POST", "/v1/chat/completions", headers=headers, content=content, timeout=limit_s
        ) as answer:
            for piece in answer.iter_bytes():
                read += piece
                if time.monotonic() - asked_at > limit_s:
                    raise TimeoutError(f"no whole answer within {limit_s:.0f} s")
            return parse_chat(answer.status_code, bytes(read), time.monotonic() - asked_at), len(content)


def looks(revision: Revision, chat: Chat, sees_images: bool | None) -> tuple[list[Look], list[Look]]:
    """(those that may be asked beside each other, those that want the engine for themselves).

    Probes that need images are left out where the model is known to see none: their check says so.
    """
    spec = revision.spec
    asked = [probe for probe in spec.probes if sees_images is not False or not answers.needs_images(probe)]
    alone = [probe for probe in asked if isinstance(probe, WarmedCompletion)]
    beside = [look for probe in asked if probe not in alone for look in _looks_of(probe, revision, chat)]
    return beside, [(names_of(probe)[0], _later(_warmed, probe, chat)) for probe in alone]


def _later(function: Callable[..., Seen], *arguments: Any) -> Callable[[], Seen]:
    return lambda: function(*arguments)


def _looks_of(probe: RecipeProbe, revision: Revision, chat: Chat) -> Iterator[Look]:
    if isinstance(probe, Grounding):
        for name, place in zip(names_of(probe), range(len(probe.pictures)), strict=True):
            yield name, _later(_tap, probe, place, chat)
    else:
        yield names_of(probe)[0], _later(_look, probe, revision, chat)


def _look(probe: RecipeProbe, revision: Revision, chat: Chat) -> Seen:
    if isinstance(probe, LargestImage):
        screen = draw(probe.picture, probe.name, as_large_as_real=True)
        reply, sent = chat.send(_body(probe, probe.prompt, screen))
        return answers.image_seen(probe, sent, reply)
    reply, _ = chat.send(_body(probe, probe.prompt, _screen(probe)))
    return answers.seen_of(probe, reply, revision.spec)


def _tap(probe: Grounding, place: int, chat: Chat) -> Seen:
    picture = probe.pictures[place]
    screen = draw(picture, f"{probe.name}/{place}")
    reply, _ = chat.send(_body(probe, probe.prompt, screen))
    return answers.grounding_seen(probe, picture, screen, reply)


def _warmed(probe: WarmedCompletion, chat: Chat) -> Seen:
    """Once to warm it up, with another picture and other first words so that no cache helps, and then by the clock."""
    chat.send(_body(probe, f"({WARM_UP}) {probe.prompt}", _screen(probe, f"{probe.name}/{WARM_UP}")))
    asked_at = time.monotonic()
    try:
        reply, _ = chat.send(_body(probe, probe.prompt, _screen(probe)), most_s=probe.within_s + 1.0)
    except (httpx.TimeoutException, TimeoutError):
        seconds = time.monotonic() - asked_at
        if seconds < probe.within_s:
            raise
        return answers.warmed_given_up(probe, seconds)
    return answers.warmed_seen(probe, reply)


def _screen(probe: RecipeProbe, name: str | None = None) -> Screen | None:
    picture = getattr(probe, "picture", None)
    return None if picture is None else draw(picture, name or probe.name)


def _body(probe: RecipeProbe, prompt: str, screen: Screen | None) -> Mapping[str, Any]:
    """As Open-AutoGLM sends it: the picture first, then the text."""
    content: str | Sequence[Mapping[str, Any]] = prompt
    if screen is not None:
        image = {"type": "image_url", "image_url": {"url": screen.data_url}}
        content = [image, {"type": "text", "text": prompt}]
    system = getattr(probe, "system", None)
    first = [] if system is None else [{"role": "system", "content": system}]
    body = {"messages": [*first, {"role": "user", "content": content}], "max_tokens": probe.max_tokens}
    return {**body, "tools": [_tool(probe)]} if isinstance(probe, ToolCall) else body


def _tool(probe: ToolCall) -> Mapping[str, Any]:
    parameters = {
        "type": "object",
        "properties": {probe.argument: {"type": "string"}},
        "required": [probe.argument],
    }
    words = probe.function.replace("_", " ")
    return {
        "type": "function",
        "function": {"name": probe.function, "description": words, "parameters": parameters},
    }
