"""What clients ask in the drills of streams: greedy and sampled, in several languages, with stop strings and tools."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Sequence

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True)
class Wish:
    """One streamed request. `kind` groups it in the table; `continues`: it is to survive a death."""

    kind: str
    path: str
    body: Mapping[str, Any]
    continues: bool = True

    @property
    def greedy(self) -> bool:
        return self.body.get("temperature") == 0


def wishes(seed: int) -> Iterator[Wish]:
    """Requests without end, the same for the same seed: of every five, three are greedy."""
    chance = random.Random(seed)
    kinds: Sequence[Callable[[random.Random], Wish]] = (_plain, _stops, _plain, _sampled, _many, _text, _plain, _tools)
    for make in itertools.cycle(kinds):
        yield make(chance)


_USAGE = {"stream_options": {"include_usage": True}}
_SUBJECTS = ("a cat", "the sea", "an old clock", "a train", "the moon", "two friends", "a small village", "winter")
_LANGUAGES = (
    "请用中文写一句话，讲一只猫。",
    "Écris une phrase sur la mer.",
    "Напиши о море.",
    "猫について書いてください。",
    "😀 👌 🚀 say these again",
)


def _chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True, **_USAGE, **more}


def _plain(chance: random.Random) -> Wish:
    text = f"Tell me a story about {chance.choice(_SUBJECTS)}."
    return Wish("greedy", CHAT, _chat(text, temperature=0, max_tokens=chance.randint(8, 48)))


def _stops(chance: random.Random) -> Wish:
    stop = chance.sample([". ", "\n", " the", "and", "once upon", ", and", ". The", "is a", "two, three"], 2)
    text = f"Count from one to twelve, and say something about {chance.choice(_SUBJECTS)}."
    return Wish("stop strings", CHAT, _chat(text, temperature=0, max_tokens=40, stop=stop))


def _sampled(chance: random.Random) -> Wish:
    text = f"Tell me about {chance.choice(_SUBJECTS)}."
    more = {"temperature": 0.9, "top_p": 0.9, "seed": chance.randint(1, 10**6), "max_tokens": 40}
    return Wish("sampled", CHAT, _chat(text, **more))


def _many(chance: random.Random) -> Wish:
    return Wish("multilingual", CHAT, _chat(chance.choice(_LANGUAGES), temperature=0, max_tokens=40))


def _text(chance: random.Random) -> Wish:
    prompt = f"Once upon a time there was {chance.choice(_SUBJECTS)}, and"
    body = {"model": "m", "prompt": prompt, "stream": True, "temperature": 0, "max_tokens": 40, **_USAGE}
    return Wish("completions", COMPLETIONS, body)


def _tools(chance: random.Random) -> Wish:
    city = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
    }
    tool = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": city}}
    body = _chat("What is the weather in Paris?", temperature=0, max_tokens=40, tools=[tool], tool_choice="required")
    return Wish("tools", CHAT, body, continues=False)
