"""What an OpenAI-compatible server answered to one chat request, read from its body. Pure.

Not here: sending (`gonogo.control.ask`) and judging (`gonogo.checks.answers`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

LONGEST_PROBLEM = 300
_THINK = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalled:
    """One call of a function: its name, and its arguments as the text that should be a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """The first choice of a chat completion, or the error that came in its place.

    `reasoning` is what stands in a field of its own (engines with a reasoning parser), None where there is none.
    `problem` is the error's message, None when `status` is 200. `seconds`: from the request to the last byte.
    """

    status: int
    seconds: float
    text: str = ""
    reasoning: str | None = None
    finish_reason: str = ""
    tool_calls: tuple[ToolCalled, ...] = ()
    problem: str | None = None

    @property
    def whole(self) -> str:
        """Everything that the model wrote, reasoning first."""
        return f"{self.reasoning}\n{self.text}" if self.reasoning else self.text

    @property
    def cut(self) -> bool:
        """Whether `max_tokens` ended it, not the model."""
        return self.finish_reason == "length"


def parse_chat(status: int, body: bytes, seconds: float) -> ChatReply:
    """Raises ValueError when it says 200 and is no chat completion, or one in which nothing stands."""
    told = _json(body)
    if status != 200:
        return ChatReply(status=status, seconds=seconds, problem=_problem(told, body))
    try:
        choice = told["choices"][0]
        message = choice["message"]
        reply = ChatReply(
            status=status,
            seconds=seconds,
            text=str(message.get("content") or ""),
            reasoning=_reasoning(message),
            finish_reason=str(choice.get("finish_reason") or ""),
            tool_calls=tuple(_called(one["function"]) for one in message.get("tool_calls") or ()),
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"no chat completion: {body[:LONGEST_PROBLEM]!r}") from error
    if not reply.whole.strip() and not reply.tool_calls:
        raise ValueError(f"an empty answer (finish_reason {reply.finish_reason or 'missing'})")
    return reply


def split(reply: ChatReply, calls: Sequence[str] = ()) -> tuple[str, str]:
    """(reasoning, answer), wherever the engine left the reasoning.

    In a field of its own; else between `<think>` and `</think>` (a template may have written the first one itself);
    else before `<answer>`; else before the first call of one of the functions `calls`; else there is none.
    """
    if reply.reasoning is not None:
        return reply.reasoning.strip(), reply.text.strip()
    text = reply.text
    thought = _THINK.match(text)
    if thought is not None:
        return thought[1].strip(), text[thought.end() :].strip()
    for mark in ("</think>", "<answer>"):
        before, found, after = text.partition(mark)
        if found:
            return before.strip(), after.strip()
    call = call_begins(text, calls)
    return ("", text.strip()) if call is None else (text[:call].strip(), text[call:].strip())


def call_begins(text: str, functions: Sequence[str]) -> int | None:
    """Where the first call of one of these functions with a named value begins: `do(action=`."""
    if not functions:
        return None
    found = re.search(rf"\b(?:{'|'.join(map(re.escape, functions))})\(\s*\w+\s*=", text)
    return None if found is None else found.start()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _reasoning(message: Mapping[str, Any]) -> str | None:
    told = next((message[name] for name in ("reasoning_content", "reasoning") if message.get(name)), None)
    return None if told is None else str(told)


def _called(function: Mapping[str, Any]) -> ToolCalled:
    return ToolCalled(name=str(function["name"]), arguments=str(function["arguments"]))


def _problem(told: Any, body: bytes) -> str:
    error = told.get("error", told) if isinstance(told, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or body.decode("utf-8", "replace"))[:LONGEST_PROBLEM]
