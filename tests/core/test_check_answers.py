"""Checks at the edges where drills found them blind, too strict, or saying the same thing twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gonogo.checks.catalogue import CHECKS
from gonogo.checks.finding import Finding, Stage, Verdict
from gonogo.facts.gateway import CertificateFacts
from gonogo.facts.model import ModelFacts, ModelProblem
from gonogo.facts.part import POLICY, RELAY, RPC, TASKS, VALKEY, WORKER
from gonogo.facts.queue import QueueFacts
from gonogo.facts.world import World
from gonogo.plan.decide import ask
from gonogo.spec import Gateway, Revision
from gonogo.spec.queue import Queue
from tests.core import worlds

BY_NAME = {check.name: check for check in CHECKS}
PART_CHECKS = ("policy_servers", "relays", "counters_shared", "grpc_served", "queue_runs")
ELSEWHERE = Queue(url="redis://queue.example/0")
GIVEN = Gateway(hostnames=("agent.example.com",), certificate_file="/c.pem", key_file="/k.pem")


def one(name: str, revision: Revision, world: World) -> Finding:
    (finding,) = BY_NAME[name].ask(revision, world)
    return finding


def certificate(**changes: object) -> CertificateFacts:
    return replace(worlds.CERTIFICATE, names=("agent.example.com",), own_ca=False, **changes)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_read_is_one_finding_and_not_a_riddle_about_memory_too() -> None:
    broken = ModelFacts(asked="tiny", path="/m", problem=ModelProblem(kind="truncated", detail="short"))
    world, revision = worlds.world(models={"tiny": broken}), worlds.revision()
    assert one("memory_fits", revision, world).verdict is Verdict.NOT_APPLICABLE
    blocking = {answer.check for answer in ask(CHECKS, Stage.PREFLIGHT, revision, world) if answer.blocking}
    assert blocking == {"model_readable"}


def test_a_policy_server_that_dies_at_each_start_is_missing_although_its_process_is_mostly_there() -> None:
    world = worlds.world()
    assert world.parts is not None
    first, second = (replace(part, listening=True) for part in world.parts if part.role == POLICY)
    both = replace(world, parts=(first, second))
    assert one("policy_servers", worlds.revision(), both).reason == "PolicyServersReady"
    looping = replace(world, parts=(first, replace(second, listening=False)))
    assert one("policy_servers", worlds.revision(), looping).reason == "PolicyServersMissing"


@pytest.mark.parametrize(
    ("changes", "well"),
    [
        ({"listening": True}, True),
        ({"running": False, "listening": False}, False),
        ({"listening": False}, False),
        ({"listening": True, "hung": True}, False),
    ],
)
@pytest.mark.parametrize(
    ("role", "check", "reasons"),
    [
        (POLICY, "policy_servers", ("PolicyServersReady", "PolicyServersMissing")),
        (RELAY, "relays", ("RelaysReady", "RelaysMissing")),
        (VALKEY, "counters_shared", ("CountersShared", "CountersApart")),
        (RPC, "grpc_served", ("GrpcServed", "GrpcNotServed")),
        (TASKS, "queue_runs", ("QueueRuns", "QueueStands")),
        (WORKER, "queue_runs", ("QueueRuns", "QueueStands")),
    ],
)
def test_a_part_serves_only_where_it_runs_listens_and_answers(
    changes: dict[str, bool], well: bool, role: str, check: str, reasons: tuple[str, str]
) -> None:
    parts = tuple(replace(part, **changes) if part.role == role else part for part in worlds.world().parts or ())
    found = one(check, worlds.revision(), worlds.world(parts=parts))
    assert found.reason == reasons[0 if well else 1]


def test_parts_that_requests_go_on_without_advise_and_the_others_block() -> None:
    blocking = {name for name in PART_CHECKS if BY_NAME[name].blocks}
    assert blocking == {"policy_servers", "relays"}


def test_what_was_not_looked_at_is_unknown_of_every_part() -> None:
    found = {one(name, worlds.revision(), worlds.world(parts=None)).verdict for name in PART_CHECKS}
    assert found == {Verdict.UNKNOWN}


def test_the_part_of_the_queue_that_is_away_is_named() -> None:
    parts = worlds.world().parts or ()
    for role in (TASKS, WORKER):
        seen = tuple(replace(part, running=part.role != role) for part in parts)
        assert one("queue_runs", worlds.revision(), worlds.world(parts=seen)).values == {"part": role}


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (QueueFacts(), "QueueServerAnswers"),
        (QueueFacts(trouble="queue_silent", detail="refused"), "QueueServerSilent"),
        (QueueFacts(trouble="queue_refuses", detail="NOAUTH"), "QueueServerRefuses"),
        (QueueFacts(trouble="queue_password_file", detail="no such file"), "QueuePasswordUnreadable"),
        (None, "QueueServerUnknown"),
    ],
)
def test_the_queues_server_advises_whatever_it_says(facts: QueueFacts | None, reason: str) -> None:
    servers = {} if facts is None else {ELSEWHERE: facts}
    assert one("queue_server", worlds.revision(queue=ELSEWHERE), worlds.world(queue_servers=servers)).reason == reason
    assert not BY_NAME["queue_server"].blocks
    assert one("queue_server", worlds.revision(), worlds.world(queue_servers=servers)).verdict is Verdict.NOT_APPLICABLE


def test_two_services_that_name_two_queues_block_the_second_and_one_that_names_none_does_not() -> None:
    other = Queue(url="redis://other.example/0")
    for queues, mine, reason in (
        ({"svc": ELSEWHERE}, ELSEWHERE, "QueueShared"),
        ({"svc": ELSEWHERE, "b": ELSEWHERE}, ELSEWHERE, "QueueShared"),
        ({"svc": other}, ELSEWHERE, "QueueShared"),
        ({"svc": ELSEWHERE, "b": other}, ELSEWHERE, "QueueDiffers"),
        ({"b": other}, None, "NotApplicable"),
    ):
        found = one("queue_shared", worlds.revision(queue=mine), worlds.world(queues=queues))
        assert found.reason == reason
    assert BY_NAME["queue_shared"].blocks


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (certificate(), "CertificateValid"),
        (certificate(not_after=worlds.NOW + 60), "CertificateValid"),
        (certificate(not_after=worlds.NOW - 1, problem="it expired"), "CertificateExpired"),
        (certificate(not_before=worlds.NOW + 9, problem="not yet"), "CertificateNotYetValid"),
        (certificate(matches_key=False, problem="not the key"), "CertificateMismatched"),
        (
            certificate(not_before=0.0, not_after=0.0, matches_key=False, problem="no such file"),
            "CertificateMismatched",
        ),
        (None, "CertificateUnknown"),
    ],
)
def test_a_given_certificate_is_judged_before_anything_starts(facts: CertificateFacts | None, reason: str) -> None:
    revision = worlds.revision(gateway=GIVEN)
    world = worlds.world(given_certificates={} if facts is None else {"/c.pem": facts})
    assert one("given_certificate", revision, world).reason == reason


def test_without_a_given_certificate_there_is_nothing_to_judge_before_the_start() -> None:
    assert one("given_certificate", worlds.revision(), worlds.world()).verdict is Verdict.NOT_APPLICABLE


def test_a_star_in_a_certificate_stands_for_one_label() -> None:
    starred = certificate()
    for names, reason in (
        (("*.example.com",), "CertificateValid"),
        (("*.Example.COM",), "CertificateValid"),
        (("*.com",), "CertificateMismatched"),
        (("example.com",), "CertificateMismatched"),
    ):
        world = worlds.world(certificate=replace(starred, names=names))
        assert one("certificate_valid", worlds.revision(gateway=GIVEN), world).reason == reason


def test_a_certificate_with_few_days_left_is_advice_and_stops_nothing() -> None:
    world = worlds.world(certificate=replace(worlds.CERTIFICATE, not_after=worlds.NOW + 5 * 86400))
    answers = [answer for answer in ask(CHECKS, Stage.DEPLOY, worlds.revision(), world) if "certif" in answer.check]
    assert {answer.finding.reason for answer in answers} == {"CertificateValid", "CertificateExpiring"}
    assert not any(answer.blocking for answer in answers)


def test_on_a_fresh_machine_the_certificate_that_is_still_to_be_made_stops_nothing() -> None:
    fresh = worlds.world(certificate=None)
    assert not any(answer.blocking for answer in ask(CHECKS, Stage.PREFLIGHT, worlds.revision(), fresh))
