"""Failures that people reported: from what a host or a file says to the right finding, with the right remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gonogo.checks.environment import Wanted, blocks, judge
from gonogo.checks.finding import Verdict
from gonogo.facts.environment import Environment, HostLimits, PythonAtHand
from gonogo.facts.matrix import matrix
from gonogo.facts.parse_environment import parse_requirements
from gonogo.plan.environment import choose_build
from gonogo.plan.environment_constraints import Wish, constraints
from gonogo.spec.recipes import recipes
from gonogo.words import finding_text
from gonogo.words.environment import choice_reason, environment_finding_text

CASES = yaml.safe_load(
    (Path(__file__).parents[1] / "cases/environment/known-failures.yaml").read_text(encoding="utf-8")
)
CHOOSING = [case for case in CASES if "choose" in case]
JUDGING = [case for case in CASES if "judge" in case]


def host(case: dict[str, Any]) -> HostLimits:
    cards = case.get("cards", [])
    pythons = case.get("pythons", ["3.12.3", "3.11.7", "3.10.12"])
    return HostLimits(
        accelerators=len(cards) if cards is not None else None,
        driver=case.get("driver"),
        capabilities=tuple(cards) if cards is not None else None,
        others=tuple(case.get("others", ())),
        pythons=tuple(PythonAtHand(version=str(one), path="/usr/bin/python3") for one in pythons),
        glibc=case.get("glibc", "2.35"),
        machine="x86_64",
        os_id=("ubuntu", "22.04"),
        nvcc=case.get("nvcc"),
    )


def ids(case: dict[str, Any]) -> str:
    return str(case["name"])


def test_there_are_enough_of_them_and_each_has_its_thread() -> None:
    assert len(CASES) >= 20
    assert all(case["thread"].startswith("https://") for case in CASES)
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CHOOSING, ids=ids)
def test_the_choice_names_what_clashes_and_what_mends_it(case: dict[str, Any]) -> None:
    asked, expect, limits, known = case["choose"], case["expect"], host(case), matrix()
    wish = Wish(engine=asked["engine"], versions=asked.get("versions", ""))
    recipe = recipes()[asked["recipe"]] if "recipe" in asked else None

    choice = choose_build(known.builds[wish.engine], constraints(wish, recipe, limits, known), limits)

    if "release" in expect:
        assert choice.build is not None and choice.build.version == expect["release"]
        return
    assert [side.name for side in (choice.clash.sides if choice.clash else ())] == expect.get("sides", [])
    assert [side.name for side in choice.unseen] == expect.get("unseen", [])
    for lang in ("en", "zh"):
        reason, values = choice_reason(wish.engine, choice, lang)
        text = finding_text(reason, values, lang)
        assert text.remedy
        assert "?" not in text.seen + text.remedy
        if lang == "en":
            assert all(words in text.seen for words in expect.get("says", ())), text.seen
            assert all(words in text.remedy for words in expect.get("mends", ())), text.remedy


@pytest.mark.parametrize("case", JUDGING, ids=ids)
def test_an_environment_gets_the_right_findings_with_the_right_remedies(case: dict[str, Any]) -> None:
    asked, expect = case["judge"], case["expect"]
    read = parse_requirements(asked["requirements"], "requirements.txt")
    seen = Environment(source=read.source, python=asked.get("python"), packages=read.packages)
    against = asked.get("against")
    wanted = Wanted(
        guide=matrix().guide if against == "guide" else None, recipe=recipes().get(against) if against else None
    )

    findings = judge(seen, wanted, host(case), matrix())

    failing = [one for one in findings if one.verdict is not Verdict.PASS]
    assert {one.reason for one in failing} == set(expect["reasons"])
    assert any(blocks(one) for one in findings) is not expect.get("advice", False)
    texts = [environment_finding_text(one, "en") for one in failing]
    assert all(any(words in text.seen for text in texts) for words in expect.get("says", ())), texts
    assert all(any(words in (text.remedy or "") for text in texts) for words in expect.get("mends", ())), texts
    assert all(text.remedy for text in texts)
    for one in failing:
        chinese = environment_finding_text(one, "zh")
        assert chinese.remedy and "?" not in chinese.seen
