"""docs/matrix*.md is what is chosen for every recipe on every driver and card. `--accept` writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version

from gonogo.facts.matrix import matrix
from gonogo.plan.matrix_table import MatrixTables, matrix_tables
from gonogo.spec.recipes import recipes
from gonogo.words import Language
from gonogo.words.matrix_table import matrix_page

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def tables() -> MatrixTables:
    return matrix_tables(recipes(), matrix())


@pytest.mark.parametrize(("lang", "file"), [("en", "matrix.md"), ("zh", "matrix.zh-CN.md")])
def test_the_page_says_what_is_chosen(
    lang: Language, file: str, tables: MatrixTables, pytestconfig: pytest.Config
) -> None:
    page = matrix_page(tables, matrix(), lang)
    if pytestconfig.getoption("--accept"):
        (DOCS / file).write_text(page, encoding="utf-8")
    assert (DOCS / file).read_text(encoding="utf-8") == page


def test_every_recipe_runs_somewhere_with_every_engine_that_it_describes(tables: MatrixTables) -> None:
    described = {(name, engine) for name, recipe in recipes().items() for engine in recipe.engines or [recipe.engine]}
    assert {(row.recipe, row.engine) for row in tables.rows} == described
    for row in tables.rows:
        assert any(choice.build is not None for choice in row.on_cards), (row.recipe, row.engine)


def test_what_does_not_run_names_what_clashes(tables: MatrixTables) -> None:
    for row in tables.rows:
        for choice in (*row.on_drivers, *row.on_cards):
            if choice.build is None:
                assert choice.clash is not None and len(choice.clash.sides) >= 2, (row.recipe, row.engine)


def test_a_newer_driver_never_takes_a_release_away(tables: MatrixTables) -> None:
    for row in tables.rows:
        versions = [Version(choice.build.version) if choice.build else Version("0") for choice in row.on_drivers]
        assert versions == sorted(versions)
