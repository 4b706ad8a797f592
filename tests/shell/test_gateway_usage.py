"""What the gateway's log tells of a request: tokens, revision, how it ended. Real Envoy, engines that are processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Awaitable, Callable

import pytest

from gonogo.facts.request_record import RequestRecord, parse_request
from gonogo.facts.usage import Outcome, outcome_of
from gonogo.gateway.access_log import LogTail
from tests.shell.edge_parts import KEY, Edge
from tests.shell.gateway_parts import Front
from tests.shell.policy_parts import Deployment

PATH = "/v1/chat/completions"


def around(root: Path, body: Callable[[Edge], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Edge(root) as edge:
            await body(edge)

    asyncio.run(run())


async def asked(edge: Edge, want: str, path: str = PATH) -> tuple[RequestRecord, bytes]:
    answer = await edge.ask("POST", path, x_want=want)
    line: dict[str, Any] = await edge.logged(answer.headers["x-request-id"])
    record = parse_request(json.dumps(line).encode())
    assert record is not None
    return record, answer.body


def test_the_tokens_of_answers_of_any_size_are_in_the_log_and_the_answer_is_untouched(tmp_path: Path) -> None:
    async def body(edge: Edge) -> None:
        for size in (1, 1000, 100_000, 1_000_000, 3_000_000):
            record, answer = await asked(edge, f"usage 5 7 {size}")
            assert (record.prompt_tokens, record.completion_tokens) == (5, 7)
            assert (record.revision, record.key_id, record.upstream) == ("svc/1", "kid-7", "svc/1")
            assert outcome_of(record, None) is Outcome.ANSWERED
            assert json.loads(answer)["choices"][0]["text"] == "x" * size

    around(tmp_path, body)


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ('{"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}', (3, 2, 1)),
        ('{"usage":null}', (None, None, None)),
        ('{"usage":{"prompt_tokens":"many","completion_tokens":-1}}', (None, None, None)),
        ("not json", (None, None, None)),
        ("[]", (None, None, None)),
        ('{"usage":{"prompt_tokens":3}', (None, None, None)),
    ],
)
def test_an_answer_that_says_nothing_of_its_tokens_passes_as_it_is(
    tmp_path: Path, content: str, tokens: tuple[int | None, ...]
) -> None:
    async def body(edge: Edge) -> None:
        record, answer = await asked(edge, f"body {content}")
        assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == tokens
        assert answer == content.encode()

    around(tmp_path, body)


def test_a_stream_passes_piece_by_piece_and_an_error_keeps_our_words(tmp_path: Path) -> None:
    async def body(edge: Edge) -> None:
        record, _ = await asked(edge, "stream")
        assert (record.streamed, record.completion_tokens) == (True, None)
        assert record.first_byte_ms is not None
        assert record.first_byte_ms < record.duration_ms / 2, "the first piece was not held back for the last"
        for want, outcome in (("500", Outcome.FAILED), ("400", Outcome.REFUSED), ("reset", Outcome.FAILED)):
            record, answer = await asked(edge, want)
            assert outcome_of(record, None) is outcome
            assert set(json.loads(answer)) == {"error"}
            assert record.prompt_tokens is None

    around(tmp_path, body)


def test_embeddings_are_not_read_for_their_usage(tmp_path: Path) -> None:
    async def body(edge: Edge) -> None:
        record, _ = await asked(edge, "usage 5 7", "/v1/embeddings")
        assert (record.status, record.prompt_tokens) == (200, None)

    around(tmp_path, body)


def test_a_stream_whose_engine_dies_is_told_from_one_whose_client_leaves(tmp_path: Path) -> None:
    async def body(edge: Edge) -> None:
        seen = {}
        for who in ("client", "engine"):
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.port, ssl=edge.trust)
            head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nx-want: stream\r\n"
            writer.write(f"{head}content-length: 0\r\n\r\n".encode())
            answer = (await reader.readuntil(b"data: 1")).decode()
            request_id = next(
                line.partition(": ")[2] for line in answer.split("\r\n") if line.startswith("x-request-id")
            )
            if who == "engine":
                for engine in edge.engines:
                    engine.kill()
            writer.transport.abort() if who == "client" else await reader.read()
            record = parse_request(json.dumps(await edge.logged(request_id)).encode())
            assert record is not None
            seen[who] = outcome_of(record, None)
        assert seen == {"client": Outcome.GONE, "engine": Outcome.FAILED}

    around(tmp_path, body)


def test_what_policy_refused_is_told_with_its_key_and_why_and_what_it_let_in_with_its_estimate(tmp_path: Path) -> None:
    deployment = Deployment.make(tmp_path)
    key = deployment.add_key()
    deployment.start(0)

    def chat(**fields: Any) -> bytes:
        return json.dumps({"model": "svc", "messages": [{"role": "user", "content": "Hello"}], **fields}).encode()

    async def run() -> None:
        async with Front(deployment) as front:
            client = front.client()
            await client.send("POST", PATH, key.text, chat())
            await client.send("POST", PATH, key.text, chat(model="nothing"))
            await client.send("POST", PATH, key.text, chat(temperature="hot", user="x" * 20_000))
            await client.send("POST", PATH, None, chat())
            await client.send("GET", "/v1/models", key.text)
            client.close()
            tail, found = LogTail(front.access_log), []
            while len(found) < 5:
                found += [parse_request(line) for line in tail.read()]
                await asyncio.sleep(0.02)
            seen = [(one.status, one.code, one.key_id, one.prompt_estimate is not None) for one in found if one]
            who = key.key_id
            assert seen == [
                (200, None, who, True),
                (404, "model_not_found", who, False),
                (400, "invalid_type", who, False),
                (401, "missing_api_key", None, False),
                (200, None, who, False),
            ]
            assert [outcome_of(one, None).value for one in found if one] == [
                *("answered", "refused", "refused", "refused", "other"),
            ]

    try:
        asyncio.run(run())
    finally:
        deployment.close()
