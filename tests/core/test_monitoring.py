"""The metrics: complete, bounded, in Prometheus's form; and the rules and the dashboard ask for nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gonogo.facts import accelerator
from gonogo.facts.gateway import GatewayFacts
from gonogo.facts.parse_gateway import GatewayNow
from gonogo.facts.parse_utilization import Utilization
from gonogo.facts.part import PartFacts
from gonogo.facts.replica import Health, MemoryMeasured, ReplicaFacts, ReplicaName
from gonogo.facts.request_record import LogPosition
from gonogo.facts.usage import PROBES, usage_of
from gonogo.facts.world import CertificateFacts, World
from gonogo.gateway.policy.ledger import Held
from gonogo.monitoring import file_text
from gonogo.monitoring.exposition import MOST_KEYS, OTHER, Measured, text
from gonogo.store.metering import LogState, UsageRow
from gonogo.tasks.nouns import Counts
from gonogo.tasks.summary import Summary
from tests.core import worlds
from tests.core.test_usage import ANSWERED, RELAYED, STREAM

KEYS = tuple(f"{number:010d}" for number in range(MOST_KEYS + 20))


def row(key_id: str, service: str = "svc", **changes: object) -> UsageRow:
    used = usage_of(replace(ANSWERED, **changes), None)  # type: ignore[arg-type]
    return UsageRow(at=0, key_id=key_id, service=service, usage=used)


def world() -> World:
    replicas = tuple(
        ReplicaFacts(
            name=ReplicaName(service="svc", revision=1, index=index),
            host="h",
            address="127.0.0.1",
            port=9000 + index,
            handle=str(index),
            health=health,
            age_s=60.0,
            requests_running=index,
            requests_waiting=0,
            tokens_generated=77,
            memory=MemoryMeasured(resident_bytes=1000),
        )
        for index, health in enumerate((Health.READY, Health.HUNG))
    )
    card = accelerator.Accelerator(
        index=0,
        name="H100",
        memory_total_bytes=80,
        memory_used_bytes=70,
        uuid="GPU-0",
        health=accelerator.Health(uncorrected_errors=2),
    )
    return World(
        host=replace(worlds.HOST, accelerators=(card,)),
        observation=1,
        at=1.0,
        fallen_back={"svc/1": False},
        replicas=replicas,
        gateway=GatewayFacts(running=True, handle="1", resources=()),
        parts=(
            PartFacts(role="policy", index=0, running=True, handle="2"),
            PartFacts(role="policy", index=1, running=True, handle="3", hung=True),
            PartFacts(role="valkey", index=0, running=False, handle=None),
        ),
        certificate=CertificateFacts(
            subject="x", names=(), not_before=1.0, not_after=2e9, matches_key=True, own_ca=True
        ),
    )


def measured(times: int = 1) -> Measured:
    """Some of everything, `times` as much of it."""
    stream = UsageRow(at=0, key_id=KEYS[1], service="svc", usage=usage_of(RELAYED, STREAM))
    rows = [
        row(KEYS[0]),
        row(KEYS[1], status=429, details="policy_rate_limited"),
        row(KEYS[0], attempts=2, prompt_tokens=None, completion_tokens=None),
        row(KEYS[2], "other", status=503, details="upstream_reset_before_response_started"),
        row(PROBES, status=500),
        row("", "", status=401, revision=None),
        stream,
    ]
    position = LogPosition(inode=1, offset=2, mark=3)
    busy = Utilization(
        index=0,
        uuid="GPU-0",
        name="H100",
        busy=0.9,
        memory_used_bytes=70,
        memory_total_bytes=80,
        temperature_c=60.0,
        power_w=650.5,
    )
    return Measured(
        version="1",
        totals=rows * times,
        key_order=KEYS,
        key_names={KEYS[0]: 'a "quoted" \\ name\nof two lines'},
        logs={"access": LogState(position=position, lines=7 * times, malformed=1, gaps=0)},
        chain_length=41 + times,
        queue=Summary(
            counts=Counts(queued=7, leased=2, done=5, dead=1),
            oldest_age_s=12.5,
            ended_per_s=0.5,
            workers=1,
            batches=3,
            draining=False,
        ),
        world=world(),
        promised_s={"svc": 0.5},
        wanted={"svc": 2},
        failing=1,
        cache_used={"svc/1/0": 0.5},
        held={"svc/1/0": Held(tokens=900, sequences=3), "svc/1/1": Held()},
        gateway_now=GatewayNow(requests=11, connections=12, held_by_policy=3),
        utilization=(busy,),
    )


def samples(given: Measured) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = [one for family in text_string_to_metric_families(text(given)) for one in family.samples]
    named = {(one.name, tuple(sorted(one.labels.items()))): one.value for one in found}
    assert len(named) == len(found), "no series twice"
    return named


def value(given: Measured, metric: str, **labels: str) -> float:
    return samples(given)[metric, tuple(sorted(labels.items()))]


def test_requests_are_counted_by_key_and_status_and_probes_are_one_key() -> None:
    given = measured()
    assert value(given, "gonogo_requests_total", service="svc", key=KEYS[0], code="200") == 2
    assert value(given, "gonogo_requests_total", service="svc", key=KEYS[1], code="429") == 1
    assert value(given, "gonogo_requests_total", service="svc", key=PROBES, code="500") == 1
    assert value(given, "gonogo_requests_total", service="-", key="-", code="401") == 1


def test_a_gpu_tells_its_power_and_the_memory_errors_that_were_not_corrected() -> None:
    card = {"accelerator": "0", "uuid": "GPU-0", "name": "H100"}
    assert value(measured(), "gonogo_accelerator_power_watts", **card) == 650.5
    assert value(measured(), "gonogo_accelerator_uncorrected_errors", **card) == 2


def test_what_the_gateway_asked_itself_is_no_availability() -> None:
    given = measured()
    assert value(given, "gonogo_request_outcomes_total", service="svc", outcome="failed") == 0
    assert value(given, "gonogo_request_outcomes_total", service="other", outcome="failed") == 1
    assert value(given, "gonogo_request_outcomes_total", service="svc", outcome="answered") == 3


def test_histograms_are_cumulative_with_the_buckets_of_the_conventions() -> None:
    name = "gen_ai_server_time_to_first_token_seconds"
    found = {labels: count for (metric, labels), count in samples(measured()).items() if metric == f"{name}_bucket"}
    bounds = [dict(labels)["le"] for labels in found if dict(labels)["gen_ai_request_model"] == "svc"]
    counts = [count for labels, count in found.items() if dict(labels)["gen_ai_request_model"] == "svc"]
    assert list(map(float, bounds)) == [
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
        float("inf"),
    ]
    assert counts == sorted(counts)
    assert counts[-1] == value(measured(), f"{name}_count", gen_ai_request_model="svc") == 1
    assert value(measured(), f"{name}_sum", gen_ai_request_model="svc") == pytest.approx(0.1)


def test_a_hung_or_missing_process_is_down() -> None:
    given = measured()
    up = {labels: seen for (name, labels), seen in samples(given).items() if name == "gonogo_part_up"}
    seen = {f"{dict(labels)['role']}-{dict(labels)['index']}": one for labels, one in up.items()}
    assert seen == {"policy-0": 1, "policy-1": 0, "valkey-0": 0, "gateway-0": 1}
    assert value(given, "gonogo_replicas_ready", service="svc") == 1


def test_the_queue_is_told_by_state_with_its_oldest_and_its_pace() -> None:
    given = measured()
    states = [value(given, "gonogo_queue_tasks", state=one) for one in ("queued", "leased", "done", "dead")]
    told = ("oldest_seconds", "ended_per_second", "batches", "workers", "draining")
    assert (states, [value(given, f"gonogo_queue_{one}") for one in told]) == ([7, 2, 5, 1], [12.5, 0.5, 3, 1, 0])


def test_what_each_replica_holds_is_told_where_valkey_says() -> None:
    given = measured()
    assert value(given, "gonogo_replica_tokens_held", service="svc", replica="svc/1/0") == 900
    assert value(given, "gonogo_replica_requests_held", service="svc", replica="svc/1/1") == 0
    assert not [name for name, _ in samples(replace(given, held={})) if name.endswith("_held")]


def test_who_waits_is_told_where_envoy_says() -> None:
    assert value(measured(), "gonogo_gateway_requests_held_by_policy") == 3
    silent = replace(measured(), gateway_now=GatewayNow())
    assert not [name for name, _ in samples(silent) if name.startswith("gonogo_gateway_requests")]


def test_a_thousand_keys_make_no_thousand_series() -> None:
    many = replace(measured(), totals=[row(f"{number:010d}") for number in range(1000)])
    keys = {dict(labels).get("key") for name, labels in samples(many) if name == "gonogo_requests_total"}
    assert len(keys) == MOST_KEYS + 1
    assert value(many, "gonogo_requests_total", service="svc", key=OTHER, code="200") == 1000 - MOST_KEYS


def test_without_control_the_sums_are_told_and_that_it_is_away() -> None:
    alone = replace(measured(), world=None, wanted={}, failing=None, cache_used={}, utilization=())
    assert value(alone, "gonogo_control_up") == 0
    assert value(alone, "gonogo_requests_total", service="svc", key=KEYS[0], code="200") == 2
    assert not [name for name, _ in samples(alone) if name.startswith(("gonogo_replica", "gonogo_part"))]


def test_nothing_yet_is_told_too() -> None:
    nothing = Measured(version="1", totals=(), key_order=(), key_names={}, logs={}, chain_length=0)
    assert value(nothing, "gonogo_control_up") == 0


def asked_for(expression: str) -> set[str]:
    """The names of metrics in a query."""
    plain = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on|group_left)\s*\([^)]*\)|\"[^\"]*\"", " ", expression)
    return set(re.findall(r"\b(?:gonogo|gen_ai)_[a-z0-9_]+", plain))


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    known = {name for name, _ in samples(measured())}
    groups = yaml.safe_load(file_text("rules.yaml"))["groups"]
    rules = [one["expr"] for group in groups for one in group["rules"]]
    panels = json.loads(file_text("dashboard.json"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    for expression in (*rules, *queries):
        assert asked_for(expression) <= known, expression
    assert len(queries) > 30


def test_every_alert_says_how_bad_it_is_and_what_it_means() -> None:
    groups = yaml.safe_load(file_text("rules.yaml"))["groups"]
    alerts = [one for group in groups for one in group["rules"] if "alert" in one]
    assert {one["labels"]["severity"] for one in alerts} == {"page", "ticket"}
    assert all({"summary", "description"} == set(one["annotations"]) for one in alerts)
    assert len({one["alert"] for one in alerts}) == len(alerts)


def test_panels_do_not_overlap_and_have_names_of_their_own() -> None:
    panels = json.loads(file_text("dashboard.json"))["panels"]
    assert len({one["id"] for one in panels}) == len({one["title"] for one in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for one in panels:
        place = one["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, one["title"]
        taken |= cells


def test_a_fallback_is_told_of_services_that_have_one() -> None:
    away = replace(measured(), world=replace(world(), fallen_back={"svc/1": True, "other/3": False}))
    assert value(away, "gonogo_fallback_in_use", service="svc") == 1
    assert value(away, "gonogo_fallback_in_use", service="other") == 0


def test_what_a_service_promises_is_told_of_those_that_promise_something() -> None:
    assert value(measured(), "gonogo_first_token_objective_seconds", service="svc") == 0.5
    alone = replace(measured(), promised_s={})
    assert not [name for name, _ in samples(alone) if name == "gonogo_first_token_objective_seconds"]
