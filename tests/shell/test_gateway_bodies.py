"""Bodies on their way through the real Envoy: slow, cut off, in pieces, announced, too large; and what policy adds."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Awaitable, Callable

import pytest

from gonogo.gateway.policy.body import MAX_BODY_BYTES
from gonogo.gateway.policy.question import HEAD, WHOLE
from tests.shell.edge_parts import KEY, Answer, Edge, Policy
from tests.shell.gateway_parts import read_body

CHAT = "/v1/chat/completions"
HOST = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n"
AUTHORIZED = f"{HOST}authorization: Bearer {KEY}\r\n"


def at_the_edge(tmp_path: Path, story: Callable[[Edge], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Edge(tmp_path) as edge:
            await story(edge)

    asyncio.run(run())


async def dial(edge: Edge) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", edge.port, ssl=edge.trust)


async def answer_of(reader: asyncio.StreamReader) -> Answer:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    first, *lines = head.decode().strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(first.split(" ")[1]), headers, await read_body(reader, head) if lines else b"")


async def settled(asked: dict[str, int]) -> None:
    """Wait until policy was asked so often, and see that it stays so."""
    ends = asyncio.get_running_loop().time() + 10
    while dict(Policy.asked) != asked and asyncio.get_running_loop().time() < ends:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert dict(Policy.asked) == asked


def test_a_small_body_costs_one_question_and_a_large_one_two(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        assert (await edge.ask("POST", CHAT, KEY, b"x" * 9_999)).status == 200
        assert dict(Policy.asked) == {WHOLE: 1}
        answer = await edge.ask("POST", CHAT, KEY, b"x" * 10_000)
        seen = json.loads(answer.body)
        assert (seen["bytes"], seen["headers"]["content-length"]) == (10_000, "10000")
        assert dict(Policy.asked) == {WHOLE: 2, HEAD: 1}
        assert (await edge.ask("POST", CHAT, None, b"x" * 10_000)).status == 401
        assert (await edge.ask("POST", CHAT, None, b"x" * 10)).status == 401
        assert dict(Policy.asked) == {WHOLE: 3, HEAD: 2}

    at_the_edge(tmp_path, story)


def test_who_may_not_is_refused_before_the_body_is_sent_however_it_is_announced(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        for announced in ("content-length: 20000", "transfer-encoding: chunked"):
            reader, writer = await dial(edge)
            writer.write(f"{HOST}{announced}\r\n\r\n".encode())
            assert (await answer_of(reader)).status == 401
            writer.close()
        assert dict(Policy.asked) == {HEAD: 2}

    at_the_edge(tmp_path, story)


def test_a_slow_client_costs_policy_nothing_but_a_look_at_its_headers(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        slow = [await dial(edge) for _ in range(40)]
        for _, writer in slow:
            writer.write(f"{AUTHORIZED}content-length: 200000\r\n\r\n".encode() + b"x" * 100_000)
        await settled({HEAD: 40})
        assert (await edge.ask("POST", CHAT, KEY, b"{}")).status == 200, "the others are served meanwhile"
        for reader, writer in slow:
            writer.write(b"x" * 100_000)
            answer = await answer_of(reader)
            assert json.loads(answer.body)["bytes"] == 200_000
            writer.close()
        assert Policy.asked[WHOLE] == 41

    at_the_edge(tmp_path, story)


def test_a_client_that_goes_away_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        clients = [await dial(edge) for _ in range(20)]
        for _, writer in clients:
            writer.write(f"{AUTHORIZED}content-length: 200000\r\n\r\n".encode() + b"x" * 100_000)
        await settled({HEAD: 20})
        for _, writer in clients:
            writer.transport.abort()
        ends = asyncio.get_running_loop().time() + 10
        while "downstream_rq_active: 0" not in await edge.admin("/stats?filter=http.gateway.downstream_rq_active"):
            assert asyncio.get_running_loop().time() < ends
            await asyncio.sleep(0.05)
        assert dict(Policy.asked) == {HEAD: 20}
        assert (await edge.ask("POST", CHAT, KEY, b"{}")).status == 200

    at_the_edge(tmp_path, story)


def test_a_body_in_pieces_arrives_whole_and_is_refused_where_it_grows_too_large(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        reader, writer = await dial(edge)
        writer.write(f"{AUTHORIZED}transfer-encoding: chunked\r\n\r\n".encode())
        for _ in range(50):
            writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert json.loads((await answer_of(reader)).body)["bytes"] == 50_000
        writer.close()

        reader, writer = await dial(edge)
        writer.write(f"{AUTHORIZED}transfer-encoding: chunked\r\n\r\n".encode())
        piece = b"100000\r\n" + b"x" * 1_048_576 + b"\r\n"
        sending = asyncio.create_task(send_for_ever(writer, piece, MAX_BODY_BYTES // 1_048_576 + 4))
        answer = await answer_of(reader)
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        writer.close()
        await asyncio.gather(sending, return_exceptions=True)

    at_the_edge(tmp_path, story)


async def send_for_ever(writer: asyncio.StreamWriter, piece: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(piece)
        await writer.drain()


def test_a_client_that_waits_to_be_told_to_go_on_is_told(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        reader, writer = await dial(edge)
        writer.write(f"{AUTHORIZED}content-length: 20000\r\nexpect: 100-continue\r\n\r\n".encode())
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 100 ")
        writer.write(b"x" * 20_000)
        assert json.loads((await answer_of(reader)).body)["bytes"] == 20_000
        writer.close()

    at_the_edge(tmp_path, story)


def test_a_body_with_trailers_passes_over_http_2(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        trust = ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.crt"))
        trust.set_alpn_protocols(["h2"])
        for trailers in (False, True):
            assert await h2_post(edge.port, trust, b"x" * 16_000, trailers=trailers)
        assert dict(Policy.asked) == {HEAD: 2, WHOLE: 2}

    at_the_edge(tmp_path, story)


async def h2_post(port: int, trust: ssl.SSLContext, body: bytes, *, trailers: bool) -> bool:
    """By hand: one POST without a content-length; is the first header of the answer `:status: 200`?"""

    def literal(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    def frame(kind: int, flags: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + b"\x00\x00\x00\x01" + payload

    fields = b"\x83\x87" + literal(b":path", CHAT.encode()) + literal(b":authority", b"localhost")
    fields += literal(b"authorization", f"Bearer {KEY}".encode())
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    writer.write(frame(1, 4, fields) + frame(0, 0 if trailers else 1, body))
    if trailers:
        writer.write(frame(1, 5, literal(b"x-checksum", b"1")))
    while True:
        header = await asyncio.wait_for(reader.readexactly(9), 10)
        payload = await reader.readexactly(int.from_bytes(header[:3], "big"))
        if header[3] == 1:
            writer.close()
            return payload.lstrip(b"\x20\x3f\xe1\x1f").startswith(b"\x88") or b"\x88" in payload[:4]


def test_a_refusal_says_which_field_it_is_about(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        answer = await edge.ask("POST", f"{CHAT}?refuse=400&param=messages[0].content", None, b"{}")
        assert (answer.status, answer.error["param"]) == (400, "messages[0].content")
        assert (await edge.ask("POST", f"{CHAT}?refuse=400", None, b"{}")).error["param"] is None

    at_the_edge(tmp_path, story)


def test_what_policy_wants_a_client_told_stands_beside_the_engines_answer_and_only_that(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        answer = await edge.ask("POST", f"{CHAT}?left=7", KEY, b"{}")
        assert answer.headers["x-ratelimit-remaining-requests"] == "7"
        assert "x-ratelimit-limit-tokens" not in answer.headers, "an engine's own word"
        assert "x-ratelimit-remaining-requests" not in (await edge.ask("POST", CHAT, KEY, b"{}")).headers

    at_the_edge(tmp_path, story)


@pytest.mark.parametrize("served", [1, 0])
def test_a_policy_server_that_is_away_costs_no_large_request(tmp_path: Path, served: int) -> None:
    async def story(edge: Edge) -> None:
        await edge.policies[0].stop(0)
        if not served:
            await edge.policies[1].stop(0)
        answers = [await edge.ask("POST", CHAT, KEY, b"x" * 1_300_000) for _ in range(6)]
        assert [answer.status for answer in answers] == [200 if served else 503] * 6
        if not served:
            assert {(answer.error["code"], answer.error["hop"]) for answer in answers} == {
                ("policy_unavailable", "policy")
            }

    at_the_edge(tmp_path, story)
