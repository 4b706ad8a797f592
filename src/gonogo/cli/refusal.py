"""`Refusal`: why a command did not do what it was asked, as a reason code, values and an exit code. And `Outcome`.

The words of a refusal stand in `words/refusals.yaml`, or, where it is a finding's reason, in the finding's file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

DONE, OUR_BUG, WRONG_INPUT, BLOCKED, WORLD_DID_NOT_COMPLY, INTERRUPTED = 0, 1, 2, 3, 4, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a verb gives back: the exit code, and the one object that `--json` prints."""

    exit_code: int = DONE
    result: Mapping[str, Any]


class Refusal(Exception):
    """A command ends here. `details` is added to the JSON object."""

    def __init__(
        self, reason: str, exit_code: int, values: Mapping[str, Any], details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{reason} {dict(values)}")
        self.reason, self.exit_code, self.values = reason, exit_code, values
        self.details: Mapping[str, Any] = details or {}
