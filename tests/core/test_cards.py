"""Which cards replicas get: whole ones, one replica each, never one card twice; too few of them, and nothing starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gonogo.actions.model import EnsureReplica
from gonogo.engines.cards import assigned, card_id, cards_for, cards_of_host, free_cards
from gonogo.engines.size import replicas_wanted
from gonogo.facts.accelerator import Health as CardHealth
from gonogo.facts.replica import Health
from gonogo.facts.world import World
from gonogo.plan.decide import decide
from gonogo.spec import Revision
from tests.core import card_worlds as cards
from tests.core import worlds
from tests.core.card_worlds import card, choice, revision, small_card

FOUR = tuple(card(index) for index in range(4))


def placed(seen: World, *desired: Revision) -> list[tuple[str, tuple[str, ...]]]:
    """The replicas that would be started, with their cards."""
    plan = decide([worlds.service(one) for one in desired], seen)
    started = [one.placement for one in plan.actions if isinstance(one, EnsureReplica)]
    return [(str(one.name), one.devices) for one in started]


def held(text: str, *devices: str, health: Health | None = Health.READY) -> World:
    """Four cards, some of which a replica holds."""
    return cards.world(*FOUR, replicas=(worlds.replica(text, health, devices=devices),))


@pytest.mark.parametrize(
    ("odd", "left"),
    [
        (card(0, partitioned=True), ["GPU-1", "GPU-2"]),
        (card(0, health=CardHealth(trouble="GPU is lost")), ["GPU-1", "GPU-2"]),
        (card(0, mib=None), ["GPU-1", "GPU-2"]),
        (small_card(0), ["GPU-1", "GPU-2"]),
        (card(0, partitioned=None), ["GPU-0", "GPU-1", "GPU-2"]),
        (card(0, uuid=None), ["0", "GPU-1", "GPU-2"]),
    ],
    ids=["cut into slices", "lost", "no memory of its own", "another kind", "does not say", "no UUID"],
)
def test_only_whole_cards_of_the_commonest_kind_are_given_away(odd: object, left: list[str]) -> None:
    seen = cards.world(odd, card(1), card(2))  # type: ignore[arg-type]
    assert [card_id(one) for one in cards_of_host(seen)] == left


def test_cards_of_another_service_are_not_free_and_those_of_ones_own_are() -> None:
    seen = held("other/1/0", "GPU-1", "GPU-2")
    assert [card_id(one) for one in free_cards("svc", seen)] == ["GPU-0", "GPU-3"]
    assert len(free_cards("other", seen)) == 4
    assert len(free_cards("other", seen, revision=2)) == 2, "an older revision holds them still"
    assert len(free_cards("other", seen, revision=1)) == 4


def test_what_our_own_replicas_hold_of_a_card_counts_as_free_and_what_strangers_hold_does_not() -> None:
    used = tuple(replace(one, memory_free_bytes=1) for one in FOUR)
    seen = cards.world(*used, replicas=(worlds.replica("svc/1/0", devices=("GPU-0",)),))
    free = {card_id(one): one.memory_free_bytes for one in cards_for("svc", seen)}
    assert free["GPU-0"] == FOUR[0].memory_total_bytes
    assert free["GPU-1"] == 1
    assert "GPU-0" not in {card_id(one) for one in cards_for("another", seen)}


def test_so_many_cards_or_none() -> None:
    seen = held("other/1/0", "GPU-0")
    assert assigned(2, seen, ()) == ("GPU-1", "GPU-2")
    assert assigned(2, seen, ("GPU-1",)) == ("GPU-2", "GPU-3")
    assert assigned(3, seen, ("GPU-1",)) is None
    assert assigned(0, seen, ()) == (), "an engine on the processor needs none"
    assert assigned(1, replace(seen, host=None), ()) is None, "what was not seen is not given away"


def test_replicas_of_one_plan_get_cards_of_their_own_also_across_services() -> None:
    two = worlds.Replicas(min=2, max=2)
    first, second = revision(service="a", replicas=two), revision(service="b", engine=choice(tensor=2))
    assert placed(cards.world(*FOUR), first, second) == [
        ("a/1/0", ("GPU-0",)),
        ("a/1/1", ("GPU-1",)),
        ("b/1/0", ("GPU-2", "GPU-3")),
    ]


def test_too_few_cards_place_nothing_rather_than_two_replicas_on_one() -> None:
    three = revision(engine=choice(tensor=2), replicas=worlds.Replicas(min=3, max=3))
    assert [name for name, _ in placed(cards.world(*FOUR), three)] == ["svc/1/0", "svc/1/1"]
    assert placed(held("other/1/0", "GPU-0"), revision(engine=choice(tensor=4))) == []


def test_cards_of_a_replica_that_dies_or_hangs_are_its_own_until_it_has_gone() -> None:
    for health in (Health.HUNG, Health.STARTING, None):
        seen = held("other/1/0", "GPU-0", "GPU-1", "GPU-2", "GPU-3", health=health)
        assert placed(seen, revision(service="svc"), revision(service="other")) == []


def test_a_new_revision_gets_other_cards_than_the_one_that_serves() -> None:
    seen = held("svc/1/0", "GPU-0")
    desired = worlds.service(revision(2), serving=revision(1))
    started = [one.placement for one in decide([desired], seen).actions if isinstance(one, EnsureReplica)]
    assert [(str(one.name), one.devices) for one in started] == [("svc/2/0", ("GPU-1",))]


def test_an_engine_on_the_processor_is_placed_without_cards() -> None:
    on_processor = revision(engine=choice(name="vllm-cpu", share=None))
    assert placed(cards.world(*FOUR), on_processor) == [("svc/1/0", ())]


@pytest.mark.parametrize(
    ("count", "tensor", "wanted"), [(1, 1, 1), (2, 1, 2), (8, 1, 2), (4, 2, 2), (3, 2, 1), (1, 2, 1)]
)
def test_unasked_two_replicas_where_cards_for_two_are_free(count: int, tensor: int, wanted: int) -> None:
    seen = cards.world(*(card(index) for index in range(count)))
    assert replicas_wanted(revision(engine=choice(tensor=tensor), replicas=None), seen) == wanted


def test_unasked_a_second_replica_is_not_wanted_on_cards_that_another_service_holds() -> None:
    unasked = revision(replicas=None)
    assert replicas_wanted(unasked, held("other/1/0", "GPU-0", "GPU-1", "GPU-2")) == 1
    assert replicas_wanted(unasked, held("other/1/0", "GPU-0")) == 2
