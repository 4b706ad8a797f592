"""Histories of requests, ends and clocks, for tests of the arithmetic of limits and of its twin in Valkey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from hypothesis import strategies as st


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request of so many tokens."""

    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """An earlier request (by its place among all asked, counted round) ends, having used so many tokens."""

    request: int
    tokens: int | None
    over: bool
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Time passes, and beside that the wall clock is set by `leap_ms`."""

    ms: int
    leap_ms: int = 0


Step = Union[Ask, Finish, Pass]
asks = st.builds(Ask, tokens=st.integers(0, 60))
finishes = st.builds(
    Finish,
    request=st.integers(0, 30),
    tokens=st.none() | st.integers(0, 90),
    over=st.booleans(),
    final=st.booleans(),
)
edges = st.sampled_from((100, 900, 59_000, 59_100, 59_900, 60_000, 60_999, 86_399_999, 86_400_000, 86_999_999))
passes = st.builds(Pass, ms=st.one_of(edges, st.integers(0, 3000), st.integers(0, 200_000), st.integers(0, 90_000_000)))
leaps = st.builds(
    Pass,
    ms=st.integers(0, 5000),
    leap_ms=st.one_of(st.integers(-100_000_000, 100_000_000), st.sampled_from((-60_000, 60_000, 3_000, -1))),
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "requests_per_minute": st.integers(1, 8),
        "tokens_per_minute": st.integers(1, 100),
        "tokens_per_day": st.integers(1, 200),
        "concurrent": st.integers(1, 5),
    },
)
histories = st.lists(st.one_of(asks, asks, asks, finishes, passes, leaps), max_size=60)
