"""Where old and new have no room side by side: blocked unless downtime is allowed, then one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.actions.model import EnsureReplica, ProbeRevision, Promote, PublishSnapshot, Reject, RemoveReplica
from gonogo.checks.engine import cards_fit
from gonogo.checks.finding import Finding, Stage
from gonogo.checks.hardware import memory_fits
from gonogo.checks.room import only_room_is_missing, vacated
from gonogo.facts.accelerator import Accelerator
from gonogo.facts.replica import LOADS_TOO_LONG, Deaths, Health, MemoryMeasured, ReplicaFacts
from gonogo.facts.world import World
from gonogo.plan.decide import CHECKS, ask, decide
from gonogo.plan.model import DesiredService
from gonogo.spec.engine import EngineChoice
from tests.core import worlds
from tests.core.worlds import GIB, NOW, probes, published, replica, revision, running, service, world

OLD, NEW = revision(1), revision(2, expect={"concurrent_requests": 8})
MOVING = service(NEW, OLD, in_place_since=NOW - 10)


def actions(asked: DesiredService, seen: World) -> tuple[object, ...]:
    return decide((asked,), seen).actions


def started(asked: DesiredService, seen: World) -> list[str]:
    return [str(one.placement.name) for one in actions(asked, seen) if isinstance(one, EnsureReplica)]


def ended(asked: DesiredService, seen: World) -> list[str]:
    return [str(one.name) for one in actions(asked, seen) if isinstance(one, RemoveReplica)]


def test_the_old_revision_leaves_the_gateway_first_and_the_new_one_does_not_start_yet() -> None:
    seen = published(world(replicas=running("svc/1/0", "svc/1/1")), service(OLD, OLD))
    (snapshot,) = actions(MOVING, seen)
    assert isinstance(snapshot, PublishSnapshot)
    assert [(one.name, one.endpoints) for one in snapshot.clusters] == [("svc/1", ()), ("svc/2", ())]


def test_it_ends_when_it_is_idle_and_what_runs_is_finished_first() -> None:
    busy = (replica("svc/1/0", requests_running=1), replica("svc/1/1"))
    assert ended(MOVING, published(world(replicas=busy), MOVING)) == ["svc/1/1"]
    just_now = replace(MOVING, in_place_since=NOW - 2.9)
    assert ended(just_now, published(world(replicas=running("svc/1/0", "svc/1/1")), just_now)) == []
    for_ever = replace(MOVING, in_place_since=NOW - 901)
    assert ended(for_ever, published(world(replicas=busy), for_ever)) == ["svc/1/0", "svc/1/1"]


def test_the_new_one_starts_when_the_last_old_replica_is_gone() -> None:
    assert started(MOVING, published(world(replicas=running("svc/1/1")), MOVING)) == []
    assert started(MOVING, published(world(), MOVING)) == ["svc/2/0", "svc/2/1"]


def test_a_rejected_one_ends_before_the_old_one_comes_back() -> None:
    back = replace(MOVING, rejected="AnswersWrong")
    assert started(back, published(world(replicas=running("svc/2/0")), back)) == []
    assert ended(back, published(world(replicas=running("svc/2/0")), back)) == ["svc/2/0"]
    assert started(back, published(world(), back)) == ["svc/1/0", "svc/1/1"]


def test_side_by_side_nothing_of_this_happens() -> None:
    beside = service(NEW, OLD)
    seen = published(world(replicas=running("svc/1/0", "svc/1/1")), beside)
    assert (started(beside, seen), ended(beside, seen)) == (["svc/2/0", "svc/2/1"], [])


def test_a_service_that_is_removed_meanwhile_starts_nothing() -> None:
    gone = replace(MOVING, removed=True)
    assert started(gone, published(world(), gone)) == []


@settings(max_examples=150, deadline=None)
@given(
    moves=st.lists(st.sampled_from(["ready", "idle", "die", "restart"]), min_size=0, max_size=40), good=st.booleans()
)
def test_never_both_at_once_no_request_cut_and_it_ends_served_whatever_happens(moves: list[str], good: bool) -> None:
    told = Story(good)
    for move in moves:
        told.round(move)
    for move in ("ready", "idle") * 40:
        told.round(move)
    kept = told.service.rejected is None
    assert told.service.serving == (NEW if kept else OLD)
    assert kept if good and "die" not in moves else not (kept and not good)
    assert sorted(told.running) == [f"svc/{2 if kept else 1}/0", f"svc/{2 if kept else 1}/1"]
    assert all(one.health is Health.READY for one in told.running.values())


class Story:
    """A world that does what it is told, one round after the other; replicas of one revision fill the machine."""

    def __init__(self, good: bool) -> None:
        self.good = good
        self.now = NOW
        self.service = service(NEW, OLD, in_place_since=NOW)
        self.running: dict[str, ReplicaFacts] = {
            name: replica(name, requests_running=1) for name in ("svc/1/0", "svc/1/1")
        }
        self.probed: tuple[Any, ...] = ()
        self.deaths: dict[str, Deaths] = {}
        self.gateway = published(self._world(), service(OLD, OLD)).gateway

    def round(self, move: str) -> None:
        self.now += 1.0
        self._happens(move)
        for action in decide((self.service,), self._world()).actions:
            self._do(action)
        assert len({name.split("/")[1] for name in self.running}) <= 1, f"no room for both: {sorted(self.running)}"

    def _happens(self, move: str) -> None:
        for name, one in self.running.items():
            if move == "ready":
                self.running[name] = replace(one, health=Health.READY)
            elif move == "idle":
                self.running[name] = replace(one, requests_running=0)
        if move == "restart":  # a new control process knows no probes and no deaths
            self.probed, self.deaths = (), {}
        if move == "die" and self.running:
            name = min(self.running)
            del self.running[name]
            self.deaths[name] = Deaths(count=1, last_at=self.now, why="killed")

    def _world(self) -> World:
        seen = world(at=self.now, replicas=tuple(self.running.values()), probes=self.probed, deaths=self.deaths)
        return replace(seen, gateway=self.gateway) if hasattr(self, "gateway") else seen

    def _do(self, action: object) -> None:
        if isinstance(action, EnsureReplica):
            name = str(action.placement.name)
            self.running[name] = replica(name, Health.STARTING, requests_running=None)
        elif isinstance(action, RemoveReplica):
            gone = self.running.pop(str(action.name))
            assert not gone.requests_running or self.now - NOW > 900, "a request was cut"
        elif isinstance(action, PublishSnapshot):
            assert self.gateway is not None
            self.gateway = replace(published(self._world(), self.service).gateway, published=action.digest())  # type: ignore[type-var]
        elif isinstance(action, ProbeRevision):
            asked = NEW if action.revision == NEW.number else OLD
            bad = {} if self.good else {"answers_right": {"prompt": "2+2?", "answer": "fish", "pattern": "4"}}
            self.probed = probes(asked, **(bad if asked == NEW else {}))
        elif isinstance(action, Promote):
            self.service = replace(self.service, serving=NEW, serving_since=self.now)
        elif isinstance(action, Reject):
            self.service = replace(self.service, rejected=action.finding.reason)


def memory(available_gib: float, *serving: ReplicaFacts) -> Finding:
    host = replace(worlds.HOST, memory_available_bytes=int(available_gib * GIB))
    (found,) = memory_fits(NEW, world(host=host, replicas=serving))
    return found


def held(name: str, gib: float, **more: Any) -> ReplicaFacts:
    return replica(name, memory=MemoryMeasured(resident_bytes=int(gib * GIB)), **more)


def test_memory_that_the_serving_revision_holds_is_said_apart_from_memory_that_is_not_there() -> None:
    serving = (
        held("svc/1/0", 0.4, age_s=900.0, ready_after_s=41.2),
        held("svc/1/1", 0.4, age_s=60.0, ready_after_s=7.6),
    )
    tight = memory(0.3, *serving)
    assert (tight.reason, tight.values["serving"], tight.values["down_s"]) == ("NoRoomBeside", "svc/1", 8)
    assert (tight.values["held_gib"], tight.values["starts_seen"]) == (0.8, None)
    assert memory(0.01, held("svc/1/0", 0.1)).reason == "MemoryTooSmall"
    assert memory(5.0, *serving).reason == "MemoryFits"


def test_a_start_that_nobody_saw_is_said_as_unknown_not_guessed() -> None:
    found = memory(0.3, held("svc/1/0", 0.8))
    assert (found.values["down_s"], found.values["starts_seen"]) == (None, 0)


def test_what_another_service_holds_is_no_room_to_be_made() -> None:
    assert memory(0.3, held("other/1/0", 9.0)).reason == "MemoryTooSmall"


CARD = Accelerator(
    index=0,
    name="NVIDIA H100 80GB HBM3",
    memory_total_bytes=85_520_809_984,
    memory_used_bytes=0,
    memory_free_bytes=85_520_809_984,
    compute_capability="9.0",
)


@pytest.mark.parametrize(
    ("cards", "holders", "reason"),
    [
        (1, (), None),
        (1, ("svc/1/0",), "NoCardsBeside"),
        (2, ("svc/1/0",), None),
        (1, ("other/1/0",), "CardsTooFew"),
        (0, (), "CardsTooFew"),
    ],
)
def test_a_card_that_the_serving_revision_holds_is_not_free(
    cards: int, holders: tuple[str, ...], reason: str | None
) -> None:
    seen = tuple(replace(CARD, index=index, uuid=f"GPU-{index}") for index in range(cards))
    on_cards = revision(2, engine=EngineChoice(name="vllm", version="0.33.0"), replicas={"min": 1, "max": 1})
    holding = tuple(replica(name, devices=(f"GPU-{index}",)) for index, name in enumerate(holders))
    (found,) = cards_fit(on_cards, world(host=replace(worlds.HOST, accelerators=seen), replicas=holding))
    assert found.reason == reason or (reason is None and found.reason not in ("NoCardsBeside", "CardsTooFew"))


def test_allowing_downtime_takes_nothing_away_but_the_missing_room() -> None:
    host = replace(worlds.HOST, memory_available_bytes=int(0.3 * GIB))
    seen = world(host=host, replicas=(held("svc/1/0", 0.8),))
    answers = tuple(ask(CHECKS, Stage.PREFLIGHT, NEW, seen))
    assert only_room_is_missing(answers)
    after = tuple(ask(CHECKS, Stage.PREFLIGHT, NEW, vacated(NEW, seen)))
    assert [one.finding.reason for one in after if one.check == "memory_fits"] == ["MemoryFits"]
    assert not [one for one in after if one.blocking]
    worse = replace(seen, host=replace(host, listening=None))
    assert not only_room_is_missing(tuple(ask(CHECKS, Stage.PREFLIGHT, NEW, worse)))
    assert not only_room_is_missing(after)


def test_a_new_revision_that_loads_for_ever_is_rejected_at_once_with_its_limit() -> None:
    asked = service(NEW, OLD)
    deaths = {"svc/2/0": Deaths(count=1, last_at=NOW, why=LOADS_TOO_LONG, last_log_lines=("loading",))}
    seen = published(world(replicas=running("svc/1/0", "svc/1/1"), deaths=deaths), asked)
    (reject,) = (one for one in actions(asked, seen) if isinstance(one, Reject))
    assert (reject.finding.reason, reject.finding.values["limit_s"]) == ("ReplicaLoadsTooLong", 120)
    assert not [one for one in actions(service(OLD, OLD), seen) if isinstance(one, Reject)]
