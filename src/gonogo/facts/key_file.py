"""What was seen of a file that holds the key of a hosted API. Never the key."""

from __future__ import annotations

from dataclasses import dataclass

MOST_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFileFacts:
    """`trouble`: why it cannot be used (a code that has words); None: it can. `owner_only` None: it is not there.

    `stamp` is another when the file is: its owner replaced the key.
    """

    trouble: str | None
    owner_only: bool | None
    stamp: str = ""


def is_key(content: bytes) -> bool:
    """Whether this is one word that can stand in a header, with at most white space around it."""
    key = content.strip()
    return len(key) > 0 and all(0x21 <= byte <= 0x7E for byte in key)
