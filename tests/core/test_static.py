"""The gateway's configuration as one file: nothing that a control process would have to give, and no secret."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import pytest

from gonogo.actions.model import ListenerPlan
from gonogo.gateway.snapshot import CLUSTER, LISTENER
from gonogo.gateway.static import Wanted, static_configuration
from gonogo.gateway.translate import translate
from tests.core.test_translate_cases import FILES, read

WANTED = Wanted(certificate_file="/state/tls/server.pem", key_file="/state/tls/key.pem")
WHOLE = next(path for path in FILES if path.name.startswith("two-services"))


def names(part: Any) -> Iterator[str]:
    """Every field name anywhere."""
    if isinstance(part, dict):
        yield from part
        for value in part.values():
            yield from names(value)
    elif isinstance(part, list):
        for value in part:
            yield from names(value)


def routed_to(content: Any) -> set[str]:
    text = json.dumps(content["static_resources"]["listeners"])
    clusters = {one["name"] for one in content["static_resources"]["clusters"] if "/" in one["name"]}
    return {name for name in clusters if f'"cluster": "{name}"' in text}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".in.json"))
def test_nothing_is_left_to_ask_a_control_process_for_and_no_secret_is_in_it(path: Path) -> None:
    snapshot = translate(read(path))
    content = static_configuration(snapshot, WANTED)
    found = set(names(content))
    assert not found & {"ads", "rds", "eds_cluster_config", "sds_config", "dynamic_resources", "inline_bytes"}
    text = json.dumps(content)
    assert "(the key)" not in text
    assert "(the chain)" not in text
    fronts = [name for name, _ in snapshot.types[LISTENER].resources if name.startswith("gateway/")]
    assert text.count("/state/tls/key.pem") == len(fronts)
    clusters = {one["name"] for one in content["static_resources"]["clusters"]}
    assert clusters == {name for name, _ in snapshot.types[CLUSTER].resources}
    assert static_configuration(snapshot, WANTED) == content


def test_replicas_of_the_moment_stand_in_their_cluster_and_names_stay_names() -> None:
    path = next(one for one in FILES if one.name.startswith("balancing-and-timeouts"))
    clusters = {
        one["name"]: one for one in static_configuration(translate(read(path)), WANTED)["static_resources"]["clusters"]
    }
    (endpoint,) = clusters["a/1"]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 9001}
    assert clusters["a/1"].get("type", "STATIC") == "STATIC"
    assert clusters["c/1"]["type"] == "STRICT_DNS"
    assert clusters["policy"]["load_assignment"]["endpoints"], "the policy servers' sockets"


def test_one_service_alone_has_its_own_clusters_and_routes_and_policy() -> None:
    snapshot = translate(read(WHOLE))
    every = {name for name, _ in snapshot.types[CLUSTER].resources if "/" in name}
    service = sorted(every)[0].rpartition("/")[0]
    content = static_configuration(snapshot, replace(WANTED, service=service))
    mine = {name for name in every if name.rpartition("/")[0] == service}
    assert mine != every
    assert routed_to(content) == mine
    assert {one["name"] for one in content["static_resources"]["clusters"]} == mine | {
        name for name, _ in snapshot.types[CLUSTER].resources if "/" not in name
    }


def test_beside_the_deployed_gateway_it_listens_elsewhere_and_takes_none_of_its_sockets() -> None:
    snapshot = translate(read(WHOLE))
    elsewhere = replace(WANTED, listen=ListenerPlan(address="127.0.0.1", port=9999))
    listeners = static_configuration(snapshot, elsewhere)["static_resources"]["listeners"]
    addresses = [one["address"] for one in listeners if "internal_listener" not in one]
    assert addresses == [{"socket_address": {"address": "127.0.0.1", "port_value": 9999}}]


def test_the_way_to_a_hosted_api_is_written_out_with_the_path_of_its_key() -> None:
    path = next(one for one in FILES if one.name.startswith("fallback"))
    resources = static_configuration(translate(read(path)), replace(WANTED, service="phone"))["static_resources"]
    assert "phone/1/fallback" in {one["name"] for one in resources["clusters"]}
    (secret,) = resources["secrets"]
    assert secret["generic_secret"]["secret"] == {"filename": "/etc/gonogo/key"}
    other = static_configuration(translate(read(path)), replace(WANTED, service="other"))["static_resources"]
    assert not other.get("secrets")
