"""Policy servers behind the real Envoy: nobody passes without a key, and killing one fails no request."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from typing import Iterator

import pytest

from gonogo.gateway.resources.routes import PATHS
from tests.shell.gateway_parts import Client, FakeEngine, Front
from tests.shell.policy_parts import BODY, Deployment


@pytest.fixture
def deployment(tmp_path: object) -> Iterator[Deployment]:
    made = Deployment.make(tmp_path)  # type: ignore[arg-type]
    yield made
    made.close()


CHAT = "/v1/chat/completions"
SHOT = json.dumps(
    {
        "model": "svc",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_300_000}}],
            }
        ],
    }
).encode()
"""A phone's screen, as its agent sends it: 20 times what Envoy's own client would keep for another try."""
STALL_S = 2.2
WITHOUT_A_KEY = {
    "GET": ("GET", b"", False),
    "empty POST": ("POST", b"", False),
    "POST": ("POST", b'{"model":"svc"}', False),
    "chunked POST": ("POST", b'{"model":"svc"}', True),
    "OPTIONS": ("OPTIONS", b"", False),
}


def test_without_a_good_key_every_way_in_ends_in_401_and_the_engine_sees_nothing(deployment: Deployment) -> None:
    good, revoked = deployment.add_key(), deployment.add_key()
    deployment.revoke(revoked)
    deployment.start(0)
    deployment.start(1)

    async def run() -> None:
        async with Front(deployment) as front:
            client = front.client()
            before = front.engine.requests
            for path in (*PATHS, *(f"{path}?key={good.text}" for path in PATHS)):
                for name, (method, body, chunked) in WITHOUT_A_KEY.items():
                    for key, code in (
                        (None, "missing_api_key"),
                        ("gng_" + "A" * 49, "malformed_api_key"),
                        (revoked.text, "revoked_api_key"),
                    ):
                        reply = await client.send(method, path, key, body, chunked=chunked)
                        assert reply.status == 401, (path, name, reply)
                        error = json.loads(reply.body)["error"]
                        assert (error["code"], error["type"], error["hop"]) == (code, "authentication_error", "policy")
                        assert error["request_id"]
                        assert b"gng_" not in reply.head + reply.body
            assert front.engine.requests == before
            assert (await client.send("POST", CHAT, good.text, BODY)).status == 200
            assert front.engine.requests == before + 1
            assert good.text.encode() not in front.engine.seen_headers[-1], "the engine needs no key"
            client.close()
            log = front.access_log.read_text() + front.envoy_log.read_text()
            assert good.text not in log.replace(f"?key={good.text}", "")

    asyncio.run(run())


def test_two_services_behind_one_gateway_are_found_by_the_model_that_is_named(deployment: Deployment) -> None:
    deployment.add_service("other")
    every, one = deployment.add_key(service=None), deployment.add_key()
    deployment.start(0)

    async def run() -> None:
        second = FakeEngine()
        await second.start()
        async with Front(deployment, others={"other/1": second.port}) as front:
            client = front.client()
            for model, engine in (("svc", front.engine), ("other", second)):
                before = engine.requests
                body = BODY.replace(b"svc", model.encode())
                for path, sent in ((CHAT, body), ("/v1/completions", b'{"model":"%s","prompt":"x"}' % model.encode())):
                    assert (await client.send("POST", path, every.text, sent)).status == 200
                    assert engine.bodies[-1] == sent, "byte for byte"
                assert engine.requests == before + 2
            refused = await client.send("POST", CHAT, one.text, BODY.replace(b"svc", b"other"))
            error = json.loads(refused.body)["error"]
            assert (refused.status, error["code"], error["param"]) == (404, "model_not_found", "model")
            listed = json.loads((await client.send("GET", "/v1/models", every.text)).body)
            assert [model["id"] for model in listed["data"]] == ["other", "svc"]
            client.close()

    asyncio.run(run())


def test_what_is_wrong_with_a_body_is_said_by_name_and_the_engine_sees_nothing_of_it(deployment: Deployment) -> None:
    key = deployment.add_key()
    deployment.start(0)
    wrong = {
        b"": ("empty_body", None),
        b'{"model":"svc",': ("invalid_json", None),
        b'{"model":"svc","model":"svc"}': ("duplicate_key", "model"),
        BODY[:-1] + b',"api_base":"http://attacker"}': ("field_refused", "api_base"),
        BODY[:-1] + b',"max_token":5}': ("unknown_field", "max_token"),
        BODY[:-1] + b',"n":9}': ("invalid_value", "n"),
        BODY[:-1] + b',"grammar":"' + b"x" * 100_000 + b'"}': ("field_refused", "grammar"),
    }

    async def run() -> None:
        async with Front(deployment) as front:
            client, before = front.client(), front.engine.requests
            for body, (code, param) in wrong.items():
                reply = await client.send("POST", CHAT, key.text, body)
                error = json.loads(reply.body)["error"]
                assert (reply.status, error["code"], error["param"], error["hop"]) == (400, code, param, "policy")
                assert error["type"] == "invalid_request_error" and error["request_id"]
                assert "attacker" not in error["message"]
            assert front.engine.requests == before
            client.close()

    asyncio.run(run())


def test_forged_policy_headers_let_nobody_in_and_choose_no_revision(deployment: Deployment) -> None:
    good = deployment.add_key()
    deployment.start(0)

    async def run() -> None:
        async with Front(deployment) as front:
            client = front.client()
            forged = f"{good.text}\r\nx-gonogo-revision: other/9\r\nx-gonogo-key-id: admin"
            assert (await client.send("POST", CHAT, forged, BODY)).status == 200
            assert b"x-gonogo" not in front.engine.seen_headers[-1].lower()
            client.close()

    asyncio.run(run())


async def load(
    client: Client, key: str, stop: asyncio.Event, seen: Counter[int], worst_s: list[float], body: bytes = BODY
) -> None:
    while not stop.is_set():
        began = time.monotonic()
        reply = await client.send("POST", CHAT, key, body)
        worst_s[0] = max(worst_s[0], time.monotonic() - began)
        seen[reply.status] += 1
    client.close()


@pytest.mark.parametrize(("body", "clients", "least"), [(BODY, 16, 2000), (SHOT, 6, 150)], ids=["small", "screens"])
def test_killing_each_policy_server_in_turn_under_load_fails_no_request(
    deployment: Deployment, body: bytes, clients: int, least: int
) -> None:
    key = deployment.add_key()
    servers = [deployment.start(0), deployment.start(1)]

    async def run() -> tuple[Counter[int], float]:
        async with Front(deployment) as front:
            stop, seen, worst_s = asyncio.Event(), Counter[int](), [0.0]
            asked = [load(front.client(), key.text, stop, seen, worst_s, body) for _ in range(clients)]
            tasks = [asyncio.create_task(one) for one in asked]
            for index in (0, 1, 0, 1):
                await asyncio.sleep(1)
                await asyncio.to_thread(servers[index].kill)
                await asyncio.sleep(0.5)
                servers[index] = await asyncio.to_thread(deployment.start, index)
            while seen.total() < least:
                await asyncio.sleep(0.1)
            stop.set()
            await asyncio.gather(*tasks)
            assert front.engine.requests == seen.total()
            return seen, worst_s[0]

    seen, worst_s = asyncio.run(run())
    assert set(seen) == {200}, seen
    assert seen[200] >= least
    assert worst_s < 2, "a killed server must cost a retry, not a timeout"


@pytest.mark.parametrize(("body", "clients", "least"), [(BODY, 8, 500), (SHOT, 4, 40)], ids=["small", "screens"])
def test_restarting_each_policy_server_under_load_fails_no_request(
    deployment: Deployment, body: bytes, clients: int, least: int
) -> None:
    key = deployment.add_key()
    servers = [deployment.start(0), deployment.start(1)]

    async def run() -> Counter[int]:
        async with Front(deployment) as front:
            stop, seen, worst_s = asyncio.Event(), Counter[int](), [0.0]
            asked = [load(front.client(), key.text, stop, seen, worst_s, body) for _ in range(clients)]
            tasks = [asyncio.create_task(one) for one in asked]
            for index in (0, 1, 0, 1):
                await asyncio.sleep(0.5)
                assert await asyncio.to_thread(servers[index].terminate) < 2
                servers[index] = await asyncio.to_thread(deployment.start, index)
            stop.set()
            await asyncio.gather(*tasks)
            return seen

    seen = asyncio.run(run())
    assert set(seen) == {200}, seen
    assert seen[200] > least


def test_an_answer_in_full_flow_survives_the_death_of_every_policy_server(deployment: Deployment) -> None:
    key = deployment.add_key()
    servers = [deployment.start(0), deployment.start(1)]

    async def run() -> None:
        async with Front(deployment) as front:
            client = front.client()
            flowing = asyncio.create_task(client.send("POST", CHAT, key.text, BODY[:-1] + b',"stream":true}'))
            await asyncio.sleep(0.7)
            for server in servers:
                await asyncio.to_thread(server.kill)
            reply = await flowing
            assert reply.status == 200
            assert reply.body.count(b"data: ") == front.engine.pieces, "cut off in the middle"
            refused = await front.client().send("POST", CHAT, key.text, BODY)
            assert refused.status == 503
            error = json.loads(refused.body)["error"]
            assert (error["code"], error["hop"]) == ("policy_unavailable", "policy")
            client.close()

    asyncio.run(run())


def test_an_idle_connection_to_policy_lives_through_the_pings_of_envoy(deployment: Deployment) -> None:
    key = deployment.add_key()
    deployment.start(0)
    deployment.start(1)

    async def run() -> None:
        async with Front(deployment) as front:
            client = front.client()
            for _ in range(8):
                assert (await client.send("POST", CHAT, key.text, BODY)).status == 200
            stats = "/stats?filter=^cluster.policy.(upstream_cx_total|upstream_cx_destroy|http2.keepalive_timeout)"
            before = await front.admin(stats)
            await asyncio.sleep(4)
            for _ in range(8):
                assert (await client.send("GET", "/v1/models", key.text)).status == 200
            assert (await front.admin(stats)).split("\r\n\r\n")[1] == before.split("\r\n\r\n")[1]
            client.close()

    asyncio.run(run())


@pytest.mark.parametrize(("body", "clients"), [(BODY, 16), (SHOT, 4)], ids=["small", "screens"])
def test_a_policy_server_that_hangs_costs_time_and_not_requests(
    deployment: Deployment, body: bytes, clients: int
) -> None:
    """Also where the machine stands still for two seconds: a busy one did for less, and 12 of 4,806 were refused."""
    key = deployment.add_key()
    servers = [deployment.start(0), deployment.start(1)]

    async def run() -> tuple[Counter[int], float]:
        async with Front(deployment) as front:
            stop, seen, worst_s = asyncio.Event(), Counter[int](), [0.0]
            asked = [load(front.client(), key.text, stop, seen, worst_s, body) for _ in range(clients)]
            tasks = [asyncio.create_task(one) for one in asked]
            await asyncio.sleep(1)
            servers[0].process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.2)
            front.send_envoy(signal.SIGSTOP)
            await asyncio.sleep(STALL_S)
            front.send_envoy(signal.SIGCONT)
            await asyncio.sleep(4)
            servers[0].process.send_signal(signal.SIGCONT)
            await asyncio.sleep(1)
            stop.set()
            await asyncio.gather(*tasks)
            return seen, worst_s[0]

    seen, worst_s = asyncio.run(run())
    assert set(seen) == {200}, seen
    assert worst_s < 4 + STALL_S, "noticed by a PING, as soon as on a machine that does not stand still"
