"""No decorative checks: each check of the catalogue has its drill, and each drill its check."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from gonogo.checks.catalogue import CHECKS, HOST_CHECKS
from tests.drills.table import DRILLS

FILES = sorted(path.stem for path in Path(__file__).parent.glob("test_drills_*.py"))


def test_each_check_has_one_drill_and_each_drill_a_check() -> None:
    assert sorted(DRILLS) == sorted(check.name for check in (*CHECKS, *HOST_CHECKS))


@pytest.mark.parametrize("check", sorted(DRILLS))
def test_the_drill_of_a_check_exists_and_looks_for_that_check_alone(check: str) -> None:
    found = [vars(importlib.import_module(f"tests.drills.{file}")).get(DRILLS[check].test) for file in FILES]
    (drill,) = filter(None, found)
    source = inspect.getsource(drill)
    assert "assert_only(" in source
    assert f'"{check}"' in source


def test_each_companion_has_a_reason_and_is_a_check() -> None:
    names = {check.name for check in (*CHECKS, *HOST_CHECKS)}
    for drill in DRILLS.values():
        assert set(drill.companions) <= names
        assert all(drill.companions.values())
        assert drill.breaks
        assert drill.saves_from
