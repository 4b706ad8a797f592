"""The choice of a release: rules that hold whatever the host, the recipe and the wish."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from gonogo.checks.environment_ranges import can_both_hold
from gonogo.engines.planners import PLANNERS
from gonogo.facts.engine_build import BadKind
from gonogo.facts.environment import HostLimits, PythonAtHand
from gonogo.facts.matrix import matrix
from gonogo.plan.environment import Choice, choose_build
from gonogo.plan.environment_constraints import Wish, constraints
from gonogo.spec.recipes import recipes

KNOWN = matrix()
DRIVERS = (None, "470.82.01", "525.60.13", "535.154.02", "550.144.03", "570.133.20", "575.57.08", "580.95.05")
CAPABILITIES = ("6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1")
PYTHONS = ("3.9.18", "3.10.12", "3.11.7", "3.12.3", "3.13.0", "3.14.0")
NAMES = (None, *recipes())

hosts = st.builds(
    HostLimits,
    accelerators=st.sampled_from([None, 0, 1, 4]),
    driver=st.sampled_from(DRIVERS),
    capabilities=st.none() | st.lists(st.sampled_from(CAPABILITIES), max_size=3).map(tuple),
    pythons=st.sets(st.sampled_from(PYTHONS)).map(
        lambda found: tuple(PythonAtHand(version=one, path=f"/{one}") for one in sorted(found))
    ),
    glibc=st.sampled_from([None, "2.17", "2.28", "2.31", "2.34", "2.35", "2.39"]),
    machine=st.sampled_from([None, "x86_64", "aarch64", "riscv64"]),
)
engines = st.sampled_from(sorted(KNOWN.builds))
ranges = st.sampled_from(["", "==0.12.0", ">=0.20", "<0.19", "==0.5.9", ">=0.5.10", "==99.0"])


def chosen(engine: str, recipe: str | None, versions: str, host: HostLimits) -> Choice:
    wish = Wish(engine=engine, versions=versions)
    found = constraints(wish, recipes()[recipe] if recipe is not None else None, host, KNOWN)
    return choose_build(KNOWN.builds[engine], found, host)


@settings(max_examples=120, deadline=None)
@given(engines, st.sampled_from(NAMES), ranges, hosts)
def test_the_newest_release_that_everything_allows_is_chosen_and_no_other(
    engine: str, recipe: str | None, versions: str, host: HostLimits
) -> None:
    choice = chosen(engine, recipe, versions, host)
    found = constraints(Wish(engine=engine, versions=versions), recipes()[recipe] if recipe else None, host, KNOWN)
    allowed = [build for build in KNOWN.builds[engine] if all(one.allows(build) is True for one in found)]

    assert [bool(choice.build), bool(choice.unseen), bool(choice.clash)].count(True) == 1
    assert choice.build == (max(allowed, key=lambda build: Version(build.version)) if allowed else None)
    if choice.build is not None:
        assert choice.python is not None and choice.python in host.pythons
        assert choice.build.pythons.contains(choice.python.version)


@settings(max_examples=120, deadline=None)
@given(engines, st.sampled_from(NAMES), ranges, hosts)
def test_the_sides_of_a_clash_leave_nothing_together_and_something_less_one(
    engine: str, recipe: str | None, versions: str, host: HostLimits
) -> None:
    choice = chosen(engine, recipe, versions, host)
    if choice.clash is None:
        return
    wish = Wish(engine=engine, versions=versions)
    found = {one.name: one for one in constraints(wish, recipes()[recipe] if recipe else None, host, KNOWN)}
    sides = [found[side.name] for side in choice.clash.sides if side.name != "engine"]

    def left(some: list[object]) -> bool:
        return any(all(one.allows(build) is not False for one in some) for build in KNOWN.builds[engine])  # type: ignore[attr-defined]

    assert len(choice.clash.sides) >= 2
    assert not left(list(sides))
    assert all(left([one for one in sides if one is not out]) for out in sides)


@settings(max_examples=120, deadline=None)
@given(engines, st.sampled_from(NAMES), ranges, hosts)
def test_what_is_said_to_mend_a_clash_mends_it(
    engine: str, recipe: str | None, versions: str, host: HostLimits
) -> None:
    choice = chosen(engine, recipe, versions, host)
    if choice.clash is None or choice.clash.nearest is None:
        return
    nearest, mended, asked = choice.clash.nearest, host, versions
    for mend in choice.clash.mends:
        if mend.kind == "driver":
            mended = replace(mended, driver=mend.values["driver"])
        elif mend.kind == "python":
            fitting = next(one for one in reversed(PYTHONS) if nearest.pythons.contains(one))
            mended = replace(mended, pythons=(*mended.pythons, PythonAtHand(version=fitting, path="/new")))
        elif mend.kind == "glibc":
            mended = replace(mended, glibc=mend.values["glibc"])
        elif mend.kind == "accelerator":
            mended = replace(mended, accelerators=1, driver=mended.driver or "580.95.05")
        elif mend.kind == "capability":
            mended = replace(mended, capabilities=("8.0",))
        else:
            assert mend.kind == "wish"
            asked = f"=={mend.values['version']}"
    if any(mend.kind == "accelerator" for mend in choice.clash.mends):
        mended = replace(mended, driver="580.95.05", capabilities=("8.0",))

    assert chosen(engine, recipe, asked, mended).build is not None


@settings(max_examples=80, deadline=None)
@given(engines, st.sampled_from(NAMES), hosts, st.sampled_from(["driver", "capabilities", "glibc", "machine"]))
def test_what_was_not_observed_never_passes(engine: str, recipe: str | None, host: HostLimits, hidden: str) -> None:
    blind = replace(host, **{hidden: None})
    found = chosen(engine, recipe, "", blind).build
    if found is None:
        return
    assert hidden not in ("glibc", "machine"), "every release needs to know it"
    assert found.driver_least is None or hidden == "capabilities"
    assert found.capability_least is None or hidden == "driver"


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["vllm", "sglang"]), st.sampled_from(NAMES), hosts)
def test_a_newer_driver_never_gives_an_older_release(engine: str, recipe: str | None, host: HostLimits) -> None:
    versions = []
    for driver in DRIVERS[1:]:
        build = chosen(engine, recipe, "", replace(host, driver=driver)).build
        versions.append(Version(build.version) if build is not None else Version("0"))
    assert versions == sorted(versions)


def test_the_same_input_gives_the_same_choice() -> None:
    host = HostLimits(accelerators=1, driver="580.95.05", capabilities=("8.9",), glibc="2.35", machine="x86_64")
    host = replace(host, pythons=(PythonAtHand(version="3.12.3", path="/p"),))
    assert chosen("vllm", "autoglm-phone-9b", "", host) == chosen("vllm", "autoglm-phone-9b", "", host)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (">=5.0.0rc0", ">=4.56,<5", False),
        (">=5.0.0rc0", ">=5.5.3", True),
        (">=5.0.0rc0", ">=4.56.0,!=5.0.*,!=5.1.*,!=5.2.*,!=5.3.*,!=5.4.*,!=5.5.0", True),
        (">=5.0.0rc0,<5.5.0", ">=4.56.0,!=5.0.*,!=5.1.*,!=5.2.*,!=5.3.*,!=5.4.*,!=5.5.0", False),
        (">=2.9.0", "==2.8.0", False),
        (">=2.9.0", "==2.9.0", True),
        (">1.0", "<1.0.1", True),
        ("", ">=1", True),
        ("<2", ">1.9999", True),
    ],
)
def test_two_ranges_have_a_version_in_common_or_not(first: str, second: str, expected: bool) -> None:
    assert can_both_hold(first, second) is expected
    assert can_both_hold(second, first) is expected


def test_every_row_of_the_matrix_fits_together() -> None:
    for builds in KNOWN.builds.values():
        for build in builds:
            assert build.source and build.ask
            assert any(build.pythons.contains(f"3.{minor}.0") for minor in range(9, 16)), build.version
            assert (build.cuda is None) == (build.capability_least is None), build.version
            if build.cuda is not None:
                assert build.torch is not None and build.torch.cuda is not None
                assert build.torch.cuda.split(".")[0] == build.cuda.cuda.split(".")[0] or build.version == "0.9.2"
                assert any(build.runs_on(capability) for capability in CAPABILITIES)
    for release in KNOWN.cuda.values():
        assert Version(release.family_driver) <= Version(release.driver)
    for bad in KNOWN.bad:
        assert bad.link.startswith("https://") and set(bad.what) == {"en", "zh"}


def test_every_engine_of_a_recipe_is_in_the_matrix_and_the_plans_newest_too() -> None:
    for recipe in recipes().values():
        assert {recipe.engine, *recipe.engines} <= KNOWN.builds.keys(), recipe.name
    for engine in ("vllm", "sglang"):
        assert PLANNERS[engine].newest_text == KNOWN.builds[engine][-1].version


def test_no_release_of_an_engine_is_on_the_list_of_the_poisoned() -> None:
    for builds in KNOWN.builds.values():
        for build in builds:
            bad = KNOWN.bad_release(build.package, build.version)
            assert bad is None or bad.kind is BadKind.HOLES


def test_every_card_of_a_host_counts() -> None:
    host = HostLimits(accelerators=2, driver="580.95.05", capabilities=("8.0", "7.0"), glibc="2.35", machine="x86_64")
    host = replace(host, pythons=(PythonAtHand(version="3.12.3", path="/p"),))
    assert chosen("vllm", None, "", host).build.version == "0.19.0"  # type: ignore[union-attr]
    assert chosen("vllm", None, "", replace(host, capabilities=("8.0",))).build.version == "0.33.0"  # type: ignore[union-attr]
