"""Which environments may go: one sentence for each rule, and one for all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gonogo.facts.environment import EnvironmentMade
from gonogo.plan.collect import KEPT_S, unused, uses_of
from gonogo.spec import Revision
from gonogo.spec.engine import EngineChoice
from tests.core.worlds import NOW, revision, service

LONG_AGO = NOW - KEPT_S - 1


def made(name: str, engine: str = "llama.cpp", **changes: Any) -> EnvironmentMade:
    fields: dict[str, Any] = {"made_at": LONG_AGO, "used_at": LONG_AGO}
    return EnvironmentMade(
        name=name, engine=engine, version="1", answered="1", lock="0", python="/p", **{**fields, **changes}
    )


NEWEST = made("newest", made_at=LONG_AGO + 0.5)


def gone(*environments: EnvironmentMade, **uses: tuple[str, ...]) -> tuple[str, ...]:
    return unused(environments, uses, frozenset({"phone-agent"}), NOW)


def on(number: int, environment: str) -> Revision:
    return revision(number, engine=EngineChoice(name="llama.cpp", environment=environment))


def test_an_old_one_that_nobody_names_goes() -> None:
    assert gone(made("old"), NEWEST) == ("old",)


def test_one_that_a_revision_names_stays() -> None:
    assert gone(made("old"), NEWEST, old=("svc/1 serving",)) == ()


def test_one_made_by_hand_and_never_used_stays_for_seven_days() -> None:
    assert gone(made("fresh", made_at=NOW - KEPT_S + 60, used_at=NOW - KEPT_S + 60), made("newer", made_at=NOW)) == ()


def test_one_that_was_used_or_asked_for_within_seven_days_stays() -> None:
    assert gone(made("used", used_at=NOW - KEPT_S + 60), NEWEST) == ()


def test_the_newest_of_each_engine_stays_however_old() -> None:
    assert gone(made("a"), made("b", engine="vllm"), NEWEST) == ("a",)


def test_agents_environments_stay() -> None:
    agents = (made("agent", engine="phone-agent"), made("newer agent", engine="phone-agent", made_at=NOW))
    assert gone(*agents) == ()


def test_one_whose_age_is_not_known_stays() -> None:
    assert gone(made("a", used_at=None), made("b", made_at=None), NEWEST) == ()


def test_those_that_serve_are_asked_for_and_served_before_are_named_with_their_part() -> None:
    asked = service(on(3, "new"), on(2, "now"), rejected="AnswersWrong")
    assert uses_of((asked,), {"svc": on(1, "before")}) == {
        "now": ("svc/2 serving",),
        "new": ("svc/3 desired",),
        "before": ("svc/1 before",),
    }
    assert uses_of((service(revision(1), revision(1)),), {}) == {}


def test_two_services_on_one_environment_are_both_named() -> None:
    other = Revision(number=4, spec=on(4, "shared").spec.model_copy(update={"service": "other"}))
    found = uses_of((service(on(1, "shared"), on(1, "shared")), service(other, other)), {})
    assert found == {"shared": ("svc/1 serving", "other/4 serving")}


ENVIRONMENTS = st.builds(
    made,
    st.sampled_from("abcdef"),
    st.sampled_from(["llama.cpp", "vllm", "phone-agent"]),
    made_at=st.floats(NOW - 3 * KEPT_S, NOW),
    used_at=st.floats(NOW - 3 * KEPT_S, NOW),
)


@given(st.lists(ENVIRONMENTS, unique_by=lambda one: one.name), st.sets(st.sampled_from("abcdef")))
def test_never_the_last_of_an_engine_nor_a_named_nor_a_young_one(found: list[EnvironmentMade], named: set[str]) -> None:
    names = unused(found, dict.fromkeys(named, ("svc/1 serving",)), frozenset({"phone-agent"}), NOW)
    for one in found:
        if one.name in names:
            assert one.name not in named and one.engine != "phone-agent"
            assert one.used_at is not None and NOW - one.used_at > KEPT_S
            assert any(other.engine == one.engine and other.name not in names for other in found)
