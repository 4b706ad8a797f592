"""docs/fit*.md is what the plan says of every recipe on every card. `--accept` writes it; the diff is the review."""

from __future__ import annotations

from pathlib import Path

import pytest

from gonogo.plan.fit_table import FitTables, fit_tables
from gonogo.spec.recipes import recipes
from gonogo.words import Language
from gonogo.words.fit_table import fit_page

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def tables() -> FitTables:
    return fit_tables(recipes())


@pytest.mark.parametrize(("lang", "file"), [("en", "fit.md"), ("zh", "fit.zh-CN.md")])
def test_the_page_says_what_the_plan_says(
    lang: Language, file: str, tables: FitTables, pytestconfig: pytest.Config
) -> None:
    page = fit_page(tables, lang)
    if pytestconfig.getoption("--accept"):
        (DOCS / file).write_text(page, encoding="utf-8")
    assert (DOCS / file).read_text(encoding="utf-8") == page


def test_every_recipe_of_a_hub_stands_in_it_and_fits_somewhere(tables: FitTables) -> None:
    assert len(tables.recipes) > 15
    for recipe in tables.recipes:
        assert any(cell.option is not None for cell in tables.cells[recipe.name]), recipe.name
        assert len(tables.cells[recipe.name]) == len(tables.cards)


def test_what_one_card_serves_is_the_same_in_both_tables(tables: FitTables) -> None:
    for name, cells in tables.cells.items():
        alone = {cell.card for cell in cells if cell.option is not None and cell.count == 1}
        assert alone == {card for row in tables.forms[name] for card in row.cards}, name


def test_weights_shrink_with_their_bits(tables: FitTables) -> None:
    for name, rows in tables.forms.items():
        whole = [row.weights_bytes for row in rows if row.way.quantization == "none"]
        smaller = [row.weights_bytes for row in rows if row.way.quantization != "none"]
        assert all(one < other for one in smaller for other in whole), name
