"""Server-sent events out of bytes as they come. Pure."""

from __future__ import annotations

LARGEST_EVENT_BYTES = 4 * 1024 * 1024


class TooLarge(ValueError):
    """One event is longer than any that an engine of ours sends."""


class Events:
    """Splits a stream. What `feed` gives is the data of each event that has come to its end, in order."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """Raises `TooLarge` when one event does not end within 4 MiB."""
        self._rest += piece
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        found = []
        for line in lines:
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                found.append(event)
        if len(self._rest) + sum(map(len, self._data)) > LARGEST_EVENT_BYTES:
            raise TooLarge
        return found

    def _line(self, line: bytes) -> bytes | None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            event = b"\n".join(self._data)
            self._data = []
            return event
        return None  # a comment, or a field that nobody here reads
