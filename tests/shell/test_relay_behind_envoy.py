"""Real relays behind the real Envoy: how an answer ends when a relay is killed, and who can reach what."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.core.paper_engines import END, PaperModel
from tests.free_ports import free_port
from tests.shell.in_loop import in_loop
from tests.shell.relay_parts import RelayedFront
from tests.shell.scripted_inner import ScriptedInner

TEXT = "ab. stop\nab"
SCRIPT = (*(100 + ord(letter) for letter in TEXT), END)
CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'


async def ask(front: RelayedFront, session: aiohttp.ClientSession, **headers: str) -> tuple[int, dict[str, str], bytes]:
    asked = {**front.headers("llama.cpp"), **headers}
    async with session.post(front.url + CHAT, json=BODY, headers=asked) as answer:
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.read()


def events(body: bytes) -> list[dict[str, Any]]:
    lines = [line for line in body.decode().split("\n\n") if line]
    assert lines[-1] == "data: [DONE]" and lines.count("data: [DONE]") == 1
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@in_loop
async def test_a_relay_killed_in_the_middle_ends_the_answer_with_an_error_event(tmp_path: Path) -> None:
    port = free_port()
    async with (
        ScriptedInner(None, PaperModel(SCRIPT), ["hang after 4", "fine"], port) as engine,
        RelayedFront(tmp_path, {"svc/1": [port]}) as front,
        front.session() as session,
    ):
        task = asyncio.create_task(ask(front, session))
        await until(lambda: engine.running == 1)
        await asyncio.sleep(0.3)
        for process in front.processes:
            process.kill()
        status, headers, body = await task
        *given, last = events(body)
        assert status == 200 and [event["choices"][0]["delta"].get("content") for event in given] == [
            None,
            "a",
            "b",
            ".",
        ]
        assert (last["error"]["code"], last["error"]["hop"]) == ("relay_lost", "gateway")
        assert last["error"]["request_id"] == headers["x-request-id"]
        await until(lambda: engine.running == 0)
        front.processes.append(front.start_relay(0))
        await until_ready(front, session)


async def until_ready(front: RelayedFront, session: aiohttp.ClientSession) -> None:
    for _ in range(100):
        status, _, body = await ask(front, session)
        if status == 200:
            assert "".join(one["choices"][0]["delta"].get("content") or "" for one in events(body)) == TEXT
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the relay did not come back")


@in_loop
async def test_a_relay_killed_before_the_first_byte_is_not_noticed(tmp_path: Path) -> None:
    port = free_port()
    async with (
        ScriptedInner(None, PaperModel(SCRIPT), ["hang after 0", "fine"], port) as engine,
        RelayedFront(tmp_path, {"svc/1": [port]}) as front,
        front.session() as session,
    ):
        task = asyncio.create_task(ask(front, session))
        await until(lambda: engine.running == 1)
        busy = [line.split("::")[1] for line in (await front.admin("/clusters")).splitlines() if "rq_active::1" in line]
        index = next(int(name.removesuffix(".sock").rpartition("-")[2]) for name in busy if "relay-" in name)
        front.processes[index].kill()
        status, _, body = await task
        assert status == 200 and len(events(body)) == len(SCRIPT) + 1


async def ended_with(tmp_path: Path, *pieces: bytes, status: int = 200, kind: str = "text/event-stream") -> bytes:
    """What a client gets from a relay that writes these pieces, one at a time, and is gone then."""

    async def write(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await _reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /healthz"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        else:
            head = (
                f"HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\nconnection: close\r\nx-request-id: i\r\n\r\n".encode()
            )
            writer.write(head)
            for piece in pieces:
                await writer.drain()
                await asyncio.sleep(0.02)
                writer.write(piece)
        await writer.drain()
        writer.close()

    (tmp_path / "run").mkdir(mode=0o700)
    server = await asyncio.start_unix_server(write, str(tmp_path / "run" / "relay-0.sock"))
    port = free_port()
    async with ScriptedInner(None, PaperModel(SCRIPT), [], port):
        front = RelayedFront(tmp_path, {"svc/1": [port]}, relays=1)
        front.start_relay = lambda index: _Nothing()  # type: ignore[assignment, method-assign]
        async with front, front.session() as session:
            body = (await ask(front, session))[2]
    server.close()
    return body


class _Nothing:
    def kill(self) -> None: ...
    def wait(self, _: float) -> None: ...


@pytest.mark.parametrize(
    ("pieces", "given"),
    [
        ((EVENT, EVENT), EVENT * 2),
        ((EVENT + EVENT[:20],), EVENT),
        ((EVENT[:20], EVENT[20:-1], EVENT[-1:] + EVENT[:3]), EVENT),
        ((EVENT[:20],), b""),
        ((), b""),
    ],
    ids=["between events", "inside an event", "events in pieces", "inside the first event", "before the first event"],
)
@in_loop
async def test_only_whole_events_go_out_and_the_error_comes_behind_them(
    tmp_path: Path, pieces: tuple[bytes, ...], given: bytes
) -> None:
    body = await ended_with(tmp_path, *pieces)
    assert body.startswith(given)
    (error,) = events(body[len(given) :])
    assert error["error"]["code"] == "relay_lost"


@pytest.mark.parametrize(
    "pieces",
    [
        (EVENT, b"data: [DONE]\n\n"),
        (EVENT + b"data: [DONE]\n\n",),
        (EVENT + b"data: [DO", b"NE]\n\n"),
        (EVENT[:9], EVENT[9:] + b"data: [DONE]\n", b"\n"),
    ],
)
@in_loop
async def test_an_answer_that_is_whole_gets_nothing_added(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    assert await ended_with(tmp_path, *pieces) == EVENT + b"data: [DONE]\n\n"


@in_loop
async def test_an_answer_that_is_no_stream_is_left_alone(tmp_path: Path) -> None:
    assert await ended_with(tmp_path, b"{}", kind="application/json") == b"{}"


@in_loop
async def test_engines_paths_are_on_the_inner_socket_alone_and_that_is_the_users(tmp_path: Path) -> None:
    port = free_port()
    async with (
        ScriptedInner(None, PaperModel(SCRIPT), ["fine"], port) as engine,
        RelayedFront(tmp_path, {"svc/1": [port]}) as front,
        front.session() as session,
    ):
        for path in ("/tokenize", "/completion", "/apply-template", "/detokenize"):
            async with session.post(front.url + path, json={}, headers=front.headers("llama.cpp")) as answer:
                assert answer.status == 404
        inner = tmp_path / "run" / "inner.sock"
        assert stat.S_IMODE(os.stat(inner).st_mode) == 0o600
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(inner))) as inside:
            asked = {"x-gonogo-revision": "svc/1"}
            async with inside.get("http://x/tokenize", headers=asked) as answer:
                assert answer.status == 404, "only POST"
            async with inside.post("http://x/metrics", headers=asked) as answer:
                assert answer.status == 404
            async with inside.post(
                "http://x/tokenize", json={"content": "ab", "add_special": False}, headers=asked
            ) as one:
                assert (await one.json())["tokens"] and one.headers["x-gonogo-replica"] == "svc/1/0"
        status, headers, body = await ask(front, session, authorization="Bearer secret", cookie="a=b")
        assert status == 200 and len(events(body)) == len(SCRIPT) + 1
        assert not [name for name in headers if name.startswith("x-gonogo")]
        (seen,) = engine.headers
        assert not [name for name in seen if name.startswith(("x-gonogo", "authorization", "cookie", "x-gateway"))]
        assert seen["x-request-id"] == headers["x-request-id"]
        assert (await front.record_of(headers["x-request-id"]))["attempts"][0]["replica"] == "svc/1/0"


@in_loop
async def test_an_engines_own_error_is_worded_by_the_gateway_also_behind_a_relay(tmp_path: Path) -> None:
    port = free_port()
    async with (
        ScriptedInner(None, PaperModel(SCRIPT), ["status 400", "status 500"], port),
        RelayedFront(tmp_path, {"svc/1": [port]}) as front,
        front.session() as session,
    ):
        for wanted, code in ((400, "engine_refused"), (500, "engine_error")):
            status, _, body = await ask(front, session)
            assert status == wanted and json.loads(body)["error"]["code"] == code
            assert b"own words" not in body
        front.set_replicas({"svc/1": [free_port()]})
        for _ in range(50):
            status, headers, body = await ask(front, session)
            if json.loads(body)["error"]["code"] in ("no_healthy_replica", "replica_lost"):
                break
            await asyncio.sleep(0.1)
        assert status == 503 and headers["retry-after"] == "1"
        assert json.loads(body)["error"]["request_id"] == headers["x-request-id"]


@in_loop
async def test_with_no_relay_left_the_error_is_the_gateways_and_not_the_replicas(tmp_path: Path) -> None:
    """At once, while Envoy still takes the dead relays for well, and when it knows; and when one dies with the request.

    What is not streamed goes on, and streams do as soon as a relay is back.
    """
    port = free_port()
    async with (
        ScriptedInner(None, PaperModel(SCRIPT), ["hang after 0", *["fine"] * 9], port) as engine,
        RelayedFront(tmp_path, {"svc/1": [port]}) as front,
        front.session() as session,
    ):
        task = asyncio.create_task(ask(front, session))
        await until(lambda: engine.running == 1)
        for process in front.processes:
            process.kill()
            process.wait(10)
        answers = [await task, await ask(front, session)]
        while "relay::" in (seen := await front.admin("/clusters")) and seen.count("/failed_active_hc") < 2:
            await asyncio.sleep(0.05)
        answers.append(await ask(front, session))
        for status, headers, body in answers:
            error = json.loads(body)["error"]
            assert (status, error["code"], error["hop"]) == (503, "relay_unavailable", "gateway")
            assert headers["retry-after"] == "1" and error["request_id"] == headers["x-request-id"]
        unstreamed = front.headers("llama.cpp", relayed=False)
        async with session.post(front.url + CHAT, json=BODY, headers=unstreamed) as answer:
            assert answer.status == 200 and await answer.read()
        front.processes.append(front.start_relay(0))
        await until_ready(front, session)


async def until(question: Any) -> None:
    for _ in range(1000):
        if question():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within ten seconds")
