"""Our parts are asked without reading what only TLS needs."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from gonogo.runtimes import unix_http

SOURCES = Path(unix_http.__file__).parents[1]


def test_the_systems_authorities_are_not_read_to_ask_a_part_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("they were read")

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", read)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", read)
    unix_http.over("/run/part.sock").close()
    unix_http.over_async("/run/part.sock")


def test_nobody_asks_over_a_unix_socket_in_another_way() -> None:
    others = [each.name for each in SOURCES.rglob("*.py") if "HTTPTransport(uds=" in each.read_text(encoding="utf-8")]
    assert others == ["unix_http.py"]
