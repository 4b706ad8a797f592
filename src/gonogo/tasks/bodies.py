"""Prompts and results as they are kept: JSON, sealed, bound to their task. Nothing else makes one of the other."""

from __future__ import annotations

import json
from typing import Any

from gonogo.security.keyring import Keyring
from gonogo.security.sealing import place


class Bodies:
    """Seals and opens with the keys of one deployment. Raises `KeyFileError`, a `SealError` for what does not open."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring

    def seal(self, row: str, column: str, value: object) -> bytes:
        """`value` as JSON, sealed for this column of this row (a task's, file's or batch's id, which are unlike)."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        return self.keyring.seal(text, place("tasks", row, column))

    def open(self, row: str, column: str, sealed: bytes) -> Any:
        return json.loads(self.keyring.open(sealed, place("tasks", row, column)).decode("utf-8", "surrogatepass"))
