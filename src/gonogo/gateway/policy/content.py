"""What a request gives the model to read: messages, prompts, inputs and pictures; judged, counted and hashed. Pure.

A prompt's tokens are estimated: one for every four bytes of UTF-8, and for pictures by their size. Nobody is refused by
the estimate. Refused is only what is certainly too much: no token of any vocabulary is longer than
`LONGEST_TOKEN_BYTES`, and a chat template may leave out what an assistant said, but nothing of the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Mapping

from gonogo.gateway.policy import pictures
from gonogo.gateway.policy.judges import check_length, mapping, refuse, require, unknown, wrong_type
from gonogo.gateway.policy.rules import ServiceRules

TOKEN_BYTES, LONGEST_TOKEN_BYTES = 4, 512
MESSAGE_TOKENS = 4
"""Around each message, for the words of the chat template."""
BLOCK_BYTES, MOST_BLOCKS = 256, 512
MOST_MESSAGES, MOST_PARTS = 10_000, 1_000
LARGEST_TOKEN_ID = 2**31 - 1
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_MESSAGE_FIELDS = (
    *("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal"),
    *("reasoning_content", "reasoning"),
)
_CALL = ("id", "type", "function", "index")


@dataclass(slots=True)
class Content:
    """What was counted so far, of text in bytes of UTF-8; `sure_bytes` of it, the model certainly reads.

    `hashed` is the beginning of all content, in order."""

    size_bytes: int = 0
    sure_bytes: int = 0
    exact_tokens: int = 0
    picture_tokens: int = 0
    overhead_tokens: int = 0
    pictures: int = 0
    hashed: bytearray = field(default_factory=bytearray)

    def add_text(self, text: str, *, sure: bool = False) -> None:
        encoded = text.encode("utf-8")
        self.size_bytes += len(encoded)
        self.sure_bytes += len(encoded) if sure else 0
        self._hash(encoded)

    def add_tokens(self, tokens: list[int]) -> None:
        self.exact_tokens += len(tokens)
        room = BLOCK_BYTES * MOST_BLOCKS // TOKEN_BYTES
        self._hash(b"".join(token.to_bytes(TOKEN_BYTES, "little") for token in tokens[:room]))

    def add_values(self, value: Any) -> None:
        """All names and values of what was sent as JSON, as its text would be."""
        self.add_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def add_picture(self, url: str) -> None:
        tokens, mark = pictures.tokens(url), pictures.mark(url)
        self.pictures += 1
        self.picture_tokens += tokens
        # As long as text of so many tokens would be, so that each block stands for as much of the cache.
        self._hash(mark * max(1, tokens * TOKEN_BYTES // len(mark)))

    def mark(self, word: str) -> None:
        """Where one message ends and another begins, and whose it is."""
        self.overhead_tokens += MESSAGE_TOKENS
        self._hash(b"\x00" + word.encode() + b"\x00")

    def tokens(self) -> int:
        """The estimate, at least 1."""
        text = -(-self.size_bytes // TOKEN_BYTES)
        return max(1, text + self.exact_tokens + self.picture_tokens + self.overhead_tokens)

    def least_tokens(self) -> int:
        """What it certainly takes."""
        return max(1, self.sure_bytes // LONGEST_TOKEN_BYTES + self.exact_tokens)

    def prefix(self) -> tuple[int, ...]:
        """A 64-bit hash of all content up to the end of each whole block, at most `MOST_BLOCKS`."""
        hasher, found = blake2b(digest_size=8), []
        view = memoryview(self.hashed)
        for start in range(0, min(len(view), BLOCK_BYTES * MOST_BLOCKS) - BLOCK_BYTES + 1, BLOCK_BYTES):
            hasher.update(view[start : start + BLOCK_BYTES])
            found.append(int.from_bytes(hasher.copy().digest(), "big"))
        return tuple(found)

    def _hash(self, piece: bytes) -> None:
        room = BLOCK_BYTES * MOST_BLOCKS - len(self.hashed)
        if room > 0:
            self.hashed += piece[:room]


def read_messages(value: Any, content: Content, rules: ServiceRules) -> None:
    """Raises `Mistake`."""
    check_length(value, "messages", MOST_MESSAGES, 1)
    for index, one in enumerate(value):
        path = f"messages[{index}]"
        message = mapping(one, path)
        for name in message:
            if name not in _MESSAGE_FIELDS:
                raise unknown(name, path, _MESSAGE_FIELDS)
        require(message, ("role",), path)
        role = message["role"]
        if not isinstance(role, str) or role not in _ROLES:
            raise refuse(f"{path}.role", f"must be one of {', '.join(_ROLES)}.")
        content.mark(role)
        _read_message(message, path, content, rules)


def _read_message(message: Mapping[str, Any], path: str, content: Content, rules: ServiceRules) -> None:
    for name in ("name", "tool_call_id", "refusal", "reasoning_content", "reasoning"):
        value = message.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise wrong_type(f"{path}.{name}", value, "a string")
            content.add_text(value)
    _read_parts(message.get("content"), message, f"{path}.content", content, rules)
    if message.get("tool_calls") is not None:
        check_length(message["tool_calls"], f"{path}.tool_calls", MOST_PARTS)
        for index, call in enumerate(message["tool_calls"]):
            _read_call(call, f"{path}.tool_calls[{index}]", content)
    if message.get("function_call") is not None:
        _read_function(message["function_call"], f"{path}.function_call", content)


def _read_parts(value: Any, message: Mapping[str, Any], path: str, content: Content, rules: ServiceRules) -> None:
    if value is None:
        if message["role"] != "assistant":
            raise refuse(path, "is missing.", "missing_field")
    elif isinstance(value, str):
        content.add_text(value, sure=message["role"] != "assistant")
    elif isinstance(value, list):
        check_length(value, path, MOST_PARTS, 1)
        for index, part in enumerate(value):
            _read_part(part, f"{path}[{index}]", content, rules)
    else:
        raise wrong_type(path, value, "a string or an array of parts")


def _read_part(value: Any, path: str, content: Content, rules: ServiceRules) -> None:
    part = mapping(value, path)
    require(part, ("type",), path)
    word = part["type"]
    if word not in ("text", "refusal", "image_url"):
        raise refuse(f"{path}.type", "must be one of text, image_url, refusal: nothing else is let through here.")
    for name in part:
        if name not in ("type", word):
            raise unknown(name, path, ("type", word))
    require(part, (word,), path)
    if word == "image_url":
        content.add_picture(pictures.url_of(part[word], f"{path}.{word}", rules))
    elif isinstance(part[word], str):
        content.add_text(part[word])
    else:
        raise wrong_type(f"{path}.{word}", part[word], "a string")


def _read_call(value: Any, path: str, content: Content) -> None:
    call = mapping(value, path)
    for name in call:
        if name not in _CALL:
            raise unknown(name, path, _CALL)
    require(call, ("function",), path)
    for name in ("id", "type"):
        if call.get(name) is not None and not isinstance(call[name], str):
            raise wrong_type(f"{path}.{name}", call[name], "a string")
    _read_function(call["function"], f"{path}.function", content)


def _read_function(value: Any, path: str, content: Content) -> None:
    function = mapping(value, path)
    for name, one in function.items():
        if name not in ("name", "arguments"):
            raise unknown(name, path, ("name", "arguments"))
        if not isinstance(one, str):
            raise wrong_type(f"{path}.{name}", one, "a string")
        content.add_text(one)
    require(function, ("name",), path)


def read_prompt(value: Any, field_name: str, most: int, content: Content) -> int:
    """A text, tokens, or a list of either, as `prompt` and `input` are. How many prompts. Raises `Mistake`."""
    if isinstance(value, str):
        _read_text(value, field_name, content)
        return 1
    if not isinstance(value, list):
        raise wrong_type(field_name, value, "a string, an array of strings, or tokens")
    check_length(value, field_name, max(most, 2**20), 1)
    if isinstance(value[0], int):
        _read_tokens(value, field_name, content)
        return 1
    check_length(value, field_name, most)
    for index, one in enumerate(value):
        path = f"{field_name}[{index}]"
        content.mark("prompt")
        if isinstance(one, str):
            _read_text(one, path, content)
        else:
            check_length(one, path, 2**20, 1)
            _read_tokens(one, path, content)
    return len(value)


def _read_text(value: str, path: str, content: Content) -> None:
    if not value:
        raise refuse(path, "is empty.", "empty_prompt")
    content.add_text(value, sure=True)


def _read_tokens(value: list[Any], path: str, content: Content) -> None:
    for token in value:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= LARGEST_TOKEN_ID:
            raise refuse(path, "must hold token numbers only, none below 0.", "invalid_type")
    content.add_tokens(value)
