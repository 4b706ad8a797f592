"""Server-sent events, out of bytes that come in any pieces. Pure; not here: what an event means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping

MOST_EVENT_BYTES = 4 * 1024 * 1024
"""An event that has not ended by then is no event of an engine's."""
DONE = b"data: [DONE]\n\n"


class NotEvents(ValueError):
    """The bytes are no stream of events. Its text says in a word what was seen, never what was in it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its bytes as they came, with the blank line at its end, and its `data` (None: a comment or the like).

    `named` is the name of its `event:` field, or of a field that some engines write errors into.
    """

    raw: bytes
    data: bytes | None
    named: str | None = None

    @property
    def done(self) -> bool:
        return self.data == b"[DONE]"


class Events:
    """Collects bytes and gives whole events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, more: bytes) -> list[Event]:
        """The events that are whole now. Raises `NotEvents` when one would be longer than any."""
        waiting = self._rest + more if self._rest else more
        found: list[Event] = []
        begin = 0
        while (end := _end_of_event(waiting, begin)) is not None:
            found.append(_read(waiting[begin:end]))
            begin = end
        self._rest = waiting[begin:]
        if len(self._rest) > MOST_EVENT_BYTES:
            raise NotEvents("endless_event")
        return found

    @property
    def rest(self) -> bytes:
        """What came and is no whole event yet."""
        return self._rest


def json_of(event: Event) -> dict[str, Any]:
    """The object in an event's data. Raises `NotEvents`."""
    try:
        value = json.loads(event.data or b"")
    except (ValueError, RecursionError) as error:
        raise NotEvents("not_json") from error
    if not isinstance(value, dict):
        raise NotEvents("no_object")
    return value


def event_of(value: Mapping[str, Any]) -> bytes:
    """An event with this object, as compact as engines write it."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _end_of_event(text: bytes, begin: int) -> int | None:
    """Where the event that begins here ends, behind its blank line; None: it has not ended yet."""
    ends = [found + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (found := text.find(mark, begin)) >= 0]
    return min(ends, default=None)


def _read(raw: bytes) -> Event:
    data: list[bytes] = []
    named: str | None = None
    for line in raw.splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field in (b"event", b"error"):
            named = "error" if field == b"error" else value.decode("utf-8", "replace")
    return Event(raw, b"\n".join(data) if data else None, named)
