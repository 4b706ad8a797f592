"""Rules of the translation that must hold for every plan."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from envoy.config.route.v3 import route_components_pb2

from gonogo.actions.model import ClusterPlan, EndpointPlan, ListenerPlan
from gonogo.facts.part import TASKS
from gonogo.facts.replica import ReplicaName
from gonogo.facts.request_record import RPC
from gonogo.gateway.policy.question import HEAD, SMALL, WHOLE
from gonogo.gateway.resources.asking import asked_by_headers, asked_nothing
from gonogo.gateway.resources.convert import to_json, to_message, unpacked
from gonogo.gateway.resources.routes import PATHS
from gonogo.gateway.resources.rpc import HEALTH, INFERENCE
from gonogo.gateway.snapshot import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    SECRET,
    Snapshot,
    SnapshotUnreadable,
)
from gonogo.gateway.translate import GatewayInput, translate


def cluster(name: str, *ports: int) -> ClusterPlan:
    service, revision = name.rsplit("/", 1)
    return ClusterPlan(
        name=name,
        endpoints=tuple(
            EndpointPlan(
                name=ReplicaName(service=service, revision=int(revision), index=index), address="127.0.0.1", port=port
            )
            for index, port in enumerate(ports)
        ),
    )


PLAN = GatewayInput(
    listeners=(ListenerPlan(address="127.0.0.1", port=8443),),
    clusters=(cluster("a/1", 1001, 1002), cluster("b/3", 1003)),
    policy_sockets=("/run/policy-0.sock", "/run/policy-1.sock"),
    certificate_chain_pem="chain",
    private_key_pem="the private key",
    access_log_path="/log",
    queue_socket="/run/tasks-0.sock",
    rpc_socket="/run/rpc-0.sock",
    front_socket="/run/front.sock",
)


def content(snapshot: Snapshot, type_url: str) -> dict[str, Any]:
    return {name: to_json(unpacked(packed)) for name, packed in snapshot.types[type_url].resources}


def changed(before: GatewayInput, after: GatewayInput) -> set[str]:
    old, new = translate(before).versions, translate(after).versions
    return {url for url in new if new[url] != old[url]}


def test_each_change_moves_the_version_of_its_own_types_alone() -> None:
    assert changed(PLAN, PLAN) == set()
    moved = replace(PLAN, clusters=(cluster("a/1", 1001, 2002), PLAN.clusters[1]))
    assert changed(PLAN, moved) == {ENDPOINTS}
    assert changed(PLAN, replace(PLAN, certificate_chain_pem="renewed")) == {SECRET}
    assert changed(PLAN, replace(PLAN, policy_sockets=("/run/policy-0.sock",))) == {CLUSTER}
    assert changed(PLAN, replace(PLAN, rpc_socket="/run/rpc-1.sock")) == {CLUSTER}
    assert changed(PLAN, replace(PLAN, front_socket="/run/other.sock")) == {LISTENER}
    assert changed(PLAN, replace(PLAN, access_log_path="/elsewhere")) == {LISTENER}
    assert changed(PLAN, replace(PLAN, clusters=PLAN.clusters[:1])) == {CLUSTER, ENDPOINTS, ROUTES}


def test_the_order_of_the_clusters_in_the_plan_does_not_matter() -> None:
    assert translate(PLAN).to_bytes() == translate(replace(PLAN, clusters=PLAN.clusters[::-1])).to_bytes()


def test_another_process_gives_the_same_bytes() -> None:
    code = "from tests.core.test_translate import PLAN, translate; print(translate(PLAN).versions)"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {str(translate(PLAN).versions)}


ASKED = {SMALL, HEAD, WHOLE}


def test_policy_is_asked_about_everything_but_health_and_unknown_paths() -> None:
    for route in all_routes():
        changed = ASKED & set(route.get("typed_per_filter_config", {}))
        if "grpc" in route["match"]:
            continue
        assert changed == (set() if route["match"].get("path") in PATHS else ASKED), route
        if changed and "direct_response" not in route:
            assert route["route"]["cluster"] == TASKS, "a route past policy leads to no engine"
            asked = {name: route["typed_per_filter_config"][name] for name in ASKED}
            assert asked == to_typed(asked_by_headers()), "it is asked by the headers, always"


def test_grpc_calls_are_let_in_by_their_headers_and_keep_their_key_for_the_way_back() -> None:
    health, *calls = (route for route in all_routes() if "grpc" in route["match"])
    assert {route["route"]["cluster"] for route in (health, *calls)} == {RPC}
    assert health["match"]["path"] == "/grpc.health.v1.Health/Check"
    assert health["typed_per_filter_config"] == to_typed(asked_nothing()), "the one call that is open"
    assert [route["match"].get("prefix", "a pattern") for route in calls] == [HEALTH, INFERENCE, "a pattern"]
    for route in calls:
        assert route["typed_per_filter_config"] == to_typed(asked_by_headers()), "and no body is waited for"
        assert "authorization" not in route["request_headers_to_remove"]
        assert route["route"]["retry_policy"]["retry_on"] == "connect-failure,refused-stream", "never what has arrived"


def to_typed(filters: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from protobuf."""
    made = to_message({"typed_per_filter_config": filters}, route_components_pb2.Route())
    typed: dict[str, Any] = to_json(made)["typed_per_filter_config"]
    return typed


def all_routes() -> list[dict[str, Any]]:
    routes: list[dict[str, Any]] = content(translate(PLAN), ROUTES)["gateway"]["virtual_hosts"][0]["routes"]
    return routes


def test_every_way_to_an_engine_names_its_revision_and_takes_the_key_away() -> None:
    ways = [route for route in all_routes() if route.get("route", {}).get("cluster", RPC) not in (RPC, TASKS)]
    assert len(ways) == len(PATHS) * len(PLAN.clusters)
    for route in ways:
        (revision,) = [h for h in route["match"]["headers"] if h["name"] == "x-gonogo-revision"]
        assert revision["string_match"] == {"exact": route["route"]["cluster"]}
        assert {"authorization", "x-gonogo-revision", "x-gonogo-key-id"} <= set(route["request_headers_to_remove"])


def test_a_snapshot_comes_back_from_its_bytes_as_it_was() -> None:
    snapshot = translate(PLAN)
    assert Snapshot.from_bytes(snapshot.to_bytes()) == snapshot


@pytest.mark.parametrize("broken", [b"", b"nonsense", b"\0" * 8], ids=["empty", "nonsense", "zeros"])
def test_bytes_that_are_no_snapshot_are_refused(broken: bytes) -> None:
    with pytest.raises(SnapshotUnreadable):
        Snapshot.from_bytes(broken)


def test_a_snapshot_that_was_cut_or_changed_anywhere_is_refused() -> None:
    whole = translate(PLAN).to_bytes()
    for size in range(0, len(whole), 997):
        with pytest.raises(SnapshotUnreadable):
            Snapshot.from_bytes(whole[:size])
    for position in range(0, len(whole), 997):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        with pytest.raises(SnapshotUnreadable):
            Snapshot.from_bytes(bytes(damaged))


def test_the_private_key_is_in_no_repr() -> None:
    assert "the private key" not in repr(PLAN) + repr(translate(PLAN))


def test_importing_the_translation_takes_less_than_a_second() -> None:
    code = (
        "import time; start = time.process_time(); import gonogo.gateway.translate; print(time.process_time() - start)"
    )
    spent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(spent) < 1.0, spent
