"""Usage of a real deployment: what clients were told is what is counted, though control is killed again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import LONG
from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.load import Load

KILLS = 40 if LONG else 8


@dataclass
class Told(Load):
    """A load that adds up the usage which the answers tell."""

    used: list[tuple[int, int]] = field(default_factory=list)

    def _ask(self, client: httpx.Client) -> tuple[int, str]:
        question = {
            "model": self.deployment.last_up["service"],
            "messages": [{"role": "user", "content": f"Count from {len(self.answers)}."}],
            "max_tokens": 1 + len(self.answers) % 4,
        }
        answer = client.post("/v1/chat/completions", json=question)
        if answer.status_code == 200:
            usage = answer.json()["usage"]
            self.used.append((usage["prompt_tokens"], usage["completion_tokens"]))
        return answer.status_code, "" if answer.status_code == 200 else answer.text[:300]


def test_what_clients_were_told_is_what_is_counted_though_control_is_killed_at_any_moment(
    deployed: Deployment,
) -> None:
    chance = random.Random(4)
    before = usage(deployed)
    with Told(deployed) as load:
        for _ in range(KILLS):
            load.wait_for_more(3)
            time.sleep(chance.random())
            (pid,) = wait_for(lambda: control(deployed), 30, "the keeper started control again")
            os.kill(pid, signal.SIGKILL)
        load.wait_for_more(5)
    assert load.failed == []
    told = (len(load.used), sum(one for one, _ in load.used), sum(one for _, one in load.used))
    wait_for(lambda: counted(deployed, before)[0] >= told[0], 60, f"{told} are counted")
    time.sleep(2.0)  # what would be counted twice would be by now
    assert counted(deployed, before) == told


class Streamed(Told):
    """The same with streams; one without its usage and its `[DONE]` has failed."""

    def _ask(self, client: httpx.Client) -> tuple[int, str]:
        question = {
            "model": self.deployment.last_up["service"],
            "messages": [{"role": "user", "content": f"Tell a story about {len(self.answers)}."}],
            "max_tokens": 24,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with client.stream("POST", "/v1/chat/completions", json=question) as answer:
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        if answer.status_code != 200 or events[-1:] != ["[DONE]"]:
            return answer.status_code or -1, str(events[-3:])
        usage = next(found for one in reversed(events[:-1]) if (found := json.loads(one).get("usage")))
        self.used.append((usage["prompt_tokens"], usage["completion_tokens"]))
        return 200, ""


def test_streams_that_lost_their_replica_are_counted_as_their_clients_were_told(deployed: Deployment) -> None:
    before = usage(deployed)
    with Streamed(deployed, workers=3) as load:
        load.wait_for_more(3)
        (service,) = deployed.status()["services"]
        victim = next(one for one in service["replicas"] if one["health"] == "ready")
        os.kill(victim["pid"], signal.SIGKILL)
        load.wait_for_more(6)
    assert load.failed == []
    told = (len(load.used), sum(one for one, _ in load.used), sum(one for _, one in load.used))
    wait_for(lambda: counted(deployed, before) == told, 60, f"{told} are counted, not {counted(deployed, before)}")
    events = deployed.run("report", "--json").json["events"]
    continued = [one for one in events if one["kind"] == "StreamContinued"]
    assert len(continued) <= len(load.used)
    assert all(len(one["detail"]["attempts"]) > 1 for one in continued)


def test_the_metrics_of_a_deployment_say_that_it_is_well(deployed: Deployment) -> None:
    def seen() -> dict[str, float]:
        found = deployed.run("metrics")
        assert found.code == 0, found.err
        families = text_string_to_metric_families(found.out)
        return {f"{one.name}{sorted(one.labels.values())}": one.value for family in families for one in family.samples}

    service = deployed.last_up["service"]
    well = f"gonogo_replicas_ready['{service}']"
    now = wait_for(lambda: found if (found := seen()).get(well) == 2 else None, 30, "two replicas are told")
    assert now["gonogo_control_up[]"] == 1
    assert now[f"gonogo_replicas_wanted['{service}']"] == 2
    assert now["gonogo_gateway_configuration_acknowledged[]"] == 1
    assert now["gonogo_audit_events_total[]"] > 10
    assert now["gonogo_gateway_requests_held_by_policy[]"] >= 0
    held = [value for name, value in now.items() if name.startswith("gonogo_replica_tokens_held")]
    assert len(held) == 2, "Valkey says what each replica holds"
    parts = {name: value for name, value in now.items() if name.startswith("gonogo_part_up")}
    assert set(parts.values()) == {1.0}, parts
    assert len(parts) >= 3


def test_status_and_report_tell_the_availability_that_was_measured(deployed: Deployment) -> None:
    service = deployed.last_up["service"]
    with deployed.client() as client:
        question = {"model": service, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        assert client.post("/v1/chat/completions", json=question).status_code == 200
    found = wait_for(lambda: deployed.status()["availability"].get(service), 30, "a request is counted")
    assert found["1h"]["share"] == 1
    assert deployed.run("report", "--json").json["status"]["availability"][service]["1h"]["asked"] >= 1
    assert "99.97" in deployed.run("status").out


def control(deployment: Deployment) -> list[int] | None:
    """Its pid, once one answers."""
    try:
        return deployment.pids("control") or None
    except (KeyError, ValueError):
        return None


def counted(deployment: Deployment, before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(now - then for now, then in zip(usage(deployment), before, strict=True))


def usage(deployment: Deployment) -> tuple[int, ...]:
    """Requests, prompt tokens and answer tokens of all keys but those of probes."""
    lines: list[Any] = deployment.run("usage", "--json").json["lines"]
    ours = [one for one in lines if one["key_id"] not in ("", "probes")]
    return tuple(sum(one[name] for one in ours) for name in ("answered", "prompt_tokens", "completion_tokens"))


def test_a_stream_counts_against_its_keys_limit_what_it_used_and_not_what_it_might_have(deployed: Deployment) -> None:
    made = deployed.run("keys", "create", "--json", "--name", "limited", "--tokens-per-minute", "1000").json
    with deployed.client() as client:
        client.headers["authorization"] = f"Bearer {made['api_key']}"
        asked = {"model": deployed.last_up["service"], "messages": [{"role": "user", "content": "Say yes."}]}

        def left() -> int:
            answer = client.post("/v1/chat/completions", json={**asked, "max_tokens": 1})
            assert answer.status_code == 200, answer.text
            return int(answer.headers["x-ratelimit-remaining-tokens"])

        wait_for(lambda: client.get("/v1/models").status_code == 200, 10, "the key is known")
        before = left()
        stream = {**asked, "max_tokens": 700, "stop": ["e", "s"], "stream": True}
        assert "[DONE]" in client.post("/v1/chat/completions", json=stream).text
        wait_for(lambda: left() > before - 500, 10, "what was not used is given back")
