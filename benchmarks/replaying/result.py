"""What came of each request, and the numbers that a table has of all of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Sequence

from replaying.trace import Arrival

REFUSED = 429


@dataclass(frozen=True)
class Outcome:
    """One request. Times in seconds from when it arrived, not from when it was sent; `status` 0: no answer.

    `gaps_s`: between tokens. `done`: its answer came to its end. `prompt_tokens`: as the engine counted them.
    """

    arrival: Arrival
    status: int
    ttft_s: float | None = None
    gaps_s: tuple[float, ...] = ()
    tokens: int = 0
    done: bool = False
    ended_s: float = 0.0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def itl_s(self) -> float:
        """Mean gap between its tokens."""
        return sum(self.gaps_s) / len(self.gaps_s) if self.gaps_s else 0.0


@dataclass(frozen=True)
class Slo:
    """The first token by then, and the mean gap between tokens at most so long."""

    ttft_s: float
    itl_s: float

    def met(self, outcome: Outcome) -> bool:
        return (
            outcome.done
            and outcome.ttft_s is not None
            and outcome.ttft_s <= self.ttft_s
            and outcome.itl_s <= self.itl_s
        )


@dataclass(frozen=True)
class Row:
    """One way of serving. Shares of all requests; times in seconds."""

    name: str
    requests: int
    goodput_per_s: float
    good: float
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    ttft_p99_s: float | None
    interactive_ttft_p99_s: float | None
    itl_p50_s: float | None
    itl_p95_s: float | None
    itl_p99_s: float | None
    tokens_per_s: float
    reused: float | None
    refused: int
    lost: int
    doubled: int
    worst_key: str
    worst_key_good: float


def row_of(name: str, outcomes: Sequence[Outcome], slo: Slo) -> Row:
    """The numbers of one replay."""
    good = [outcome for outcome in outcomes if slo.met(outcome)]
    # Until the last request arrived: what is still in a queue then was not served in time.
    seconds = max(outcome.arrival.at_s for outcome in outcomes)
    whole = max(outcome.arrival.at_s + outcome.ended_s for outcome in outcomes)
    done = [outcome for outcome in outcomes if outcome.done]
    first = sorted(outcome.ttft_s for outcome in done if outcome.ttft_s is not None)
    asked = sorted(each.ttft_s for each in done if each.ttft_s is not None and each.arrival.interactive)
    gaps = sorted(gap for outcome in done for gap in outcome.gaps_s)
    received = sum(outcome.tokens for outcome in outcomes)
    by_key: dict[str, list[bool]] = defaultdict(list)
    for outcome in outcomes:
        by_key[outcome.arrival.key].append(slo.met(outcome))
    worst = min(by_key, key=lambda key: sum(by_key[key]) / len(by_key[key]))
    prompts = sum(each.prompt_tokens or 0 for each in done)
    cached = [each.cached_tokens for each in done if each.cached_tokens is not None]
    return Row(
        name=name,
        requests=len(outcomes),
        goodput_per_s=len(good) / seconds,
        good=len(good) / len(outcomes),
        ttft_p50_s=at(first, 0.5),
        ttft_p95_s=at(first, 0.95),
        ttft_p99_s=at(first, 0.99),
        interactive_ttft_p99_s=at(asked, 0.99),
        itl_p50_s=at(gaps, 0.5),
        itl_p95_s=at(gaps, 0.95),
        itl_p99_s=at(gaps, 0.99),
        tokens_per_s=received / whole,
        reused=sum(cached) / prompts if cached and prompts else None,
        refused=sum(1 for outcome in outcomes if outcome.status == REFUSED),
        lost=sum(1 for outcome in outcomes if not outcome.done and outcome.status != REFUSED),
        doubled=sum(1 for outcome in outcomes if outcome.tokens > outcome.arrival.answer_tokens),
        worst_key=worst,
        worst_key_good=sum(by_key[worst]) / len(by_key[worst]),
    )


def at(ordered: Sequence[float], share: float) -> float | None:
    """The value below which that share of them lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
