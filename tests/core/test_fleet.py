"""How many replicas a demand needs, what they cost, and whose prices count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.facts.accelerator_class import CLASSES
from gonogo.plan import price_list
from gonogo.plan.calibration import calibration
from gonogo.plan.fleet import Fleet, Traffic, cost, fleet
from gonogo.plan.prices import CardPrice, load_prices
from gonogo.spec.mistakes import SpecMistakes
from tests.core.test_speed import deployment

MINE = """
prices:
  - card: H100 SXM 80GB
    on_demand: {usd_per_hour: 2.0, source: my contract, date: "2026-11-01"}
"""


def demand(**changed: object) -> Traffic:
    made = Traffic(prompt_tokens=1000, answer_tokens=500, concurrent=100)
    return replace(made, **changed)  # type: ignore[arg-type]


def found(**changed: object) -> Fleet:
    return fleet(deployment(cache_tokens=50_000.0), demand(**changed), calibration())


def test_all_requests_find_a_replica_and_no_replica_has_more_than_its_cache_holds() -> None:
    made = found()
    assert made.replicas is not None
    assert made.replicas * made.per_replica >= 100
    assert made.per_replica <= 50_000 / 1250
    assert made.replicas == 3


def test_a_tighter_promise_needs_more_replicas() -> None:
    loose, tight = found(), found(itl_ms=found().speed.itl_ms.high * 0.8)
    assert loose.replicas is not None
    assert tight.replicas is not None
    assert tight.replicas > loose.replicas
    assert tight.speed.itl_ms.high <= found().speed.itl_ms.high * 0.8


@pytest.mark.parametrize(("promise", "name"), [({"itl_ms": 0.001}, "itl_ms"), ({"ttft_ms": 0.001}, "ttft_ms")])
def test_a_promise_that_not_even_one_request_keeps_is_named_and_nothing_is_planned(
    promise: dict[str, float], name: str
) -> None:
    made = found(**promise)
    assert made.replicas is None
    assert made.broken == name
    assert cost(made, demand(), _prices()["H100 SXM 80GB"], spot=False) is None


@settings(max_examples=40, deadline=None)
@given(rate=st.floats(0.1, 500))
def test_twice_the_requests_per_second_never_need_fewer_replicas(rate: float) -> None:
    once, twice = (found(concurrent=None, requests_per_s=one) for one in (rate, 2 * rate))
    assert once.replicas is not None
    assert twice.replicas is not None
    assert once.replicas <= twice.replicas <= 2 * once.replicas


@pytest.mark.parametrize("changed", [{"concurrent": None}, {"requests_per_s": 1.0}])
def test_a_demand_is_counted_one_way(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="at once or so many per second"):
        found(**changed)


def test_the_cost_is_the_hourly_price_of_all_cards_over_what_they_produce_in_an_hour() -> None:
    made = found()
    paid = cost(made, demand(), _prices(MINE)["H100 SXM 80GB"], spot=False)
    assert paid is not None
    assert made.cards is not None
    assert made.replicas is not None
    assert paid.usd_per_hour == pytest.approx(2.0 * made.cards)
    tokens = made.speed.output_tokens_per_s.middle * made.replicas * 3600
    assert paid.per_million_output.middle == pytest.approx(paid.usd_per_hour / tokens * 1e6)
    assert paid.per_million_output.low <= paid.per_million_output.middle <= paid.per_million_output.high
    assert paid.per_million_total.middle == pytest.approx(paid.per_million_output.middle / 3)
    assert (paid.source, paid.date) == ("my contract", "2026-11-01")


def test_spot_is_counted_at_the_spot_price() -> None:
    price = _prices()["H200 SXM 141GB"]
    spot, on_demand = (cost(found(), demand(), price, spot=one) for one in (True, False))
    assert spot is not None
    assert on_demand is not None
    assert price.spot is not None
    assert price.on_demand is not None
    assert spot.usd_per_hour / on_demand.usd_per_hour == pytest.approx(
        price.spot.usd_per_hour / price.on_demand.usd_per_hour
    )
    assert spot.source == price.spot.source


def test_a_price_that_is_null_gives_no_cost_and_never_zero() -> None:
    unknown = CardPrice(card="T4 16GB")
    assert cost(found(), demand(), unknown, spot=False) is None
    assert cost(found(), demand(), None, spot=True) is None


def test_the_users_price_replaces_ours_whole() -> None:
    ours, mine = _prices()["H100 SXM 80GB"], _prices(MINE)["H100 SXM 80GB"]
    assert ours.spot is not None
    assert mine.on_demand is not None
    assert mine.on_demand.usd_per_hour == 2.0
    assert mine.spot is None
    assert _prices(MINE)["L40S"] == _prices()["L40S"]


def test_every_card_of_the_catalogue_has_a_line_with_a_source_or_null() -> None:
    assert set(_prices()) == {one.name for one in CLASSES}
    assert sum(price.on_demand is not None for price in _prices().values()) >= 12


@pytest.mark.parametrize(
    "text",
    [
        "prices: [{card: X, on_demand: {usd_per_hour: 0, source: s, date: '2026-01-01'}}]",
        "prices: [{card: X, on_demand: {usd_per_hour: 1, date: '2026-01-01'}}]",
        "prices: [{card: X, on_demand: {usd_per_hour: 1, source: s, date: yesterday}}]",
        "prices: [{card: X, on-demand: 3}]",
    ],
)
def test_a_price_without_amount_source_or_date_is_refused(text: str) -> None:
    with pytest.raises(SpecMistakes):
        load_prices({"mine.yaml": text})


def _prices(*more: str) -> dict[str, CardPrice]:
    return dict(load_prices({**price_list.texts(), **{f"mine-{at}.yaml": text for at, text in enumerate(more)}}))
