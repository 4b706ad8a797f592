"""Which release of which engine runs each recipe on which driver and which card, chosen as for a real host. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Mapping, Sequence

from gonogo.facts.engine_build import EngineBuild, Matrix
from gonogo.facts.environment import HostLimits, PythonAtHand
from gonogo.plan.environment import Choice, choose_build
from gonogo.plan.environment_constraints import Wish, constraints
from gonogo.spec.recipe import Recipe

DRIVERS = ("525.147.05", "535.183.01", "550.144.03", "570.133.20", "575.57.08", "580.95.05")
CARDS = (
    ("V100", "7.0"),
    ("T4", "7.5"),
    ("A100", "8.0"),
    ("RTX 3090", "8.6"),
    ("RTX 4090, L40S", "8.9"),
    ("H100, H200", "9.0"),
    ("B200", "10.0"),
    ("RTX 5090", "12.0"),
)
"""Cards by their compute capability (NVIDIA, CUDA GPU compute capability)."""
GOOD_HOST = HostLimits(
    accelerators=1,
    driver=DRIVERS[-1],
    capabilities=("8.0",),
    pythons=tuple(PythonAtHand(version=f"3.{minor}.0", path=f"/python3.{minor}") for minor in range(10, 15)),
    glibc="2.39",
    machine="x86_64",
    os_id=("ubuntu", "24.04"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """One recipe with one engine: what is chosen on each driver (with an A100), and on each card (newest driver)."""

    recipe: str
    engine: str
    on_drivers: tuple[Choice, ...]
    on_cards: tuple[Choice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixTables:
    """All rows, and the releases that they are chosen from, by engine, newest first."""

    rows: tuple[MatrixRow, ...]
    builds: Mapping[str, Sequence[EngineBuild]]


def matrix_tables(recipes: Mapping[str, Recipe], known: Matrix) -> MatrixTables:
    """Every recipe with every engine that it describes, or with its own where it describes none."""
    rows = [_row(recipe, engine, known) for recipe in recipes.values() for engine in _engines(recipe)]
    builds = {engine: tuple(reversed(found)) for engine, found in known.builds.items()}
    return MatrixTables(rows=tuple(rows), builds=builds)


def _engines(recipe: Recipe) -> tuple[str, ...]:
    return tuple(recipe.engines) or (recipe.engine,)


def _row(recipe: Recipe, engine: str, known: Matrix) -> MatrixRow:
    def chosen(host: HostLimits) -> Choice:
        found = constraints(Wish(engine=engine), recipe, host, known)
        return choose_build(known.builds[engine], found, host)

    return MatrixRow(
        recipe=recipe.name,
        engine=engine,
        on_drivers=tuple(chosen(replace(GOOD_HOST, driver=driver)) for driver in DRIVERS),
        on_cards=tuple(chosen(replace(GOOD_HOST, capabilities=(capability,))) for _, capability in CARDS),
    )
