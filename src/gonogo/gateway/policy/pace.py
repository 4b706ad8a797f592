"""How fast the replicas of a revision work, learned from the requests that ended. Pure.

Tokens of prompts and of answers count alike, as they do in what a replica may hold. How long a prompt alone takes is
learned beside that, from streams: their first token comes when it is computed.
"""

from __future__ import annotations

from collections import deque
from statistics import median

SMOOTHING = 0.1
LATELY = 15
"""So many first tokens tell how long a prompt takes now. Of them the middle one: some waited for other prompts, and few
found a replica that did nothing else.
"""
FEWEST_TOKENS = 16
"""A shorter prompt tells how long a step takes, and not a token of it."""


class Pace:
    """Seconds that a replica takes for a token of the requests that it works on: smoothed over about the last ten."""

    def __init__(self) -> None:
        self._token_s: float | None = None
        self._prompts_token_s: deque[float] = deque(maxlen=LATELY)

    def note(self, tokens: int, held_s: float, together: float) -> None:
        """One ended that held so many tokens for so long, beside others: `together` requests, it included."""
        seen = max(0.0, held_s) / max(1, tokens) / max(1.0, together)
        self._token_s = seen if self._token_s is None else self._token_s + SMOOTHING * (seen - self._token_s)

    def note_first(self, prompt_tokens: int, first_s: float) -> None:
        """The first token of one came after so long; so many tokens of its prompt had to be computed."""
        if prompt_tokens >= FEWEST_TOKENS and first_s > 0:
            self._prompts_token_s.append(first_s / prompt_tokens)

    def prompt_s(self, tokens: int) -> float:
        """How long one replica takes for so many tokens of a prompt; 0: not known."""
        known = [] if self._token_s is None else [self._token_s]
        known += [median(self._prompts_token_s)] if self._prompts_token_s else []
        return tokens * min(known, default=0.0)

    def prompt_tokens_in(self, seconds: float) -> int:
        """How many tokens of prompts one replica computes in that time; 0: not known."""
        token_s = self.prompt_s(1)
        return int(seconds / token_s) if token_s else 0

    def takes_s(self, tokens: int, replicas: int = 1) -> float | None:
        """How long so many replicas take for so many tokens; None: none ended yet."""
        return None if self._token_s is None else tokens * self._token_s / max(1, replicas)

    def tokens_in(self, seconds: float) -> int | None:
        """How many tokens one replica gets done in that time; None: not known."""
        return None if not self._token_s else int(seconds / self._token_s)
