"""What a card costs per hour, on demand and spot, each with its source and date; a user's file goes before ours. Pure.

The texts come from `gonogo.plan.price_list` and from the user. A price that nobody could source is null there, and the
answer then says so (None): it is never taken for 0. Not here: taxes, storage, traffic, reserved capacity.
"""

from __future__ import annotations

from typing import Annotated, Mapping, Optional

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from gonogo.engines.hardware import card_named, nearest
from gonogo.spec.load import read
from gonogo.spec.part import Part

DEAREST_USD_PER_HOUR = 1000
NEAREST = 5


class Offer(Part):
    """One published price of one card for one hour, in US dollars; where it was published, and when it was read."""

    usd_per_hour: Annotated[float, Field(gt=0, le=DEAREST_USD_PER_HOUR)]
    source: Annotated[str, Field(min_length=1, max_length=300)]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


def _card(name: str) -> str:
    """The card's own name, for one as people call it (`H100`)."""
    found = card_named(name)
    if found is None:
        near = ", ".join(nearest(name)[:NEAREST])
        raise PydanticCustomError("UnknownCard", "no card of the catalogue; near it: {near}", {"near": near})
    return found.name


class CardPrice(Part):
    """A card by the name of its class. `spot` may be taken away at any moment."""

    card: Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_card)]
    on_demand: Optional[Offer] = None
    spot: Optional[Offer] = None


class PriceTable(Part):
    """One file of prices."""

    prices: Annotated[tuple[CardPrice, ...], Field(max_length=500)]


def load_prices(texts: Mapping[str, str]) -> Mapping[str, CardPrice]:
    """By card, from texts by file name; what a later text says of a card replaces what an earlier one said.

    Raises SpecMistakes with line and column.
    """
    found: dict[str, CardPrice] = {}
    for filename, text in texts.items():
        for price in read(text, filename, PriceTable).prices:
            found[price.card] = price
    return found
