"""The queue behind the real Envoy and the real policy servers: who is let in, what large uploads cost, errors."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any, Awaitable, Callable

import httpx

from tests.shell.gateway_parts import Front
from tests.shell.tasks_parts import QueueParts, chat, jsonl, line

UPLOAD_MIB = 192


Story = Callable[[QueueParts, Front, httpx.AsyncClient], Awaitable[None]]


def behind_envoy(root: Path, story: Story) -> None:
    """The part `tasks`, two policy servers and Envoy, and a client with a key."""

    async def told(parts: QueueParts) -> None:
        async with Front(parts.deployment) as front:
            trust = ssl.create_default_context(cafile=front.ca_file)
            key = {"authorization": f"Bearer {parts.key.text}"}
            base = f"https://127.0.0.1:{front.port}"
            async with httpx.AsyncClient(
                base_url=base, verify=trust, headers=key, timeout=120.0, trust_env=False
            ) as client:
                await story(parts, front, client)

    with QueueParts(root / "state", gateway=False) as parts:
        for index in (0, 1):
            parts.deployment.start(index)
        try:
            asyncio.run(told(parts))
        finally:
            for server in parts.deployment.servers:
                server.process.kill()
                server.process.wait(10)


def test_only_who_has_a_key_gets_to_the_queue_and_nobody_can_say_to_be_another(tmp_path: Path) -> None:
    async def story(parts: QueueParts, front: Front, client: httpx.AsyncClient) -> None:
        parts.start("tasks")
        other = {"authorization": f"Bearer {parts.deployment.add_key().text}"}
        models_only = {"authorization": f"Bearer {parts.deployment.add_key(scopes=('models',)).text}"}
        while (await client.get("/v1/models", headers=models_only)).status_code == 401:
            await asyncio.sleep(0.05)  # policy looks for new keys ten times a second
        made = await client.post("/v1/tasks", json={"body": chat("hello")}, headers={"x-gonogo-key-id": "another"})
        assert made.status_code == 202, made.text
        mine = (await client.get("/v1/tasks")).json()["data"]
        assert [one["id"] for one in mine] == [made.json()["id"]]
        assert (await client.get("/v1/tasks", headers=other)).json()["data"] == []
        seen = {
            "no key": (await client.get("/v1/tasks", headers={"authorization": ""}), 401, "missing_api_key"),
            "scope": (await client.get("/v1/tasks", headers=models_only), 403, "insufficient_scope"),
            "missing": (await client.get("/v1/tasks/none"), 404, "not_found"),
            "wrong": (await client.post("/v1/tasks", json={"body": 7}), 400, "invalid_body"),
            "path": (await client.get("/v1/tasksandmore"), 404, "unknown_path"),
            "method": (await client.put("/v1/batches"), 405, "method_not_allowed"),
        }
        for name, (reply, status, code) in seen.items():
            assert reply.status_code == status, (name, reply.text)
            error = reply.json()["error"]
            assert error["code"] == code and error["request_id"] == reply.headers["x-request-id"], (name, error)
            assert not [header for header in reply.headers if header.startswith("x-gonogo")]
        assert front.engine.requests == 0
        parts.deployment.revoke(parts.key)
        for _ in range(100):
            gone = await client.get("/v1/tasks")
            if gone.status_code == 401:
                break
            await asyncio.sleep(0.05)
        assert gone.json()["error"]["code"] == "revoked_api_key"

    behind_envoy(tmp_path, story)


def test_while_the_part_is_away_the_gateway_says_that_it_is_the_queue(tmp_path: Path) -> None:
    async def story(parts: QueueParts, front: Front, client: httpx.AsyncClient) -> None:
        reply = await client.get("/v1/tasks")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "queue_unavailable")
        assert reply.headers["retry-after"] == "1"
        parts.start("tasks")
        assert (await client.get("/v1/tasks")).status_code == 200

    behind_envoy(tmp_path, story)


def test_a_large_upload_is_streamed_to_the_disk_in_little_memory(tmp_path: Path) -> None:
    async def story(parts: QueueParts, front: Front, client: httpx.AsyncClient) -> None:
        parts.start("tasks")
        text = jsonl(*(line(f"r-{n}", "x" * 4000) for n in range(256)))
        times = UPLOAD_MIB * 2**20 // len(text)
        content = form(text, times)
        before = peak_bytes(parts.processes["tasks"].pid)
        headers = {"content-type": "multipart/form-data; boundary=b"}
        made = await client.post("/v1/files", content=content, headers=headers)
        assert made.status_code == 200, made.text
        assert made.json()["bytes"] == len(text) * times
        grown = peak_bytes(parts.processes["tasks"].pid) - before
        assert grown < 48 * 2**20, f"{grown / 2**20:.0f} MiB for {UPLOAD_MIB} MiB"
        seen = 0
        async with client.stream("GET", f"/v1/files/{made.json()['id']}/content") as answer:
            async for piece in answer.aiter_bytes():
                seen += len(piece)
        assert seen == len(text) * times
        assert peak_bytes(parts.processes["tasks"].pid) - before < 64 * 2**20

    behind_envoy(tmp_path, story)


def form(text: bytes, times: int) -> Any:
    """A multipart upload that is made while it is sent."""

    async def pieces() -> Any:
        yield b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="f.jsonl"\r\n\r\n'
        for _ in range(times):
            yield text
        yield b"\r\n--b--\r\n"

    return pieces()


def peak_bytes(pid: int) -> int:
    """The most memory that the process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    (peak,) = (one.split()[1] for one in status.splitlines() if one.startswith("VmHWM"))
    return int(peak) * 1024


def test_workers_ask_through_the_gateway_on_behalf_of_the_owner(tmp_path: Path) -> None:
    async def story(parts: QueueParts, front: Front, client: httpx.AsyncClient) -> None:
        parts.start("valkey", "tasks", "worker")
        made = await client.post("/v1/tasks", json={"body": chat("hello", model="svc")})
        task = (await client.get(f"/v1/tasks/{made.json()['id']}", params={"wait": 30})).json()
        assert (task["state"], task["result"]["body"]) == ("done", {"ok": True}), (task, parts.log("worker")[-2000:])
        lines = (json.loads(one) for one in front.access_log.read_text().splitlines())
        asked = [one for one in lines if one["path"] == "/v1/chat/completions"]
        assert {one["key_id"] for one in asked if one["status"] == 200} == {parts.key.key_id}
        for head in front.engine.seen_headers:
            assert b"authorization" not in head.lower() and b"gng_" not in head
        wrong = await client.post("/v1/tasks", json={"body": chat("hello", model="other")})
        task = (await client.get(f"/v1/tasks/{wrong.json()['id']}", params={"wait": 30})).json()
        assert (task["state"], task["error"]["code"]) == ("failed", "model_not_found")
        assert task["result"]["body"]["error"]["code"] == "model_not_found"

    behind_envoy(tmp_path, story)
