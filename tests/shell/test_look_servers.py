"""Asking external servers: what they list, and each way in which they do not answer, named by its code."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest

from gonogo.facts.server import MODEL_LIST, ServerFacts, read_model_list
from gonogo.runtimes import look_servers
from gonogo.runtimes.look_servers import look_at_servers, system_ca_file
from tests.shell.outside_engine import OutsideEngine
from tests.shell.test_external_behind_envoy import certificate


def look(url: str, ca_file: str | None = None) -> ServerFacts:
    return look_at_servers([(url, ca_file)])[(url, ca_file)]


@contextlib.contextmanager
def saying(content: bytes, hold_s: float = 0.0) -> Iterator[str]:
    """A server that says exactly this to whoever connects, and closes after a while."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listening.accept()
                    connection.settimeout(2)
                    connection.recv(65536)
                    connection.sendall(content)
                    over.wait(hold_s)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            thread.join(10)


def http(status: int, body: bytes) -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


def test_what_it_lists_and_whether_it_has_health() -> None:
    with OutsideEngine("phone") as one, OutsideEngine("phone", "--no-health") as two:
        found = look_at_servers([(one.url, None), (two.url, None), (one.url, None)])
        assert found[(one.url, None)] == ServerFacts(url=one.url, models=("phone",), health_status=200)
        assert [facts.has_no_health for facts in found.values()] == [False, True]


def test_nobody_there_and_a_name_that_leads_nowhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert look(f"http://127.0.0.1:{port}").trouble == "server_refused"
    assert look("http://no-such-name.invalid:8000").trouble == "server_name"


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (http(401, b"{}"), "server_status"),
        (http(200, b"<html>"), "server_answer"),
        (http(200, b'{"data": 7}'), "server_answer"),
        (http(200, b"[" * 100_000), "server_answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "server_error"),
        (b"", "server_error"),
    ],
    ids=["needs-a-key", "html", "no-list", "nested-deep", "ssh", "closes"],
)
def test_answers_that_are_no_list_of_models(content: bytes, trouble: str) -> None:
    with saying(content) as url:
        facts = look(url)
    assert (facts.trouble, facts.models) == (trouble, None)
    assert facts.detail


def test_silence_and_an_endless_answer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_servers, "LIMIT_S", 0.5)
    monkeypatch.setattr(look_servers, "MOST_BYTES", 1000)
    began = time.monotonic()
    with saying(b"", hold_s=5) as url:
        assert look(url).trouble == "server_timeout"
    with saying(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, hold_s=5) as url:
        assert look(url).trouble == "server_timeout"
    assert time.monotonic() - began < 30


def test_a_certificate_is_held_against_the_ca_that_the_spec_names(tmp_path: Path) -> None:
    ca, crt, key = certificate(tmp_path, "right", "127.0.0.1")
    other, _, _ = certificate(tmp_path, "other", "127.0.0.1")
    with OutsideEngine("phone", "--certificate", crt, "--key", key) as one:
        assert look(one.url, ca).models == ("phone",)
        assert look(one.url, other).trouble == "server_certificate"
        assert look(one.url).trouble == "server_certificate"
        assert look(one.url, str(tmp_path / "none.pem")).trouble == "server_ca_file"
        (tmp_path / "odd.pem").write_text("no certificate")
        assert look(one.url, str(tmp_path / "odd.pem")).trouble == "server_ca_file"


def test_no_server_is_asked_where_none_is_named() -> None:
    assert look_at_servers([]) == {}


def test_the_systems_own_cas_can_be_read_where_there_are_some() -> None:
    path = Path(system_ca_file())
    if not path.exists():
        pytest.skip("this system has no bundle of CAs")
    assert ssl.create_default_context(cafile=str(path)).get_ca_certs()


def test_a_list_of_models_is_bounded() -> None:
    assert read_model_list(b'{"data": [{"id": "a"}, {"id": 7}]}') == ("a", "7")
    many = b'{"data": [' + b",".join(b'{"id": "m"}' for _ in range(5000)) + b"]}"
    assert len(read_model_list(many)) == 1000
    assert MODEL_LIST == "/v1/models"
