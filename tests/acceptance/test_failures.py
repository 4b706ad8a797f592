"""Kill the real parts under a steady load of real requests, and count what fails."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import LONG
from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.load import Load


def replicas(deployment: Deployment) -> dict[str, Any]:
    """Replica id → what status says of it, of those that are ready."""
    (service,) = deployment.status()["services"]
    return {one["id"]: one for one in service["replicas"] if one["health"] == "ready"}


def served_by(deployment: Deployment, port: int) -> bool:
    """Whether a request was answered by the engine on this port (no two replicas ever had the same)."""
    for line in reversed((deployment.state_dir / "gateway" / "access.log").read_text().splitlines()[-400:]):
        seen = json.loads(line)
        if str(seen.get("upstream") or "").endswith(f":{port}") and seen["status"] == 200:
            return True
    return False


@pytest.mark.parametrize(("number", "limit_s"), [(signal.SIGKILL, 5.0), (signal.SIGSTOP, 6.0)])
def test_a_replica_that_dies_or_hangs_is_replaced_and_no_request_fails(
    deployed: Deployment, number: signal.Signals, limit_s: float
) -> None:
    wait_for(lambda: len(replicas(deployed)) == 2, 20, "two replicas are ready")
    with Load(deployed) as load:
        load.wait_for_more(10)
        before = replicas(deployed)
        victim = sorted(before)[0]
        os.kill(before[victim]["pid"], number)
        killed_at = time.monotonic()

        def replaced() -> Any:
            now = replicas(deployed).get(victim)
            changed = now is not None and now["pid"] != before[victim]["pid"]
            return changed and served_by(deployed, now["port"])

        wait_for(replaced, 30, f"{victim} is replaced and serves through the gateway\n{deployed.logs()}")
        took_s = time.monotonic() - killed_at
        load.wait_for_more(10)
    assert load.failed == []
    assert took_s <= limit_s, f"took {took_s:.1f} s"
    others = [name for name in before if name != victim]
    assert [replicas(deployed)[name]["pid"] for name in others] == [before[name]["pid"] for name in others]


def test_each_policy_server_may_be_killed_in_turn_and_no_request_fails(deployed: Deployment) -> None:
    with Load(deployed) as load:
        for pid in deployed.pids("policy"):
            load.wait_for_more(10)
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: len(set(deployed.pids("policy")) - {pid}) == 2, 15, "two policy servers again")
        load.wait_for_more(20)
    assert load.failed == []


def test_envoy_killed_is_back_within_two_seconds_and_only_requests_in_flight_are_lost(deployed: Deployment) -> None:
    with Load(deployed) as load:
        load.wait_for_more(10)
        (pid,) = deployed.pids("gateway")
        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        wait_for(lambda: _answered_since(load, killed_at), 20, f"an answer after the kill\n{deployed.logs()}")
        back_s = min(one.ended for one in _answered_since(load, killed_at)) - killed_at
        load.wait_for_more(20)
    assert back_s <= 2.0, f"back after {back_s:.1f} s"
    late = [one for one in load.failed if one.began > killed_at + back_s]
    assert late == []
    refused = [one for one in load.failed if killed_at < one.began]
    assert all(one.status == 0 for one in refused)


@pytest.mark.parametrize("role", ["policy", "gateway"])
def test_a_policy_server_or_envoy_that_hangs_is_ended_and_replaced(deployed: Deployment, role: str) -> None:
    pid = deployed.pids(role)[0]
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: pid not in deployed.pids(role), 10, f"{role} {pid} is ended\n{deployed.logs()}")
    wait_for(lambda: len(deployed.pids(role)) == {"policy": 2, "gateway": 1}[role], 10, f"{role} is back")
    with deployed.client() as client:
        wait_for(lambda: _answers(deployed, client), 10, "a request is answered")


def _answers(deployment: Deployment, client: httpx.Client) -> bool:
    try:
        return deployment.ask(client).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_keeper_is_started_again_by_control(deployed: Deployment) -> None:
    (pid,) = deployed.pids("keeper")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: [one for one in deployed.pids("keeper") if one != pid], 10, "another keeper runs")
    assert len(deployed.pids("control")) == 1


def _answered_since(load: Load, moment: float) -> list[Any]:
    return [one for one in load.answers if one.status == 200 and one.began > moment]


def test_without_control_traffic_flows_keys_revoke_and_the_next_control_adopts_every_process(
    deployed: Deployment,
) -> None:
    seconds, requests = (120.0, 3000) if LONG else (8.0, 100)
    before = deployed.status()["processes"]
    made = deployed.run("keys", "create", "--json", "--name", "short-lived").json
    for role in ("keeper", "control"):
        for pid in before[role]:
            os.kill(pid, signal.SIGKILL)
    dead_at = time.monotonic()
    with Load(deployed, tokens=1) as load, deployed.client() as client:
        headers = {"authorization": f"Bearer {made['api_key']}"}
        wait_for(lambda: client.get("/v1/models", headers=headers).status_code == 200, 3, "the new key works")
        assert deployed.run("keys", "revoke", made["key_id"], "--json").code == 0
        revoked_at = time.monotonic()
        wait_for(lambda: client.get("/v1/models", headers=headers).status_code == 401, 5, "the key is refused")
        assert time.monotonic() - revoked_at <= 1.0
        load.wait_for_more(requests, limit_s=900)
        time.sleep(max(0.0, seconds - (time.monotonic() - dead_at)))
        deployed.up("--replicas", "2")
        load.wait_for_more(10)
    assert load.failed == []
    after = deployed.status()["processes"]
    for role in ("gateway", "policy", "replica"):
        assert after[role] == before[role], role


def test_four_times_overload_replaces_no_replica(deployed: Deployment) -> None:
    wait_for(lambda: len(replicas(deployed)) == 2, 20, "two replicas are ready")
    before = {name: one["pid"] for name, one in replicas(deployed).items()}
    with Load(deployed, workers=16, tokens=32) as load:
        time.sleep(60.0 if LONG else 8.0)
    assert load.failed == []
    assert {name: one["pid"] for name, one in replicas(deployed).items()} == before
