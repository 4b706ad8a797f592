"""The relay and engines that break in every way there is, without Envoy: what a client reads, what is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from gonogo.engines.llamacpp_stream import LlamaCppTranscript
from gonogo.gateway.relay import silence, takeover, watch
from gonogo.gateway.relay.machine import Machine
from gonogo.gateway.relay.relayed import Relay
from gonogo.gateway.relay.replicas import Replicas
from gonogo.gateway.relay.server import Limits, Server
from gonogo.gateway.relay.upstream import Inner
from gonogo.gateway.relay.watch import Watch
from tests.core.paper_engines import END, PaperModel
from tests.shell.in_loop import in_loop
from tests.shell.scripted_inner import ScriptedInner

TEXT = "ab. stop\nab"
SCRIPT = (*(100 + ord(letter) for letter in TEXT), END)
CHAT = "/v1/chat/completions"
HEADERS = {"x-gonogo-revision": "svc/1", "x-gonogo-engine": "llama.cpp", "x-request-id": "id-1", "x-gonogo-key-id": "k"}


@dataclass
class Bench:
    """A relay in front of a scripted inner listener."""

    inner: ScriptedInner
    server: Server
    session: aiohttp.ClientSession
    records: list[dict[str, Any]]

    async def ask(self, headers: dict[str, str] | None = None, **more: Any) -> Reply:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, **more}
        async with self.session.post(
            f"http://relay{CHAT}", json=body, headers={**HEADERS, **(headers or {})}
        ) as answer:
            return Reply(answer.status, dict(answer.headers), await answer.read())


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = [line for line in self.body.decode().split("\n\n") if line]
        assert lines[-1] == "data: [DONE]", lines[-1]
        assert lines.count("data: [DONE]") == 1
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    @property
    def text(self) -> str:
        return "".join(one["delta"].get("content") or "" for event in self.events for one in event.get("choices", ()))

    @property
    def error(self) -> dict[str, Any]:
        (found,) = [event["error"] for event in self.events if "error" in event]
        return found


@contextlib.asynccontextmanager
async def bench(
    root: Path,
    *script: str,
    limits: Limits | None = None,
    continuations: int = 3,
    troubles: int = 0,
    seen: Replicas | None = None,
) -> AsyncIterator[Bench]:
    records: list[dict[str, Any]] = []
    told: list[str] = []
    async with (
        ScriptedInner(root / "inner.sock", PaperModel(SCRIPT), script) as scripted,
        Inner(str(root / "inner.sock")) as inner,
        seen or Replicas(None) as replicas,
    ):
        looking = Watch(replicas, Machine(lambda: 1.0))
        relay = Relay(inner=inner, watch=looking, continuations=continuations)
        server = Server(relay, limits=limits or Limits(), write=lambda one: records.append(dict(one)), tell=told.append)
        runner = web.AppRunner(server.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(root / "relay.sock")).start()
        task = asyncio.create_task(looking.run())
        connector = aiohttp.UnixConnector(path=str(root / "relay.sock"))
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
            yield Bench(scripted, server, session, records)
        task.cancel()
        await runner.cleanup()
    assert len(told) == troubles


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of a second of silence is death, and half a second the patience with no replica at all."""
    monkeypatch.setattr(silence, "HEALTHY_S", 0.3)
    monkeypatch.setattr(watch, "LOOK_AFTER_S", 0.2)
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(takeover, "WITHIN_S", 0.5)


WAYS = ("die", "eof", "garbage", "half", "error", "failure", "hang")
LAST = len(SCRIPT)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("after", [1, 2, 5, LAST])
@in_loop
async def test_however_and_wherever_a_replica_breaks_the_client_reads_one_whole_answer(
    tmp_path: Path, way: str, after: int
) -> None:
    async with bench(tmp_path, f"{way} after {after}", "fine") as one:
        reply = await one.ask(stream_options={"include_usage": True})
    assert reply.status == 200 and reply.text == TEXT
    assert len({event["id"] for event in reply.events}) == 1
    usages = [event["usage"] for event in reply.events if event.get("usage")]
    assert [(use["prompt_tokens"], use["completion_tokens"]) for use in usages] == [(3, len(SCRIPT))]
    (record,) = one.records
    ends = {"error": "error", "failure": "error", "garbage": "garbage", "hang": "hung"}
    assert [attempt["end"] for attempt in record["attempts"]] == [ends.get(way, "died"), "done"]
    assert record["continued"] == 1 and record["status"] == "done"
    assert sum(attempt["tokens"] for attempt in record["attempts"]) == len(SCRIPT) == record["completion_tokens"]
    if after > 1:
        given = one.inner.requests[1][1]["prompt"]
        assert given == [7, 8, 9, *SCRIPT[: after - 1]], "the prompt's ids, and exactly those that were given"


