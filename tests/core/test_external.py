"""Replicas that others run: what is decided about them, and which questions are not asked of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gonogo.actions.model import (
    ClusterPlan,
    EnsureReplica,
    ForgetService,
    ProbeRevision,
    Promote,
    PublishSnapshot,
    Reject,
    RemoveReplica,
)
from gonogo.checks.catalogue import CHECKS
from gonogo.checks.external import PATIENCE_S
from gonogo.checks.finding import Answer, Stage
from gonogo.engines.size import replicas_wanted
from gonogo.engines.table import load_limit_s, memory_of
from gonogo.facts.replica import Health, ReplicaFacts
from gonogo.facts.server import ServerFacts
from gonogo.facts.world import World
from gonogo.plan.decide import ask, decide, wanted_snapshot
from gonogo.plan.endpoints import POLICY_STALE_S
from gonogo.plan.model import DesiredService
from gonogo.spec import Replicas, Revision
from gonogo.spec.gateway import Balancing, Gateway
from gonogo.spec.replicas import server_of
from tests.core import worlds
from tests.core.worlds import NOW, probes, published, running, service, world

URLS = ("http://127.0.0.1:9101", "https://vllm-2.example:8000")


def revision(number: int = 1, urls: tuple[str, ...] = URLS, **changes: Any) -> Revision:
    servers = Replicas(min=len(urls), max=len(urls), external=urls, **changes)
    return worlds.revision(number, model="svc", replicas=servers)


def servers(of: Revision, *health: Health | None, **changes: Any) -> tuple[ReplicaFacts, ...]:
    """The external replicas of a revision as the gateway sees them."""
    urls = (of.spec.replicas.external if of.spec.replicas else None) or ()
    return tuple(
        replace(
            worlds.replica(f"{of.name}/{index}", one),
            handle=None,
            url=url,
            memory=None,
            listens_on=None,
            **{"address": server_of(url).host, "port": server_of(url).port, **changes},
        )
        for index, (url, one) in enumerate(zip(urls, health, strict=True))
    )


def answered(of: Revision, *models: str | None) -> dict[Any, ServerFacts]:
    """What the servers of a revision said when they were asked; None: nothing."""
    ca_file = of.spec.replicas.ca_file if of.spec.replicas else None
    return {
        (server.url, ca_file): ServerFacts(url=server.url, models=(model,))
        if model is not None
        else ServerFacts(url=server.url, trouble="server_refused", detail="connection refused")
        for server, model in zip(of.spec.external, models, strict=True)
    }


WELL = (Health.READY, Health.READY)
ONE = revision()


def cluster(seen: World, *services: DesiredService) -> dict[str, ClusterPlan]:
    return {plan.name: plan for plan in wanted_snapshot(services, seen).clusters}


def test_nothing_is_started_and_all_servers_are_in_the_gateway_before_anything_is_known_of_them() -> None:
    seen = world(replicas=servers(ONE, None, None), models={})
    plan = decide((service(ONE),), seen)
    assert not [action for action in plan.actions if isinstance(action, EnsureReplica)]
    (publish,) = [action for action in plan.actions if isinstance(action, PublishSnapshot)]
    (made,) = publish.clusters
    assert made.external is not None
    assert [one.url for one in made.external.servers] == list(URLS)
    assert made.endpoints == ()


def test_a_dead_server_stays_in_the_gateway_which_passes_over_it_by_itself() -> None:
    alive = cluster(world(replicas=servers(ONE, *WELL)), service(ONE, ONE))
    dying = cluster(world(replicas=servers(ONE, Health.DEAD, Health.READY)), service(ONE, ONE))
    assert alive == dying, "and no configuration is sent because of it"


@pytest.mark.parametrize(
    ("health", "asked"),
    [
        ((Health.READY, Health.READY), True),
        ((Health.READY, Health.DEAD), True),
        ((Health.READY, None), False),
        ((Health.DEAD, Health.DEAD), False),
        ((None, None), False),
    ],
)
def test_a_revision_is_proven_once_one_server_is_well_and_each_was_looked_at(
    health: tuple[Health | None, ...], asked: bool
) -> None:
    seen = world(replicas=servers(ONE, *health, age_s=1.0))
    plan = decide((service(ONE),), published(seen, service(ONE)))
    assert (ProbeRevision(service="svc", revision=1) in plan.actions) is asked


def test_it_is_promoted_by_its_probes_alone_without_a_model_on_this_host() -> None:
    seen = world(replicas=servers(ONE, Health.READY, Health.DEAD), probes=probes(ONE), models={})
    plan = decide((service(ONE),), published(seen, service(ONE)))
    assert [one.finding.reason for one in plan.answers if one.blocking] == []
    assert Promote(service="svc", revision=1) in plan.actions


@pytest.mark.parametrize(("age_s", "given_up"), [(PATIENCE_S - 1, False), (PATIENCE_S, True)])
def test_a_revision_none_of_whose_servers_answers_is_given_up_after_a_while(age_s: float, given_up: bool) -> None:
    seen = published(world(replicas=servers(ONE, Health.DEAD, Health.DEAD, age_s=age_s)), service(ONE))
    rejected = [action for action in decide((service(ONE),), seen).actions if isinstance(action, Reject)]
    assert [action.finding.reason for action in rejected] == (["ExternalNoneAnswers"] if given_up else [])


def test_one_that_serves_is_never_given_up_and_nobody_is_killed_for_it() -> None:
    seen = published(world(replicas=servers(ONE, Health.DEAD, Health.DEAD)), service(ONE, ONE))
    plan = decide((service(ONE, ONE),), seen)
    assert not [action for action in plan.actions if isinstance(action, (Reject, RemoveReplica, EnsureReplica))]
    (told,) = [one.finding for one in plan.answers if one.check == "replicas_ready"]
    assert told.reason == "ExternalNoneAnswers"


def test_a_replaced_list_of_servers_stays_until_nothing_is_under_way_there() -> None:
    new = revision(2, URLS[:1])
    both = (*servers(ONE, *WELL, requests_running=1), *servers(new, Health.READY))
    after = service(new, new, serving_since=NOW - POLICY_STALE_S - 1)
    busy = cluster(world(replicas=both, asked={ONE.name: ONE.spec, new.name: new.spec}), after)
    assert set(busy) == {"svc/1", "svc/2"}
    assert busy["svc/1"] == cluster(world(replicas=both), service(ONE, ONE))["svc/1"], "unchanged: nothing is cut"
    idle = tuple(replace(one, requests_running=0) for one in both)
    assert set(cluster(world(replicas=idle, asked={ONE.name: ONE.spec}), after)) == {"svc/2"}
    just_now = service(new, new, serving_since=NOW - 1)
    assert set(cluster(world(replicas=idle, asked={ONE.name: ONE.spec}), just_now)) == {"svc/1", "svc/2"}


def test_the_settings_of_a_replaced_revision_stay_as_they_were_while_it_drains() -> None:
    old = worlds.revision(1, gateway=Gateway(balancing=Balancing.ROUND_ROBIN, connect_timeout_s=7))
    new = worlds.revision(2)
    seen = world(replicas=running("svc/1/0", "svc/1/1", "svc/2/0", "svc/2/1"), asked={old.name: old.spec})
    made = cluster(seen, service(new, new, serving_since=NOW - 1))
    assert (made["svc/1"].balancing, made["svc/1"].connect_timeout_s) == (Balancing.ROUND_ROBIN, 7)
    assert (made["svc/2"].balancing, made["svc/2"].connect_timeout_s) == (Balancing.TOKEN_AWARE, 1)


def test_a_removed_service_is_forgotten_once_the_gateway_has_its_servers_no_more() -> None:
    gone = service(ONE, ONE, removed=True, serving_since=NOW - 100)
    still = world(replicas=servers(ONE, *WELL, requests_running=0), asked={ONE.name: ONE.spec})
    plan = decide((gone,), published(still, gone))
    assert [type(action).__name__ for action in plan.actions] == []
    assert cluster(still, gone) == {}
    assert ForgetService(service="svc") in decide((gone,), published(world(), gone)).actions


def test_own_replicas_take_over_from_servers_and_back() -> None:
    own = worlds.revision(2)
    plan = decide((service(own, ONE),), published(world(replicas=servers(ONE, *WELL)), service(own, ONE)))
    assert [action.placement.threads for action in plan.actions if isinstance(action, EnsureReplica)] == [1, 1]
    back = revision(3)
    seen = world(replicas=(*running("svc/2/0", "svc/2/1"), *servers(back, *WELL)), probes=probes(back))
    plan = decide((service(back, own),), published(seen, service(back, own)))
    assert Promote(service="svc", revision=3) in plan.actions


def test_servers_take_no_threads_from_the_replicas_of_this_host() -> None:
    own, far = worlds.revision(1, service="own"), revision()
    seen = world(host=replace(worlds.HOST, cores=8), replicas=servers(far, *WELL))
    plan = decide((service(own), service(far, far)), seen)
    assert [one.placement.threads for one in plan.actions if isinstance(one, EnsureReplica)] == [4, 4]


def test_a_plan_of_servers_needs_no_memory_and_no_time_to_load() -> None:
    assert replicas_wanted(ONE, world()) == 2
    assert load_limit_s(ONE.spec) < 60
    with pytest.raises(ValueError, match="external"):
        memory_of(ONE.spec, worlds.MODEL, worlds.HOST, 2)
    assert world(models={"svc": worlds.MODEL}).model_of(ONE.spec) is None


def answers(of: Revision, seen: World, stage: Stage = Stage.PREFLIGHT) -> dict[str, Answer]:
    return {one.check: one for one in ask(CHECKS, stage, of, seen)}


ABOUT_OUR_OWN = {
    "memory_fits", "cores_enough", "cpu_can_run_engine", "cards_fit", "accelerators_well", "shared_memory",
    "engine_installed", "engine_environment", "engine_doors", "model_readable", "architecture_known",
    "context_fits_model", "chat_template_present", "quantization_as_asked", "projector_usable",
}  # fmt: skip


def test_what_is_asked_of_an_engine_of_ours_does_not_apply_and_says_why() -> None:
    found = answers(ONE, world(models={}, servers=answered(ONE, "svc", "svc")))
    not_asked = {name for name, one in found.items() if one.finding.values.get("why") == "ExternalReplicas"}
    assert not_asked == ABOUT_OUR_OWN
    assert [one.check for one in found.values() if one.blocking] == []
    live = answers(ONE, world(replicas=servers(ONE, *WELL), probes=probes(ONE)), Stage.DEPLOY)
    assert live["engine_on_loopback"].finding.values["why"] == "ExternalReplicas"


def test_what_is_asked_of_servers_does_not_apply_to_replicas_of_ours() -> None:
    found = answers(worlds.revision(), world())
    for name in ("external_servers", "external_servers_all", "external_encrypted"):
        assert found[name].finding.values == {"why": "OwnReplicas"}


@pytest.mark.parametrize(
    ("models", "reason", "blocks"),
    [
        (("svc", "svc"), "ExternalServersAnswer", False),
        (("svc", None), "ExternalServersAnswer", False),
        ((None, None), "ExternalNoneAnswers", True),
        (("svc", "other"), "ExternalModelUnknown", True),
        ((None, "other"), "ExternalModelUnknown", True),
        (None, "ExternalServersUnseen", True),
    ],
)
def test_one_that_answers_is_enough_and_none_may_serve_another_model(
    models: tuple[str | None, ...] | None, reason: str, blocks: bool
) -> None:
    seen = world(servers=answered(ONE, *models) if models is not None else {})
    found = answers(ONE, seen)["external_servers"]
    assert (found.finding.reason, found.blocking) == (reason, blocks)


def test_a_ca_file_of_its_own_makes_another_question_of_the_same_server() -> None:
    own_ca = revision(ca_file="/ca.pem")
    found = answers(own_ca, world(servers=answered(ONE, "svc", "svc")))["external_servers"]
    assert found.finding.reason == "ExternalServersUnseen"


def test_each_silent_server_is_named_by_the_gateway_once_it_has_looked_and_before_by_our_question() -> None:
    asked = answered(ONE, "svc", None)
    before = answers(ONE, world(servers=asked, replicas=servers(ONE, None, None)))["external_servers_all"]
    assert (before.finding.reason, before.finding.subject) == ("ExternalSilent", f"server/{URLS[1]}")
    after = world(servers=asked, replicas=servers(ONE, Health.DEAD, Health.READY))
    live = answers(ONE, after, Stage.LIVE)["external_servers_all"]
    assert (live.finding.reason, live.finding.subject) == ("ExternalSilent", f"server/{URLS[0]}")
    assert not live.blocking
    well = answers(ONE, world(replicas=servers(ONE, *WELL)), Stage.LIVE)["external_servers_all"]
    assert well.finding.reason == "ExternalAllAnswer"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9101", "ExternalEncrypted"),
        ("http://[::1]:9101", "ExternalEncrypted"),
        ("http://localhost:9101", "ExternalEncrypted"),
        ("https://far.example", "ExternalEncrypted"),
        ("http://far.example", "ExternalInClear"),
        ("http://10.0.0.7:8000", "ExternalInClear"),
        ("http://localhost.example", "ExternalInClear"),
    ],
)
def test_prompts_that_cross_a_network_in_clear_text_are_told(url: str, reason: str) -> None:
    found = answers(revision(urls=(url,)), world())["external_encrypted"]
    assert (found.finding.reason, found.blocking) == (reason, False)
