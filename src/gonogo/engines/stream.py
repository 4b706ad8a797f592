"""What a streamed answer has been so far, and how it is continued on another replica: the protocol, and what is common.

A family's file says how its engine is asked so that token ids come with each piece, how a piece is read, and how the
rest of the answer is asked for. Pure: `Transcript` is told each event and says what the client gets; who sends and
receives is the relay (`gonogo.gateway.relay`). Which engine has which file: `gonogo.engines.stream_table`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generator, Mapping, Protocol, Union

Json = dict[str, Any]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

MOST_HELD_TOKENS = 262_144
"""Tokens of one answer that are remembered; a longer answer goes on and is no longer continued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A streamed request as the client sent it. `continuable`: policy allows it to be continued."""

    path: str
    body: Mapping[str, Any]
    continuable: bool = True

    @property
    def chat(self) -> bool:
        return self.path == CHAT

    @property
    def usage_asked(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, Mapping) and bool(options.get("include_usage"))

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of the answer that the client wants; None: it set no limit."""
        for name in ("max_completion_tokens", "max_tokens", "n_predict"):
            value = self.body.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value if value >= 0 else None
        return None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        given = self.body.get("stop")
        if isinstance(given, str):
            return (given,) if given else ()
        return tuple(one for one in given if isinstance(one, str) and one) if isinstance(given, list) else ()

    @property
    def pictures(self) -> bool:
        """Whether a message holds something else than text."""
        messages = self.body.get("messages")
        listed = messages if isinstance(messages, list) else []
        contents = [one.get("content") for one in listed if isinstance(one, Mapping)]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        return any(isinstance(part, Mapping) and part.get("type") not in ("text", None) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something that a healthy replica is asked before the answer can be continued: POST `path`, JSON both ways."""

    path: str
    body: Mapping[str, Any]


EXACT, BY_TEXT, AGAIN = "ids", "text", "again"
"""How an answer is continued: from the very token ids, from the text (`approximate`), or from the beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """The request for the rest of the answer. `how`: EXACT, BY_TEXT or AGAIN (nothing had been given yet)."""

    path: str
    body: Mapping[str, Any]
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Nothing is missing but the end: the events that the client still gets before `[DONE]`."""

    events: tuple[Json, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotContinued:
    """The answer cannot be continued. `reason` is a word for the record, such as `several_choices`."""

    reason: str


Resumed = Union[Continuation, Finished, NotContinued]
Resume = Generator[Question, Mapping[str, Any], Resumed]


class Transcript(Protocol):
    """One streamed answer. Events are the JSON objects of `data:` lines; `[DONE]` is not an event.

    `verbatim`: the client gets every event as it came, so that its bytes can be passed on.
    """

    verbatim: bool

    @property
    def tokens(self) -> int | None:
        """Tokens of the answer so far, of all attempts; None: this engine does not tell."""

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt; None: not told yet."""

    @property
    def cached_tokens(self) -> int | None:
        """Of them, tokens that the first replica had in its cache; None: not told."""

    @property
    def prompt_ms(self) -> float | None:
        """Milliseconds that the engine computed the prompt of the running attempt; None: not told (yet)."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids of what the client got, as far as they are known exactly."""

    @property
    def finished(self) -> bool:
        """Whether the piece with the finish reason was given: what may still come is the usage."""

    @property
    def complete(self) -> bool:
        """Whether nothing that the engine still says is needed: `[DONE]` can follow."""

    def opening(self) -> Json:
        """The body of the first attempt."""

    def event(self, event: Json) -> tuple[Json, ...]:
        """One event of the running attempt; returns what the client gets for it, possibly the very same object."""

    def resume(self) -> Resume:
        """The running attempt is lost: ask what must be asked, then say how it goes on."""

    def ending(self) -> tuple[Json, ...]:
        """After `finished`, when the stream broke off before its end: what the client still has to get."""


def number(value: object) -> int:
    """A count from an engine's JSON; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def is_error(event: Mapping[str, Any]) -> bool:
    """Whether an engine says inside of a stream that it failed."""
    return bool(event.get("error")) and not event.get("choices")


def first_choice(event: Mapping[str, Any]) -> Json:
    """The first choice of an event; empty where there is none (the event with the usage)."""
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def cannot_continue(asked: Asked) -> str | None:
    """Why no engine could continue this request, as a word for the record; None: nothing speaks against it."""
    body = asked.body
    if not asked.continuable:
        return "policy"
    if body.get("n") not in (None, 1) or body.get("best_of") not in (None, 1):
        return "several_choices"
    form = body.get("response_format")
    if any(body.get(name) for name in _STRUCTURE) or (isinstance(form, Mapping) and form.get("type") != "text"):
        return "structured_output"
    if body.get("tools") or body.get("functions"):
        return "tools"
    if body.get("echo") or body.get("suffix"):
        return "echo"
    return None


def names(text: str) -> frozenset[str]:
    """The names of fields in this text."""
    return frozenset(text.split())


_STRUCTURE = names("grammar json_schema structured_outputs guided_json guided_regex guided_choice guided_grammar")


class PlainTranscript:
    """An engine whose answers pass as they are and are never continued: an external one, or one not known exactly."""

    verbatim = True
    complete = False
    prompt_ms = None

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._usage: Mapping[str, Any] = {}
        self.finished = False
        self.ids: tuple[int, ...] = ()

    @property
    def tokens(self) -> int | None:
        return number(self._usage.get("completion_tokens")) or None

    @property
    def prompt_tokens(self) -> int | None:
        return number(self._usage.get("prompt_tokens")) or None

    @property
    def cached_tokens(self) -> int | None:
        details = self._usage.get("prompt_tokens_details")
        return number(details.get("cached_tokens")) if isinstance(details, Mapping) else None

    def opening(self) -> Json:
        return dict(self._asked.body)

    def event(self, event: Json) -> tuple[Json, ...]:
        usage = event.get("usage")
        if isinstance(usage, Mapping):
            self._usage = usage
        self.finished = self.finished or bool(first_choice(event).get("finish_reason"))
        return (event,)

    def resume(self) -> Resume:
        return NotContinued(reason="engine")
        yield  # a generator like the others, that asks nothing

    def ending(self) -> tuple[Json, ...]:
        return ()
