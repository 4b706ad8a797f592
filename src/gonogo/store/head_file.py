"""The remembered end of the event chain: one line `sequence hash` in a file beside the database, for the verifier.

A chain alone cannot show that its end was cut off. It is written after the commit, so that after a crash it may lag
behind the chain, but never runs ahead of it. It only ever moves on along a chain that still holds what it remembers:
when the end was cut, later events must not cover that up. So what contradicts the file stays contradicted, and a file
that was removed stays missing, until a person looks.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gonogo.security.chain import GENESIS, Head

NAME = "chain-head"
_LENGTH = 86


class HeadFile:
    """The head file of one store."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self) -> None:
        """Make the file for a chain without events. Raises OSError."""
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            with suppress(OSError):  # a full disk: an empty file is a beginning, and the next event fills it
                self.write(GENESIS)

    def read(self) -> Head | None:
        """What is remembered; `GENESIS` while the file is empty, None when it is missing or spoiled."""
        try:
            content = self.path.read_bytes()[: _LENGTH + 1]
        except OSError:
            return None
        if not content:
            return GENESIS
        words = content.decode("ascii", "replace").split()
        if len(content) != _LENGTH or len(words) != 2 or not words[0].isdecimal():
            return None
        return Head(sequence=int(words[0]), hash=words[1])

    def write(self, head: Head) -> None:
        """In place and of fixed length: one write, which a crash leaves done or not done. Raises OSError."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, f"{head.sequence:020d} {head.hash}\n".encode("ascii"), 0)
        finally:
            os.close(descriptor)