@in_loop
async def test_two_deaths_in_one_answer_are_survived_too(tmp_path: Path) -> None:
    async with bench(tmp_path, "die after 3", "die after 4", "die after 0", "fine") as one:
        reply = await one.ask()
    assert reply.text == TEXT
    assert [attempt["tokens"] for attempt in one.records[0]["attempts"]] == [2, 4, 0, LAST - 6]
    assert one.inner.requests[2][1]["prompt"] == [7, 8, 9, *SCRIPT[:6]]


@in_loop
async def test_more_deaths_than_a_request_may_have_end_it_with_one_error_event(tmp_path: Path) -> None:
    async with bench(tmp_path, *["die after 3"] * 4, "fine", continuations=2) as one:
        reply = await one.ask()
    assert reply.status == 200
    assert (reply.error["code"], reply.error["hop"], reply.error["request_id"]) == ("replica_lost", "engine", "id-1")
    assert TEXT.startswith(reply.text) and reply.text
    assert one.records[0]["reason"] == "budget" and one.records[0]["continued"] == 2
    assert one.records[0]["status"] == "lost"


@in_loop
async def test_with_no_replica_left_the_answer_ends_with_one_error_event(tmp_path: Path) -> None:
    async with bench(tmp_path, "die after 4") as one:
        reply = await one.ask()
    assert reply.text == TEXT[:3]
    assert "no other replica took over" in reply.error["message"]
    assert one.records[0]["reason"] == "no_replica"


@pytest.mark.parametrize(
    "more", [{"tools": [{"type": "function"}]}, {"n": 2}, {"response_format": {"type": "json_object"}}]
)
@in_loop
async def test_what_is_not_continued_ends_with_one_error_event_and_never_silently(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    async with bench(tmp_path, "die after 4", "fine") as one:
        reply = await one.ask(**more)
    assert reply.text == TEXT[:3]
    assert reply.error["code"] == "replica_lost"
    assert len(one.inner.requests) == 1


@in_loop
async def test_policys_no_is_a_no(tmp_path: Path) -> None:
    async with bench(tmp_path, "die after 4", "fine") as one:
        reply = await one.ask({"x-gonogo-continue": "no"})
    assert reply.error["code"] == "replica_lost" and one.records[0]["reason"] == "policy"


@pytest.mark.parametrize("engine", ["external", "sglang", ""])
@in_loop
async def test_an_engine_that_is_not_known_exactly_is_passed_on_byte_by_byte_and_not_continued(
    tmp_path: Path, engine: str
) -> None:
    async with bench(tmp_path, "fine", "die after 4", "fine") as one:
        whole = await one.ask({"x-gonogo-engine": engine})
        broken = await one.ask({"x-gonogo-engine": engine})
    assert whole.text == TEXT and b'": ' in whole.body, "as the engine wrote it, with its spaces"
    assert one.inner.requests[0][1] == {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    assert broken.error["code"] == "replica_lost"


@in_loop
async def test_before_anything_was_said_even_what_is_not_continued_begins_again(tmp_path: Path) -> None:
    async with bench(tmp_path, "die after 1", "fine") as one:
        reply = await one.ask({"x-gonogo-continue": "no"})
    assert reply.text == TEXT
    assert [event for event in reply.events if event["choices"][0]["delta"].get("role")] == reply.events[:1]


@pytest.mark.parametrize("status", [400, 404, 429, 500])
@in_loop
async def test_an_engines_error_before_the_stream_passes_as_it_is(tmp_path: Path, status: int) -> None:
    """The gateway's own filters word it (`replies`)."""
    async with bench(tmp_path, f"status {status}") as one:
        reply = await one.ask()
    assert (reply.status, reply.body) == (status, b'{"error":"an engine\'s own words"}')
    assert one.records[0]["http_status"] == status and one.records[0]["status"] == "refused"


@in_loop
async def test_no_replica_at_all_is_envoys_answer(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        reply = await one.ask()
    assert reply.status == 503 and json.loads(reply.body)["error"]["code"] == "no_healthy_replica"
    assert reply.headers["x-gonogo-wrapped"] == "1", "so that the gateway does not word it again"
    assert reply.headers["Retry-After"] == "1"


@in_loop
async def test_an_answer_lost_before_its_first_byte_is_an_error_with_a_status(tmp_path: Path) -> None:
    async with bench(tmp_path, "die after 0", continuations=3) as one:
        reply = await one.ask()
    assert reply.status == 503 and json.loads(reply.body)["error"]["code"] == "replica_lost"
    assert reply.headers["Retry-After"] == "1"


@in_loop
async def test_a_client_that_goes_away_ends_the_request_at_the_engine_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path, "hang after 3") as one:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(one.ask(), 0.15)
        await until(lambda: one.inner.running == 0 and bool(one.records))
        assert one.server.streams == 0
    assert one.records[0]["status"] == "cancelled"


@in_loop
async def test_a_client_that_goes_away_during_a_continuation_leaves_nothing_running(tmp_path: Path) -> None:
    async with bench(tmp_path, "die after 3", "hang after 2") as one:
        task = asyncio.create_task(one.ask())
        await until(lambda: len(one.inner.requests) == 2 and one.inner.running == 1)
        task.cancel()
        await until(lambda: one.inner.running == 0 and bool(one.records))
    assert [attempt["end"] for attempt in one.records[0]["attempts"]] == ["died", "cancelled"]


@in_loop
async def test_too_many_streams_are_refused_and_not_queued(tmp_path: Path) -> None:
    async with bench(tmp_path, "hang after 3", limits=Limits(streams=1)) as one:
        first = asyncio.create_task(one.ask())
        await until(lambda: one.server.streams == 1)
        reply = await one.ask()
        assert reply.status == 503 and json.loads(reply.body)["error"]["code"] == "overloaded"
        first.cancel()


@in_loop
async def test_what_is_no_stream_is_refused_by_name(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        assert json.loads((await one.ask(stream=False)).body)["error"]["code"] == "not_a_stream"
        async with one.session.post("http://relay/v1/models", data=b"{}") as answer:
            assert answer.status == 404
        async with one.session.get("http://relay/healthz") as answer:
            assert answer.status == 200


@in_loop
async def test_a_slow_client_holds_the_engine_back_and_not_the_relays_memory(tmp_path: Path) -> None:
    """The engine could write 64 MB at once; what is under way stays below a few buffers."""
    written = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        piece = f'data: {{"choices":[{{"index":0,"delta":{{"content":"{"x" * 60_000}"}}}}]}}\n\n'.encode()
        for _ in range(1000):
            await answer.write(piece)
            written += len(piece)
        return answer

    async with bench(tmp_path, "fine") as one:
        one.inner.instead = flood
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "relay.sock"))
        body = json.dumps({"messages": [], "stream": True}).encode()
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await reader.read(100)
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.2)
        assert 0 < written < 8 * 1024 * 1024
        writer.close()
        await until(lambda: bool(one.records))


