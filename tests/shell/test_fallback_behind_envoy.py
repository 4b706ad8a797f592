"""A hosted API that answers while no replica is well: through the real Envoy and policy, with TLS."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator

import pytest

from gonogo.actions.model import FallbackPlan
from gonogo.gateway.translate import GatewayInput, translate
from gonogo.spec import Spec
from gonogo.spec.fallback import Fallback, api_of
from tests.shell.gateway_parts import Front, Reply
from tests.shell.outside_engine import OutsideEngine
from tests.shell.policy_parts import CONTEXT, Deployment
from tests.shell.test_external_behind_envoy import certificate
from tests.shell.valkey_parts import Valkey

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
BASE, MODEL, API_KEY = "/api/paas/v4", "glm-4.5v", "hosted-key-51ab"
REVISION = "svc/2"
PARAMETERS = ("model", "messages", "max_tokens", "temperature", "stream")


class Hosted:
    """The hosted API: what it was asked, and what says how to reach it."""

    def __init__(self, root: Path) -> None:
        self.ca, crt, key = certificate(root, "hosted", "localhost")
        self.key_file, self._record = root / "api-key", root / "asked.jsonl"
        self.key_file.write_text(API_KEY + "\n")
        self.key_file.chmod(0o600)
        words = ("--certificate", crt, "--key", key, "--base", BASE, "--wants-key", API_KEY)
        self.engine = OutsideEngine(MODEL, *words, "--record", str(self._record))
        self.authority = f"localhost:{self.engine.port}"
        self.url = f"https://{self.authority}{BASE}"

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._record.read_text().splitlines()] if self._record.exists() else []

    def stamp(self) -> str:
        return str(os.stat(self.key_file).st_mtime_ns)


class House(Front):
    """A gateway whose only revision has the hosted API as fallback, if it `may`."""

    def __init__(self, deployment: Deployment, hosted: Hosted, own: OutsideEngine, *, may: bool = True) -> None:
        super().__init__(deployment, engine_port=own.port)
        self.hosted, self.own, self._may = hosted, own, may

    def _input(self) -> GatewayInput:
        given = super()._input()
        plan = FallbackPlan(api=api_of(self.hosted.url), key_file=str(self.hosted.key_file), ca_file=self.hosted.ca)
        cluster = replace(given.clusters[0], name=REVISION, fallback=plan if self._may else None)
        keys = {str(self.hosted.key_file): self.hosted.stamp()}
        return replace(given, clusters=(cluster,), fallback_keys=keys)

    def snapshot_bytes(self) -> bytes:
        return translate(self._input()).to_bytes()

    async def ask(self, key: str, path: str = CHAT, **fields: Any) -> Reply:
        client = self.client()
        try:
            return await client.send("POST", path, key, body(**fields))
        finally:
            client.close()

    async def until(self, status: int, who: str, key: str) -> Reply:
        """Ask until this one answers so, several times in a row: each policy server looks for itself."""
        ends, in_a_row = time.monotonic() + 30, 0
        while True:
            reply = await self.ask(key)
            in_a_row = in_a_row + 1 if reply.status == status and who.encode() in reply.body else 0
            if in_a_row == 8:
                return reply
            assert time.monotonic() < ends, (reply, self.envoy_log.read_text()[-2000:])
            await asyncio.sleep(0.05)

    async def dead(self, key: str) -> Reply:
        """Kill the only replica; the first answers of the hosted API."""
        self.own.kill()
        return await self.until(200, f"port-{self.hosted.engine.port}", key)


def body(**fields: Any) -> bytes:
    asked = {"model": "svc", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, **fields}
    return json.dumps({name: value for name, value in asked.items() if value is not None}).encode()


def header(reply: Reply, name: str) -> str | None:
    lines = reply.head.decode().split("\r\n")[1:]
    return next((line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name}: ")), None)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment.make(tmp_path)
    with Valkey(run=tmp_path / "run"):
        yield made
        made.close()


def in_a_house(
    deployment: Deployment, story: Callable[[House, str], Awaitable[None]], *, may: bool = True, **changes: Any
) -> None:
    """Run the story; it gets a key for the service."""
    hosted = Hosted(deployment.root)
    fallback = Fallback(
        url=hosted.url, model=MODEL, key_file=str(hosted.key_file), ca_file=hosted.ca, parameters=PARAMETERS
    )
    spec = Spec(service="svc", model="m.gguf", expect=CONTEXT, fallback=fallback if may else None)
    with deployment.store.change(epoch=deployment.epoch, actor="control", principal="test") as change:
        change.set_serving("svc", change.add_revision(spec).number)
    key = deployment.add_key(**changes).text

    async def run() -> None:
        with OutsideEngine("svc") as own, hosted.engine:
            house = House(deployment, hosted, own, may=may)
            for index in (0, 1):
                deployment.start(index)
            async with house:
                await house.until(200, f"port-{own.port}", key)
                await story(house, key)

    asyncio.run(run())


def test_dead_replicas_make_the_hosted_api_answer_and_living_ones_take_over_again(deployment: Deployment) -> None:
    async def story(house: House, key: str) -> None:
        first = await house.ask(key)
        assert header(first, "x-gonogo-fallback") is None
        assert house.hosted.asked == [], "while a replica is well nothing leaves the house"
        away = await house.dead(key)
        assert header(away, "x-gonogo-fallback") == house.hosted.authority
        line = await logged(house, away)
        assert (line["replica"], line["revision"], line["completion_tokens"]) == (house.hosted.authority, REVISION, 3)
        (asked, *_) = house.hosted.asked
        assert asked["path"] == f"{BASE}/chat/completions"
        assert json.loads(asked["body"]) == {**json.loads(body()), "model": MODEL}
        assert asked["headers"]["authorization"] == f"Bearer {API_KEY}"
        assert set(asked["headers"]) == {"host", "content-length", "authorization", "user-agent", "x-request-id"}
        house.own.start()
        await house.until(200, f"port-{house.own.port}", key)
        before = len(house.hosted.asked)
        for _ in range(10):
            assert (await house.ask(key)).status == 200
        assert len(house.hosted.asked) == before

    in_a_house(deployment, story)


async def logged(house: House, reply: Reply) -> dict[str, Any]:
    """The access log's line of this request."""
    wanted, ends = header(reply, "x-request-id"), time.monotonic() + 30
    while True:
        text = house.access_log.read_text() if house.access_log.exists() else ""
        whole, _, _ = text.rpartition("\n")
        found = [line for line in map(json.loads, whole.splitlines()) if line["request_id"] == wanted]
        if found:
            return dict(found[0])
        assert time.monotonic() < ends, (reply.head, text[-3000:])
        await asyncio.sleep(0.05)


