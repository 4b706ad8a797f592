"""How each recipe fits each card: the smallest number of cards that serves it, in which form, for how many. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from gonogo.engines.capacity import Ask, capacity
from gonogo.engines.hardware import Hardware
from gonogo.engines.shard import Cut, rank_weights
from gonogo.facts.accelerator_class import CLASSES
from gonogo.facts.card_limits import CARD_LIMITS
from gonogo.plan.choose import Demand, Option, Way, ask_for, choose
from gonogo.plan.ways import ways_of_recipe
from gonogo.spec.recipe import HubSource, Recipe

COUNTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One recipe on one kind of card: the option on the fewest cards; None: not on 16 of them either."""

    recipe: str
    card: str
    count: int
    option: Option | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FormRow:
    """One form of a recipe's weights: what they take in all, one request, and the cards that serve it alone. Bytes."""

    recipe: str
    way: Way
    weights_bytes: int
    request_bytes: int | None
    cards: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTables:
    """Both tables: recipes over cards, and the forms of each recipe."""

    cards: tuple[Hardware, ...]
    recipes: tuple[Recipe, ...]
    cells: Mapping[str, tuple[Cell, ...]]
    forms: Mapping[str, tuple[FormRow, ...]]


def fit_tables(recipes: Mapping[str, Recipe]) -> FitTables:
    """Plans every recipe of a hub on every card: some seconds."""
    cards = planned_cards()
    hub = tuple(recipe for recipe in recipes.values() if isinstance(recipe.source, HubSource))
    return FitTables(
        cards=cards,
        recipes=hub,
        cells={recipe.name: cells(recipe, cards) for recipe in hub},
        forms={recipe.name: forms(recipe, cards) for recipe in hub},
    )


def planned_cards() -> tuple[Hardware, ...]:
    """One of each card that plans are made for, smallest first."""
    cards = [
        Hardware(count=1, card=card, limits=CARD_LIMITS[card.name]) for card in CLASSES if card.name in CARD_LIMITS
    ]
    return tuple(sorted(cards, key=lambda one: (one.limits.usable_gib, one.card.name)))


def cells(recipe: Recipe, cards: Sequence[Hardware]) -> tuple[Cell, ...]:
    """One recipe over all cards, with requests of its usual length."""
    ways = ways_of_recipe(recipe)
    demand = Demand(concurrent_requests=1, context_tokens=recipe.context_tokens)
    return tuple(_cell(recipe, ways, demand, one) for one in cards)


def forms(recipe: Recipe, cards: Sequence[Hardware]) -> tuple[FormRow, ...]:
    """Each form that can be obtained, and where one card serves it."""
    demand = Demand(concurrent_requests=1, context_tokens=recipe.context_tokens)
    return tuple(_form(recipe, way, demand, cards) for way in ways_of_recipe(recipe))


def _cell(recipe: Recipe, ways: Sequence[Way], demand: Demand, one: Hardware) -> Cell:
    for count in COUNTS:
        best = choose(ways, Hardware(count=count, card=one.card, limits=one.limits), demand, Ask()).best
        if best is not None and best.requests >= 1:
            return Cell(recipe=recipe.name, card=one.card.name, count=count, option=best)
    return Cell(recipe=recipe.name, card=one.card.name, count=COUNTS[-1], option=None)


def _form(recipe: Recipe, way: Way, demand: Demand, cards: Sequence[Hardware]) -> FormRow:
    served = []
    for one in cards:
        best = choose((way,), one, demand, Ask()).best
        if best is not None and best.requests >= 1:
            served.append(one.card.name)
    planned = capacity(way.model, cards[-1], ask_for(way, demand, Ask())).memory
    pool = planned.pool if planned is not None else None
    model = way.model.architecture
    whole = Cut(tensor=1, pipeline=1, stage=0)
    return FormRow(
        recipe=recipe.name,
        way=way,
        weights_bytes=planned.ranks[0].term("weights")
        if way.gguf and planned is not None
        else rank_weights(model, way.model.merged, model.dtype_bytes, way.scheme, whole),
        request_bytes=pool.request_bytes if pool is not None else None,
        cards=tuple(served),
    )