@in_loop
async def test_the_model_is_called_as_its_servers_call_it(tmp_path: Path) -> None:
    async with bench(tmp_path, "fine") as one:
        reply = await one.ask(
            {
                "x-gonogo-engine": "external",
                "x-gonogo-served-as": '"Org\\u006d \\"7B\\""',
                "x-gonogo-model-span": "1-2",
            },
            model="svc",
        )
    assert reply.text == TEXT
    assert one.inner.requests[0][1]["model"] == 'Orgm "7B"'
    assert not {"x-gonogo-served-as", "x-gonogo-model-span"} & {name.lower() for name in one.inner.headers[0]}, (
        "the place is of the body that policy saw"
    )


@in_loop
async def test_the_picked_endpoint_is_asked_first_and_not_again(tmp_path: Path) -> None:
    async with bench(tmp_path, "die after 3", "fine") as one:
        await one.ask({"x-gateway-destination-endpoint": "127.0.0.1:1"})
    picks = [headers.get("x-gateway-destination-endpoint") for headers in one.inner.headers]
    assert picks == ["127.0.0.1:1", None]
    assert {headers["x-request-id"] for headers in one.inner.headers} == {"id-1"}
    assert {headers["x-gonogo-revision"] for headers in one.inner.headers} == {"svc/1"}


@in_loop
async def test_an_error_of_the_relays_own_is_told_to_the_client_and_without_what_was_said_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaCppTranscript, "_add", lambda *_: {}["none"])
    async with bench(tmp_path, "fine", troubles=1) as one:
        reply = await one.ask()
    assert reply.status == 500 and json.loads(reply.body)["error"]["code"] == "relay_error"
    assert one.records[0]["status"] == "refused" and one.records[0]["reason"] == "relay_error"


@in_loop
async def test_a_relay_that_is_told_to_end_lets_streams_come_to_their_end_and_ends_the_rest_cleanly(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, "hang after 3") as one:
        task = asyncio.create_task(one.ask())
        await until(lambda: one.inner.running == 1)
        await asyncio.sleep(0.1)
        await one.server.drain(0.1)
        reply = await task
    assert reply.text == TEXT[:2] and reply.error["code"] == "gateway_restarted"


@in_loop
async def test_nothing_that_was_said_is_recorded(tmp_path: Path) -> None:
    async with bench(tmp_path, "die after 6", "fine") as one:
        await one.ask(messages=[{"role": "user", "content": "hi"}])
    text = json.dumps(one.records)
    assert "stop" not in text and "hi" not in json.dumps([one.records[0]["attempts"]])


async def until(question: Any) -> None:
    """Ask until it is so, for at most five seconds."""
    for _ in range(500):
        if question():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within five seconds")
