"""What clients meet at the gateway, with the real Envoy: TLS, headers, limits, and every error exactly once."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from itertools import pairwise
from pathlib import Path
from typing import Any, Awaitable, Callable

import pytest

from gonogo.gateway.resources.routes import MAX_BODY_BYTES
from tests.shell.edge_parts import KEY, Answer, Edge, start_policy

CHAT = "/v1/chat/completions"
SHOT = b"x" * 1_300_000  # an agent's screenshot


def at_the_edge(tmp_path: Path, story: Callable[[Edge], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Edge(tmp_path) as edge:
            await story(edge)

    asyncio.run(run())


def test_only_tls_13_is_spoken_and_h2_beside_http_11(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        old = ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.crt"))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", edge.port, ssl=old)
        trust = ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.crt"))
        assert await asyncio.to_thread(h2_status_200, edge.port, trust)
        answer = await edge.ask("GET", "/healthz", key=None)
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
        assert answer.headers["content-type"] == "application/json"
        assert (await edge.ask("HEAD", "/healthz", key=None)).status == 200

    at_the_edge(tmp_path, story)


def test_headers_of_others_go_no_further_in_either_direction(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        foreign = {
            "X-Gateway-Destination-Endpoint": "127.0.0.1:1",
            "x-gonogo-revision": "svc/9",
            "X-GONOGO-Key-Id": "forged",
            "x-envoy-retry-on": "5xx",
            "x-envoy-upstream-rq-timeout-ms": "1",
            "x_gonogo_revision": "svc/9",
            "x-request-id": "chosen-by-the-client",
            "x-api-key": KEY,
            "x-harmless": "kept",
        }
        answer = await edge.raw("POST", CHAT, KEY, b"{}", foreign)
        assert answer.status == 200
        seen = {name.lower(): value for name, value in json.loads(answer.body)["headers"].items()}
        assert set(seen) == {"host", "x-harmless", "content-length", "x-forwarded-proto", "x-request-id"}
        assert seen["x-request-id"] == answer.headers["x-request-id"] != "chosen-by-the-client"
        assert not [name for name in answer.headers if name.startswith(("x-gonogo", "x-envoy", "server"))]
        line = await edge.logged(answer.headers["x-request-id"])
        assert (line["key_id"], line["revision"], line["path"], line["status"]) == ("kid-7", "svc/1", CHAT, 200)
        assert line["replica"] in ("svc/1/0", "svc/1/1")
        assert KEY not in (tmp_path / "access.log").read_text()

    at_the_edge(tmp_path, story)


# name: (request, status, code, hop)
REFUSALS: dict[str, tuple[Callable[[Edge], Awaitable[Answer]], int, str, str]] = {
    "no key": (lambda edge: edge.ask("POST", CHAT, None, b"{}"), 401, "missing_key", "policy"),
    "no key, wrong method": (lambda edge: edge.ask("GET", CHAT, None), 401, "missing_key", "policy"),
    "policy says 403": (lambda edge: edge.ask("GET", "/v1/models?refuse=403", None), 403, "missing_key", "policy"),
    "policy says 429": (lambda edge: edge.ask("GET", "/v1/models?refuse=429", None), 429, "missing_key", "policy"),
    "policy says 400": (lambda edge: edge.ask("GET", "/v1/models?refuse=400", None), 400, "missing_key", "policy"),
    "policy crashes": (lambda edge: edge.ask("POST", f"{CHAT}?policy=crash"), 503, "policy_unavailable", "policy"),
    "wrong method": (lambda edge: edge.ask("GET", CHAT), 405, "method_not_allowed", "gateway"),
    "health is read only": (lambda edge: edge.ask("POST", "/healthz", None), 405, "method_not_allowed", "gateway"),
    "revision unknown": (lambda edge: edge.ask("POST", f"{CHAT}?rev=svc/9"), 503, "no_revision", "gateway"),
    "no replica": (lambda edge: edge.ask("POST", f"{CHAT}?rev=svc/2"), 503, "no_healthy_replica", "engine"),
    "engine resets": (lambda edge: edge.ask("POST", CHAT, x_want="reset"), 503, "replica_lost", "engine"),
    "engine says 400": (lambda edge: edge.ask("POST", CHAT, x_want="400"), 400, "engine_refused", "engine"),
    "engine says 404": (lambda edge: edge.ask("POST", CHAT, x_want="404"), 404, "engine_unsupported", "engine"),
    "engine says 429": (lambda edge: edge.ask("POST", CHAT, x_want="429"), 429, "engine_overloaded", "engine"),
    "engine says 500": (lambda edge: edge.ask("POST", CHAT, x_want="500"), 500, "engine_error", "engine"),
    "engine says 503": (lambda edge: edge.ask("POST", CHAT, x_want="503"), 503, "engine_error", "engine"),
    "unknown path": (lambda edge: edge.ask("GET", "/metrics", None), 404, "unknown_path", "gateway"),
    "escaped slash": (lambda edge: edge.ask("GET", "/v1%2Fmodels", None), 400, "bad_request", "gateway"),
    "headers too large": (lambda edge: edge.ask("GET", CHAT, x_big="x" * 62_000), 431, "headers_too_large", "gateway"),
    "no HTTP": (lambda edge: edge.exchange(b"GARBAGE\r\n\r\n"), 400, "bad_request", "gateway"),
    "two lengths": (
        lambda edge: edge.raw("POST", CHAT, KEY, b"0\r\n\r\n", {"transfer-encoding": "chunked"}),
        400,
        "bad_request",
        "gateway",
    ),
}
INTERNAL = ("upstream", "ext_authz", "gRPC", "via_", "forged", "internal words", "/policy-", "127.0.0.1:1")


def test_every_error_is_one_envelope_with_hop_and_request_id_and_no_internal_text(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        await edge.publish(clusters=(*edge.given.clusters, edge.cluster("svc/2")))
        answers = {}
        for name, (request, status, code, hop) in REFUSALS.items():
            answer = await request(edge)
            assert answer.status == status, (name, answer)
            error = answer.error
            assert (error["code"], error["hop"], error["param"]) == (code, hop, None), (name, answer)
            assert isinstance(error["request_id"], str)
            assert error["request_id"] == answer.headers.get("x-request-id", error["request_id"]), name
            assert not [text for text in INTERNAL if text in error["message"]], name
            assert not [header for header in answer.headers if header.startswith(("x-gonogo", "x-envoy"))], name
            answers[name] = error
        for name, error in answers.items():
            assert (await edge.logged(error["request_id"]))["status"] == REFUSALS[name][1], name

    at_the_edge(tmp_path, story)


def test_what_policy_says_arrives_word_for_word(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        answer = await edge.ask("POST", CHAT, None, b"{}")
        assert answer.error["message"] == 'No "key" \\ was sent: 没有密钥'
        assert answer.error["type"] == "authentication_error"
        assert answer.headers["www-authenticate"] == "Bearer"

    at_the_edge(tmp_path, story)


# path: what the message says after "There is no POST PATH. "
LACKS, TWICE, WHOLE = "The base URL lacks /v1", "The base URL has /v1 more than once", "is the whole URL of a request"
LISTED = (
    "POST /v1/chat/completions, POST /v1/completions, POST /v1/embeddings, GET /v1/models, /v1/tasks, /v1/files, "
    "/v1/batches, GET /healthz"
)
HINTS = {
    "/chat/completions": LACKS,
    "/models": LACKS,
    "/models/": LACKS,
    "/v1/v1/chat/completions": TWICE,
    "/v1/v1/v1/models": TWICE,
    "/v1/chat/completions/chat/completions": WHOLE,
    "/v1/chat/completions/models": WHOLE,
    "/v1/chat/completions/v1/chat/completions": WHOLE,
    "/chat/completions/chat/completions": WHOLE,
    "/v1/embeddings/": "Leave out the slash at the end",
    "/v1/completions/": "Leave out the slash at the end",
    "/api/v1/chat/completions": "something else than /v1",
    "/api/paas/v4/chat/completions": "something else than /v1",
    "/v1/openai/models": "something else than /v1",
    "/v1": "This is the base URL itself",
    "/v1/": "This is the base URL itself",
    "/v1/models/svc": "GET /v1/models lists those that a key may use",
    "/v1/responses": "This API is not offered",
    "/v1/messages": "This API is not offered",
    "/api/chat": "Ollama",
    "/api/tags": "Ollama",
    "/": LISTED,
    "/v1/chat/completionsx": LISTED,
    "/v1/../admin": LISTED,
}


def test_a_wrong_path_needs_no_key_to_be_told_what_was_wrong_and_the_right_base_url(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        for path, hint in HINTS.items():
            answer = await edge.ask("POST", path, None, b"{}")
            message = answer.error["message"]
            assert (answer.status, answer.error["code"]) == (404, "unknown_path"), path
            assert message.startswith(f"There is no POST {'/admin' if '..' in path else path}. "), message
            assert hint in message and message.endswith(" The base URL is https://localhost/v1."), message
            assert "location" not in answer.headers
        assert (await edge.ask("GET", "//v1///models?x=1")).status == 200, "slashes are merged"
        answer = await edge.ask("GET", "/v1/embeddings/", None)
        assert answer.error["message"].startswith("There is no GET /v1/embeddings/. ")

    at_the_edge(tmp_path, story)


def test_a_hint_repeats_no_query_no_long_path_and_no_host_that_is_none(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        answer = await edge.ask("POST", "/chat/completions?api_key=gng_secret", KEY, b"{}")
        assert "secret" not in answer.body.decode() and KEY not in answer.body.decode()
        assert answer.error["message"].startswith("There is no POST /chat/completions. The base URL lacks")
        answer = await edge.ask("POST", "/" + "x" * 5000, None, b"{}")
        assert len(answer.error["message"]) < 400
        for host in ("user:secret@localhost", "<b>", "x" * 200):
            head = f"POST /models HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            answer = await edge.exchange(head.encode())
            assert host not in answer.body.decode() and "secret" not in answer.body.decode()
            assert "<b>" not in answer.body.decode()

    at_the_edge(tmp_path, story)


def test_a_hint_is_given_before_a_large_body_has_arrived_and_names_the_port(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        head = f"POST /v1/v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{edge.port}\r\n"
        answer = await edge.exchange(f"{head}content-length: 1300000\r\n\r\n".encode() + b"x" * 1000)
        assert answer.error["message"].endswith(f"The base URL is https://127.0.0.1:{edge.port}/v1.")

    at_the_edge(tmp_path, story)


def test_plain_http_is_told_to_use_https_and_goes_no_further(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        base = f"https://localhost:{edge.port}/v1."
        for method, path in (("GET", "/healthz"), ("POST", CHAT), ("GET", "/chat/completions?key=gng_secret")):
            head = f"{method} {path} HTTP/1.1\r\nhost: localhost:{edge.port}\r\nauthorization: Bearer {KEY}\r\n"
            answer = await edge.exchange(f"{head}content-length: 1300000\r\n\r\n".encode() + b"x" * 1000, tls=False)
            assert (answer.status, answer.error["code"]) == (400, "https_wanted"), answer
            assert answer.error["message"].endswith(f" The base URL is {base}"), answer.error["message"]
            assert "secret" not in answer.body.decode() and KEY not in answer.body.decode()
            assert "location" not in answer.headers
            line = await edge.logged(answer.error["request_id"])
            assert (line["status"], line["upstream"], line["key_id"]) == (400, None, None)
        assert (await edge.exchange(b"nonsense\r\n\r\n", tls=False)).error["code"] == "bad_request"
        assert (await edge.ask("GET", "/v1/models")).status == 200

    at_the_edge(tmp_path, story)


def test_a_wrong_method_names_the_right_one_in_the_allow_header_too(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        for method, path, allowed in (("GET", CHAT, "POST"), ("POST", "/v1/models", "GET"), ("PUT", CHAT, "POST")):
            answer = await edge.ask(method, path)
            assert (answer.status, answer.headers["allow"]) == (405, allowed), (method, path)
            assert answer.error["message"] == f"Use {allowed} for {path}."
        assert (await edge.ask("POST", "/healthz", None)).headers["allow"] == "GET, HEAD"

    at_the_edge(tmp_path, story)


def test_32_mib_pass_and_more_is_refused_but_only_to_who_has_a_key(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        whole = await edge.ask("POST", CHAT, KEY, b"x" * (MAX_BODY_BYTES - 1))
        assert json.loads(whole.body)["bytes"] == MAX_BODY_BYTES - 1
        size = MAX_BODY_BYTES + 1_000_000
        answer = await edge.ask("POST", CHAT, KEY, b"x" * size)
        assert (answer.status, answer.error["code"], answer.error["hop"]) == (413, "body_too_large", "gateway")
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()
        assert (await edge.exchange(head + b"x" * 1000)).status == 401, "nobody waits for a body of who may not"
        head = f"POST /unknown HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()
        assert (await edge.exchange(head + b"x" * 1000)).status == 404

    at_the_edge(tmp_path, story)


def test_a_large_request_survives_the_death_of_its_replica(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        asked = [asyncio.create_task(edge.ask("POST", CHAT, KEY, SHOT, x_want="sleep 1")) for _ in range(6)]
        await asyncio.sleep(0.5)
        edge.engines[0].kill()
        answers = await asyncio.gather(*asked)
        assert [answer.status for answer in answers] == [200] * 6
        bodies = [json.loads(answer.body) for answer in answers]
        assert {(body["engine"], body["bytes"]) for body in bodies} == {("second", len(SHOT))}
        lines = [await edge.logged(answer.headers["x-request-id"]) for answer in answers]
        assert any(line["attempts"] > 1 for line in lines), "the killed one held none of them: nothing was shown"

    at_the_edge(tmp_path, story)


def test_a_streamed_answer_arrives_in_pieces_over_time(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port, ssl=edge.trust)
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nx-want: stream\r\n"
        writer.write(f"{head}content-length: 0\r\n\r\n".encode())
        times = []
        while len(times) < 10:
            if b"data:" in await reader.readline():
                times.append(asyncio.get_running_loop().time())
        writer.close()
        assert times[-1] - times[0] > 0.7
        assert sum(later - earlier > 0.03 for earlier, later in pairwise(times)) >= 7

    at_the_edge(tmp_path, story)


def test_with_no_policy_server_nobody_gets_in_and_with_one_everybody_does(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        await edge.policies[0].stop(0)
        assert [(await edge.ask("GET", "/v1/models")).status for _ in range(10)] == [200] * 10
        await edge.policies[1].stop(0)
        answer = await edge.ask("GET", "/v1/models")
        assert (answer.status, answer.error["code"]) == (503, "policy_unavailable")
        edge.policies = [await start_policy(path) for path in edge.given.policy_sockets]
        answers: list[Any] = []
        while len(answers) < 20 and (not answers or answers[-1] != 200):
            answers.append((await edge.ask("GET", "/v1/models")).status)
            await asyncio.sleep(0.1)
        assert answers[-1] == 200, answers

    at_the_edge(tmp_path, story)


def test_more_clients_than_there_may_be_are_turned_away_and_the_others_are_served(tmp_path: Path) -> None:
    async def run() -> None:
        edge = Edge(tmp_path)
        edge.max_connections = 3
        async with edge:
            clients = [edge.client() for _ in range(3)]
            for client in clients:
                assert (await client.send("GET", "/healthz", None)).status == 200
            with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
                await edge.client().send("GET", "/healthz", None)
            assert [(await client.send("GET", "/healthz", None)).status for client in clients] == [200] * 3
            for client in clients:
                client.close()

    asyncio.run(run())


def test_nobody_but_its_owner_reaches_the_admin_interface(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "xds.sock").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "snapshot.bin").stat().st_mode & 0o777 == 0o600

    at_the_edge(tmp_path, story)


def h2_status_200(port: int, trust: ssl.SSLContext) -> bool:
    """Ask for /healthz over HTTP/2, by hand: is the first header of the answer `:status: 200`?"""
    trust.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    with plain, trust.wrap_socket(plain, server_hostname="localhost") as tls:
        assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", "h2")
        fields = b"\x82\x87\x04\x08/healthz\x01\x09localhost"
        frame = len(fields).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + fields
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + frame)
        file = tls.makefile("rb")
        while True:
            header = file.read(9)
            payload = file.read(int.from_bytes(header[:3], "big"))
            if header[3] == 1:
                return b"\x88" in payload[:4]