def test_what_the_list_does_not_name_is_never_sent_and_the_refusal_names_it(deployment: Deployment) -> None:
    async def story(house: House, key: str) -> None:
        await house.dead(key)
        before = len(house.hosted.asked)
        refused = await house.ask(key, seed=1, user="u")
        assert refused.status == 503
        error = json.loads(refused.body)["error"]
        assert (error["code"], error["param"], error["hop"]) == ("no_healthy_replica", "seed", "policy")
        assert "the field seed" in error["message"]
        queried = await house.ask(key, f"{CHAT}?api-version=2")
        assert (queried.status, json.loads(queried.body)["error"]["param"]) == (503, None)
        vectors = await house.ask(key, EMBEDDINGS, messages=None, max_tokens=None, input="x")
        assert (vectors.status, json.loads(vectors.body)["error"]["hop"]) == (503, "engine")
        assert len(house.hosted.asked) == before
        assert (await house.ask(key, temperature=0.5)).status == 200

    in_a_house(deployment, story)


def test_what_the_hosted_api_refuses_is_an_error_of_ours_and_its_words_go_nowhere(deployment: Deployment) -> None:
    async def story(house: House, key: str) -> None:
        await house.dead(key)
        wanted = {401: (502, "engine_key_refused"), 429: (429, "engine_overloaded"), 500: (500, "engine_error")}
        for said, (status, code) in wanted.items():
            reply = await house.ask(key, messages=[{"role": "user", "content": f"say {said}"}])
            error = json.loads(reply.body)["error"]
            assert (reply.status, error["code"], error["hop"]) == (status, code, "engine")
            assert b"words of the engine" not in reply.body
            assert header(reply, "x-gonogo-fallback") == house.hosted.authority

    in_a_house(deployment, story)


def test_a_new_key_in_the_file_is_used_from_the_next_look_at_it(deployment: Deployment) -> None:
    async def story(house: House, key: str) -> None:
        await house.dead(key)
        house.hosted.key_file.write_text("another-key")
        house.publish()
        reply = await house.until(502, "engine_key_refused", key)
        assert b"another-key" not in reply.body
        assert house.hosted.asked[-1]["headers"]["authorization"] == "Bearer another-key"
        house.hosted.key_file.write_text(API_KEY)
        house.publish()
        await house.until(200, f"port-{house.hosted.engine.port}", key)

    in_a_house(deployment, story)


def test_the_text_of_the_key_is_in_no_file_but_its_own(deployment: Deployment) -> None:
    async def story(house: House, key: str) -> None:
        await house.dead(key)
        assert API_KEY not in await house.admin("/config_dump?include_eds")
        assert API_KEY.encode() not in house.snapshot_bytes(), "as control keeps it on the disk"

    in_a_house(deployment, story)
    root = deployment.root
    known = {"api-key", "asked.jsonl"}  # what the API itself was told
    holding = {one.name for one in root.rglob("*") if one.is_file() and API_KEY.encode() in one.read_bytes()}
    assert holding == known


def test_without_a_word_of_it_in_the_spec_nothing_leaves_the_house(deployment: Deployment) -> None:
    async def story(house: House, key: str) -> None:
        house.own.kill()
        reply = await house.until(503, "no_healthy_replica", key)
        assert header(reply, "x-gonogo-fallback") is None
        for _ in range(5):
            assert (await house.ask(key)).status == 503
        assert house.hosted.asked == []

    in_a_house(deployment, story, may=False)


def test_a_probe_is_answered_by_its_own_revision_or_not_at_all(deployment: Deployment) -> None:
    probe = deployment.add_key(revision=2, expires_at=time.time() + 600).text

    async def story(house: House, key: str) -> None:
        await house.dead(key)
        before = len(house.hosted.asked)
        assert (await house.ask(probe)).status == 503
        assert len(house.hosted.asked) == before

    in_a_house(deployment, story)


def test_a_stream_comes_from_the_hosted_api_to_its_end(deployment: Deployment) -> None:
    async def story(house: House, key: str) -> None:
        await house.dead(key)
        reply = await house.ask(key, stream=True)
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert header(reply, "x-gonogo-fallback") == house.hosted.authority
        assert json.loads(house.hosted.asked[-1]["body"])["model"] == MODEL

    in_a_house(deployment, story)
