"""Measured availability, its interval and the error budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.plan.availability import availability, wilson


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_the_ends_of_the_interval_are_the_shares_that_the_score_test_just_rejects(successes: int, others: int) -> None:
    """Wilson's definition, |share - p| = z · sqrt(p (1 - p) / n) at both ends, squared: a root makes much of the last
    bit of an end that is 1."""
    trials = successes + others
    if not trials:
        return
    for end in wilson(successes, trials):
        spread = 1.959963984540054**2 * end * (1 - end) / trials
        assert (successes / trials - end) ** 2 == pytest.approx(spread, rel=1e-9, abs=1e-15)


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_the_interval_holds_the_share_and_more_requests_make_it_narrower(successes: int, more: int) -> None:
    trials = successes + more
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    wide = wilson(successes * 4, trials * 4)
    assert wide[1] - wide[0] < high - low


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_success_and_failure_are_mirror_images(answered: int, failed: int) -> None:
    if answered + failed:
        low, high = wilson(answered, answered + failed)
        assert wilson(failed, answered + failed) == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_nothing_asked_says_nothing() -> None:
    found = availability(0, 0)
    assert (found.share, found.low, found.budget_left, found.proven) == (None, None, None, False)


def test_the_budget_is_untouched_half_used_and_overdrawn() -> None:
    assert availability(10_000, 0).budget_left == 1
    assert availability(99_985, 15).budget_left == pytest.approx(0.5)
    assert availability(9_994, 6).budget_left == pytest.approx(-1)


def test_without_a_failure_it_takes_12801_requests_to_prove_the_objective() -> None:
    """A share of 1 of few requests is no proof; z² · 0.9997 / 0.0003 = 12,801."""
    assert not availability(12_800, 0).proven
    assert availability(12_802, 0).proven
    assert not availability(100_000, 30).proven, "exactly the objective, so that the interval reaches below it"


def test_what_cannot_be_is_refused() -> None:
    for wrong in ((-1, 0, 0.9), (0, -1, 0.9), (1, 1, 1.0), (1, 1, 0.0)):
        with pytest.raises(ValueError, match="objective"):
            availability(*wrong)
