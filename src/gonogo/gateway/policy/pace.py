"""How fast the replicas of a revision work, learned from the requests that ended. Pure.

Tokens of prompts and of answers count alike, as they do in what a replica may hold.
"""

from __future__ import annotations

SMOOTHING = 0.1


class Pace:
    """Seconds that a replica takes for a token of the requests that it works on: smoothed over about the last ten."""

    def __init__(self) -> None:
        self._token_s: float | None = None

    def note(self, tokens: int, held_s: float, together: float) -> None:
        """One ended that held so many tokens for so long, beside others: `together` requests, it included."""
        seen = max(0.0, held_s) / max(1, tokens) / max(1.0, together)
        self._token_s = seen if self._token_s is None else self._token_s + SMOOTHING * (seen - self._token_s)

    def takes_s(self, tokens: int, replicas: int = 1) -> float | None:
        """How long so many replicas take for so many tokens; None: none ended yet."""
        return None if self._token_s is None else tokens * self._token_s / max(1, replicas)

    def tokens_in(self, seconds: float) -> int | None:
        """How many tokens one replica gets done in that time; None: not known."""
        return None if not self._token_s else int(seconds / self._token_s)
