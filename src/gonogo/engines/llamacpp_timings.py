"""llama-server's `timings`, of all attempts at one answer together: the prompt as the first one met it, the tokens and
their time summed; and the usage that follows from them."""

from __future__ import annotations

from gonogo.engines.stream import Json, number


class Timings:
    """`told`: as the client gets them; empty until the first piece. `prompt_ms`: the running attempt's own."""

    def __init__(self) -> None:
        self.told: Json = {}
        self.prompt_ms: float | None = None
        self._earlier_ms = 0.0

    @property
    def prompt_tokens(self) -> int | None:
        """None before an engine has told it."""
        return number(self.told.get("prompt_n")) + number(self.told.get("cache_n")) or None

    @property
    def cached_tokens(self) -> int | None:
        return number(self.told.get("cache_n")) if self.told else None

    def another_attempt(self) -> None:
        """What was told so far is of earlier attempts."""
        self._earlier_ms = float(self.told.get("predicted_ms") or 0.0)
        self.prompt_ms = None

    def take(self, last: Json, tokens: int, *, continued: bool) -> None:
        """What the running attempt says now; `tokens`: of all attempts. `continued`: it goes on where another ended."""
        prompt_ms = last.get("prompt_ms")
        self.prompt_ms = float(prompt_ms) if isinstance(prompt_ms, (int, float)) else None
        if not continued:
            self.told = last
            return
        spent = self._earlier_ms + float(last.get("predicted_ms") or 0.0)
        self.told = {
            **last,
            **{key: value for key, value in self.told.items() if key.startswith(("cache_", "prompt_"))},
            "predicted_n": tokens,
            "predicted_ms": spent,
            "predicted_per_token_ms": spent / tokens if tokens else 0.0,
            "predicted_per_second": 1e3 * tokens / spent if spent else 0.0,
        }

    def usage(self, tokens: int) -> Json:
        """OpenAI's usage for so many tokens of answer."""
        prompt = self.prompt_tokens or 0
        return {
            "completion_tokens": tokens,
            "prompt_tokens": prompt,
            "total_tokens": prompt + tokens,
            "prompt_tokens_details": {"cached_tokens": number(self.told.get("cache_n"))},
        }

    def beside(self, event: Json) -> Json:
        """The event with them, where there are any."""
        return {**event, "timings": self.told} if self.told else event
