"""Each file of tests/cases/xds: a plan in, the resources that Envoy is to have out. `--accept` rewrites the expected.

`show` names the types that are written out in full; of the others the version and the names are enough.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gonogo.actions.model import ClusterPlan, EndpointPlan, ExternalPlan, FallbackPlan, ListenerPlan
from gonogo.facts.replica import ReplicaName
from gonogo.gateway.resources.convert import to_json, unpacked
from gonogo.gateway.translate import GatewayInput, translate
from gonogo.spec.fallback import api_of
from gonogo.spec.gateway import Balancing
from gonogo.spec.replicas import server_of

CASES = Path(__file__).parents[1] / "cases" / "xds"
FILES = sorted(CASES.glob("*.in.json"))


def read(path: Path) -> GatewayInput:
    content = json.loads(path.read_text(encoding="utf-8"))
    listeners = (each.rsplit(":", 1) for each in content["listeners"])
    settings = content.get("settings", {})
    return GatewayInput(
        listeners=tuple(ListenerPlan(address=address, port=int(port)) for address, port in listeners),
        clusters=tuple(
            ClusterPlan(
                name=name,
                endpoints=tuple(
                    EndpointPlan(name=ReplicaName.parse(replica), address="127.0.0.1", port=port)
                    for replica, port in replicas.items()
                ),
                outlives_its_parts=name in content.get("outlive_their_parts", ()),
                balancing=Balancing(settings.get(name, {}).get("balancing", "token_aware")),
                connect_timeout_s=settings.get(name, {}).get("connect_timeout_s", 1.0),
                external=external(content.get("external", {}).get(name)),
                fallback=fallback(content.get("fallback", {}).get(name)),
            )
            for name, replicas in content["clusters"].items()
        ),
        policy_sockets=("/state/run/policy-0.sock", "/state/run/policy-1.sock"),
        certificate_chain_pem="-----BEGIN CERTIFICATE-----\n(the chain)\n-----END CERTIFICATE-----\n",
        private_key_pem="-----BEGIN PRIVATE KEY-----\n(the key)\n-----END PRIVATE KEY-----\n",
        access_log_path="/state/gateway/access.log",
        queue_socket="/state/run/tasks-0.sock",
        relay_sockets=tuple(content.get("relays", ())),
        inner_socket="/state/run/inner.sock",
        inner_log_path="/state/gateway/inner.log",
        rpc_socket="/state/run/rpc-0.sock",
        front_socket="/state/run/front.sock",
        fallback_keys=content.get("fallback_keys", {}),
    )


def external(asked: dict[str, Any] | None) -> ExternalPlan | None:
    if asked is None:
        return None
    servers = tuple(server_of(url) for url in asked["urls"])
    return ExternalPlan(servers=servers, health_path=asked.get("health_path", "/health"), ca_file=asked.get("ca_file"))


def fallback(asked: dict[str, Any] | None) -> FallbackPlan | None:
    if asked is None:
        return None
    return FallbackPlan(api=api_of(asked["url"]), key_file=asked["key_file"], ca_file=asked.get("ca_file"))


def outcome(path: Path) -> dict[str, Any]:
    shown = json.loads(path.read_text(encoding="utf-8"))["show"]
    seen: dict[str, Any] = {}
    for url, typed in translate(read(path)).types.items():
        kind = url.rsplit(".", 1)[1]
        names = [name for name, _ in typed.resources]
        resources = {name: to_json(unpacked(packed)) for name, packed in typed.resources}
        seen[kind] = {"version": typed.version, "resources": resources if kind in shown else names}
    return seen


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".in.json"))
def test_each_plan_gives_the_resources_that_are_expected_of_it(path: Path, pytestconfig: pytest.Config) -> None:
    seen = outcome(path)
    expected = path.with_name(path.name.replace(".in.", ".out."))
    if pytestconfig.getoption("--accept"):
        expected.write_text(json.dumps(seen, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    assert seen == json.loads(expected.read_text(encoding="utf-8"))


def test_no_expected_file_is_left_without_its_case() -> None:
    assert {path.name.replace(".out.", ".in.") for path in CASES.glob("*.out.json")} == {path.name for path in FILES}
