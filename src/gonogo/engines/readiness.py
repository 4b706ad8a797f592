"""When a GPU engine is ready: which paths to ask, and what the right answers are. Pure.

Three steps, each stronger than the one before: `/health` says that the process answers, `/v1/models` that it serves the
name it was told to, and a warmed completion that it generates. Not here: asking, and judging an answer's content.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

LONGEST_BODY = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Paths on the replica's own port. `generates`: whether a good `alive` means that a token was just generated.

    `refused_while_loading`: nobody listens until the weights are in memory; False: it listens and answers 503.
    """

    alive: str
    models: str
    completion: str
    metrics: str
    generates: bool
    refused_while_loading: bool

    def answers(self, status: int) -> bool:
        """Whether this status of `alive` means that the engine runs. 503: still loading, or its child died."""
        return status == 200


def serves(body: str, name: str) -> bool | None:
    """Whether the answer of `/v1/models` lists this name; None when it is no such answer."""
    try:
        listed = json.loads(body[:LONGEST_BODY])["data"]
        return any(entry["id"] == name for entry in listed)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
