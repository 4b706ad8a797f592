"""What happens next: each rule of the decision, one sentence each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gonogo.actions.model import (
    EndPart,
    EnsureGateway,
    EnsurePart,
    EnsureReplica,
    ForgetService,
    ProbeRevision,
    Promote,
    PublishSnapshot,
    Reject,
    RemoveReplica,
)
from gonogo.facts.part import PARTS, TASKS
from gonogo.facts.replica import Deaths, Health
from gonogo.plan.decide import decide
from gonogo.spec.engine import EngineChoice
from tests.core import worlds
from tests.core.worlds import NOW, probes, published, replica, revision, running, service, world

OLD, NEW = revision(1), revision(2, expect={"concurrent_requests": 8})


def kinds(actions: tuple[object, ...]) -> list[str]:
    return [type(action).__name__ for action in actions]


def test_an_empty_machine_gets_policy_gateway_and_replicas_in_that_order() -> None:
    seen = world(
        gateway=replace(world().gateway, running=False, resources=None, listening=False),  # type: ignore[type-var]
        parts=tuple(replace(part, running=False) for part in world().parts or ()),
    )
    plan = decide((service(OLD),), seen)
    assert kinds(plan.actions) == [
        *("EnsurePart" for _ in range(sum(PARTS.values()))),
        "EnsureGateway",
        "EnsureReplica",
        "EnsureReplica",
        "PublishSnapshot",
    ]
    assert EnsurePart(role="policy", index=0) in plan.actions
    assert EnsureGateway(concurrency=2) in plan.actions


def test_the_same_input_gives_the_same_plan_byte_for_byte() -> None:
    assert repr(decide((service(OLD),), world())) == repr(decide((service(OLD),), world()))


def test_nothing_is_decided_from_what_was_not_observed() -> None:
    for unseen in ({"replicas": None}, {"gateway": None}, {"parts": None}):
        assert decide((service(OLD),), world(**unseen)).actions == ()


def test_the_plan_names_the_observation_that_it_was_made_from() -> None:
    assert decide((), world(observation=41)).observation == 41


def test_threads_of_all_replicas_stay_within_the_cores() -> None:
    plan = decide((service(OLD),), world())
    threads = [action.placement.threads for action in plan.actions if isinstance(action, EnsureReplica)]
    assert threads == [1, 1]
    eight = world(host=replace(worlds.HOST, cores=8))
    plan = decide((service(OLD),), eight)
    assert [one.placement.threads for one in plan.actions if isinstance(one, EnsureReplica)] == [4, 4]


def test_replicas_never_share_a_port() -> None:
    other = revision(1, service="other")
    plan = decide((service(OLD), service(other)), world())
    ports = [action.placement.port for action in plan.actions if isinstance(action, EnsureReplica)]
    assert len(ports) == len(set(ports)) == 4


def test_a_replica_enters_the_gateway_only_when_it_generates() -> None:
    seen = world(replicas=(replica("svc/1/0"), replica("svc/1/1", Health.STARTING)))
    snapshot = next(one for one in decide((service(OLD),), seen).actions if isinstance(one, PublishSnapshot))
    assert [str(endpoint.name) for endpoint in snapshot.clusters[0].endpoints] == ["svc/1/0"]


def test_an_unknown_never_removes_an_endpoint() -> None:
    seen = published(world(replicas=running("svc/1/0", "svc/1/1")), service(OLD, OLD))
    blind = replace(seen, replicas=(replica("svc/1/0"), replica("svc/1/1", None)))
    assert "PublishSnapshot" not in kinds(decide((service(OLD, OLD),), blind).actions)


def test_a_new_revision_is_probed_once_every_replica_generates_and_envoy_acknowledged() -> None:
    asked = service(OLD)
    one_ready = world(replicas=(replica("svc/1/0"), replica("svc/1/1", Health.STARTING)))
    assert "ProbeRevision" not in kinds(decide((asked,), published(one_ready, asked)).actions)
    both = world(replicas=running("svc/1/0", "svc/1/1"))
    assert "ProbeRevision" not in kinds(decide((asked,), both).actions)
    assert decide((asked,), published(both, asked)).actions == (ProbeRevision(service="svc", revision=1),)


def test_nothing_is_probed_in_the_round_that_still_publishes_its_replicas() -> None:
    asked = service(OLD)
    one = published(world(replicas=(replica("svc/1/0"), replica("svc/1/1", Health.STARTING))), asked)
    both = replace(one, replicas=running("svc/1/0", "svc/1/1"))
    assert kinds(decide((asked,), both).actions) == ["PublishSnapshot"]


def test_sent_is_not_acknowledged() -> None:
    asked = service(OLD)
    seen = published(world(replicas=running("svc/1/0", "svc/1/1")), asked)
    assert seen.gateway is not None
    sent = tuple(replace(one, acked_version=None) for one in seen.gateway.resources or ())
    pending = replace(seen, gateway=replace(seen.gateway, resources=sent))
    assert decide((asked,), pending).actions == ()


def test_nothing_is_probed_while_a_part_is_about_to_start_and_one_that_never_starts_holds_nothing_up() -> None:
    asked = service(OLD)
    seen = published(world(replicas=running("svc/1/0", "svc/1/1")), asked)

    def asked_with(*, starting: bool) -> list[str]:
        away = [replace(part, listening=False, starting=starting and part.role == TASKS) for part in seen.parts or ()]
        return kinds(decide((asked,), replace(seen, parts=tuple(away))).actions)

    assert "ProbeRevision" not in asked_with(starting=True)
    assert "ProbeRevision" in asked_with(starting=False)


def test_a_revision_is_promoted_only_after_every_probe_was_answered_right() -> None:
    asked = service(OLD)
    seen = published(world(replicas=running("svc/1/0", "svc/1/1"), probes=probes(OLD)), asked)
    assert decide((asked,), seen).actions == (Promote(service="svc", revision=1),)


def test_a_wrong_answer_rejects_the_revision_and_says_which() -> None:
    asked = service(NEW, OLD)
    wrong = probes(NEW, answers_right={"prompt": "2+2?", "answer": "fish", "pattern": "4"})
    seen = published(world(replicas=running("svc/1/0", "svc/1/1", "svc/2/0", "svc/2/1"), probes=wrong), asked)
    (reject,) = (action for action in decide((asked,), seen).actions if isinstance(action, Reject))
    assert (reject.revision, reject.finding.reason, reject.finding.values["answer"]) == (2, "AnswersWrong", "fish")


def test_a_probe_that_could_not_be_asked_rejects_too_unknown_never_passes() -> None:
    asked = service(NEW, OLD)
    unasked = probes(NEW, keyless_refused=None)
    seen = published(world(replicas=running("svc/1/0", "svc/1/1", "svc/2/0", "svc/2/1"), probes=unasked), asked)
    (reject,) = (action for action in decide((asked,), seen).actions if isinstance(action, Reject))
    assert reject.finding.reason == "KeylessUnknown"


def test_the_old_revision_stays_in_the_gateway_until_the_new_one_is_promoted() -> None:
    asked = service(NEW, OLD)
    seen = world(replicas=running("svc/1/0", "svc/1/1", "svc/2/0", "svc/2/1"))
    snapshot = next(one for one in decide((asked,), seen).actions if isinstance(one, PublishSnapshot))
    assert [cluster.name for cluster in snapshot.clusters] == ["svc/1", "svc/2"]
    assert not [one for one in decide((asked,), seen).actions if isinstance(one, RemoveReplica)]


def test_the_old_revision_goes_only_when_it_is_idle_and_every_policy_server_must_know() -> None:
    replicas = running("svc/1/0", "svc/1/1", "svc/2/0", "svc/2/1")
    fresh = service(NEW, NEW, serving_since=NOW - 5.0)
    assert not _removals(fresh, published(world(replicas=replicas), fresh))
    settled = service(NEW, NEW, serving_since=NOW - 6.5)
    idle = published(world(replicas=replicas), settled)
    assert [str(one.name) for one in _removals(settled, idle)] == ["svc/1/0", "svc/1/1"]
    busy = (replica("svc/1/0", requests_running=1), *replicas[1:])
    assert [str(one.name) for one in _removals(settled, published(world(replicas=busy), settled))] == ["svc/1/1"]


def test_a_draining_replica_leaves_the_gateway_before_it_is_ended() -> None:
    settled = service(NEW, NEW, serving_since=NOW - 60)
    seen = world(replicas=running("svc/1/0", "svc/2/0", "svc/2/1"))
    assert kinds(decide((settled,), seen).actions) == ["PublishSnapshot"]


def _removals(asked: object, seen: object) -> list[RemoveReplica]:
    plan = decide((asked,), seen)  # type: ignore[arg-type]
    return [action for action in plan.actions if isinstance(action, RemoveReplica)]


def test_a_hung_replica_gets_sigkill() -> None:
    seen = world(replicas=(replica("svc/1/0", Health.HUNG), replica("svc/1/1")))
    (removal,) = _removals(service(OLD, OLD), seen)
    assert removal.force
    assert removal.why == "ReplicaHung"


def test_a_hung_gateway_or_policy_server_gets_sigkill() -> None:
    fine = world(replicas=running("svc/1/0", "svc/1/1"))
    assert fine.gateway is not None
    parts = tuple(replace(part, hung=part.index == 1) for part in fine.parts or ())
    seen = replace(fine, gateway=replace(fine.gateway, hung=True), parts=parts)
    ended = [action for action in decide((service(OLD, OLD),), seen).actions if isinstance(action, EndPart)]
    assert [(one.role, one.handle) for one in ended] == [
        ("policy", "policy1:1:boot"),
        ("relay", "relay1:1:boot"),
        ("gateway", "1:1:boot"),
    ]


def test_of_two_replicas_with_one_name_the_younger_goes() -> None:
    twins = (replica("svc/1/0", age_s=50.0), replica("svc/1/0", age_s=2.0, handle="99:9:boot"), replica("svc/1/1"))
    (removal,) = _removals(service(OLD, OLD), world(replicas=twins))
    assert (removal.handle, removal.why) == ("99:9:boot", "DuplicateReplica")


def test_the_first_restart_is_immediate_and_later_ones_wait() -> None:
    def starts(count: int, ago_s: float) -> bool:
        deaths = {"svc/1/0": Deaths(count=count, last_at=NOW - ago_s, why="killed")}
        seen = world(replicas=running("svc/1/1"), deaths=deaths)
        return any(isinstance(action, EnsureReplica) for action in decide((service(OLD, OLD),), seen).actions)

    assert starts(1, 0.0)
    assert not starts(3, 1.0)
    assert starts(3, 2.1)
    assert not starts(12, 29.0)
    assert starts(12, 30.1)


def test_a_new_revision_that_dies_three_times_is_rejected_and_the_old_one_keeps_serving() -> None:
    asked = service(NEW, OLD)
    deaths = {"svc/2/0": Deaths(count=3, last_at=NOW, why="EngineModelUnreadable", last_log_lines=("boom",))}
    seen = published(world(replicas=running("svc/1/0", "svc/1/1"), deaths=deaths), asked)
    (reject,) = (action for action in decide((asked,), seen).actions if isinstance(action, Reject))
    assert (reject.revision, reject.finding.reason) == (2, "ReplicaCrashLooping")
    assert reject.finding.values["last_lines"] == "boom"
    assert not _removals(asked, seen)


@pytest.mark.parametrize(
    ("why", "rejected"), [("EngineUnknownArchitecture", True), ("EngineOutOfMemory", False), ("killed", False)]
)
def test_what_the_next_start_would_die_of_too_rejects_a_new_revision_at_its_first_death(
    why: str, rejected: bool
) -> None:
    asked = service(NEW, OLD)
    deaths = {"svc/2/0": Deaths(count=1, last_at=NOW, why=why)}
    seen = published(world(replicas=running("svc/1/0", "svc/1/1"), deaths=deaths), asked)
    rejections = [action for action in decide((asked,), seen).actions if isinstance(action, Reject)]
    assert [(one.revision, one.finding.reason) for one in rejections] == [(2, "ReplicaCannotStart")] * rejected


def test_a_rejected_revision_loses_its_replicas_and_the_old_one_keeps_its_own() -> None:
    asked = service(NEW, OLD, rejected="AnswersWrong")
    seen = published(world(replicas=running("svc/1/0", "svc/1/1", "svc/2/0", "svc/2/1")), asked)
    assert [str(one.name) for one in _removals(asked, seen)] == ["svc/2/0", "svc/2/1"]


def test_a_new_control_process_proves_what_serves_once_more() -> None:
    serving = service(OLD, OLD)
    seen = published(world(replicas=running("svc/1/0", "svc/1/1")), serving)
    assert decide((serving,), seen).actions == (ProbeRevision(service="svc", revision=1),)
    assert decide((serving,), replace(seen, probes=probes(OLD))).actions == ()


def test_what_envoy_refuses_rejects_the_revision_with_envoys_words() -> None:
    asked = service(NEW, OLD)
    seen = published(world(replicas=running("svc/1/0", "svc/1/1")), asked, nack="cannot bind")
    (reject,) = (action for action in decide((asked,), seen).actions if isinstance(action, Reject))
    assert (reject.finding.reason, reject.finding.values["words"]) == ("GatewayRefused", "cannot bind")


def test_a_serving_revision_is_never_rejected_by_deaths_of_its_replicas() -> None:
    deaths = {"svc/1/0": Deaths(count=9, last_at=NOW, why="killed")}
    seen = published(world(replicas=running("svc/1/1"), deaths=deaths), service(OLD, OLD))
    assert not [action for action in decide((service(OLD, OLD),), seen).actions if isinstance(action, Reject)]


def test_a_removed_service_drains_then_goes_then_is_forgotten() -> None:
    gone = service(OLD, OLD, removed=True, serving_since=NOW - 60)
    seen = world(replicas=running("svc/1/0"))
    assert kinds(decide((gone,), seen).actions) == ["PublishSnapshot"]
    assert [str(one.name) for one in _removals(gone, published(seen, gone))] == ["svc/1/0"]
    assert decide((gone,), published(world(), gone)).actions == (ForgetService(service="svc"),)


def test_a_replica_of_a_service_that_nobody_asked_for_goes() -> None:
    (removal,) = _removals(service(OLD, OLD), world(replicas=running("svc/1/0", "svc/1/1", "ghost/1/0")))
    assert removal.why == "ServiceUnknown"


def test_a_replica_whose_environment_is_gone_is_not_started_and_its_new_revision_is_rejected() -> None:
    gone = revision(2, engine=EngineChoice(name="llama.cpp", version="1", environment="gone"))
    seen = published(world(replicas=running("svc/1/0", "svc/1/1"), environments={}), service(gone, OLD))
    (reject,) = decide((service(gone, OLD),), seen).actions
    assert isinstance(reject, Reject) and reject.finding.reason == "EngineEnvironmentMissing"
    serving = service(gone, gone)
    plan = decide((serving,), published(world(environments={}), serving))
    assert plan.actions == ()
    assert "EngineEnvironmentMissing" in [answer.finding.reason for answer in plan.answers if answer.blocking]
    unseen = decide((serving,), published(world(environments=None), serving))
    assert "EnsureReplica" in kinds(unseen.actions), "not looked at is not gone"
