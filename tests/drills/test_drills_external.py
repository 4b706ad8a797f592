"""Condition 4, the network, where the replicas are servers of other people: silent ones, other models, clear text."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Iterator

import pytest

from gonogo.spec import Spec
from tests.acceptance.deployment import wait_for
from tests.drills.harness import Second, Yard, assert_only, spec, until
from tests.free_ports import free_port
from tests.shell.outside_engine import OutsideEngine

FAR = "far"


def asked(*urls: str, service: str = FAR, **fields: Any) -> Spec:
    gateway = {"port": free_port()}
    return spec(service=service, model=FAR, replicas={"external": list(urls)}, gateway=gateway, probes=[], **fields)


@contextlib.contextmanager
def deployed(yard: Yard, wanted: Spec) -> Iterator[Second]:
    """The service, proven; removed at the end."""
    yard.submit(wanted)
    try:
        assert yard.settled([FAR])[FAR]["phase"] == "proven", yard.logs()
        key = yard.run("keys", "create", "--service", FAR, "--json").json["api_key"]
        yield Second(asked=wanted, port=wanted.gateway.port, key=key)
    finally:
        yard.remove(FAR)


def test_external_servers(yard: Yard) -> None:
    """One of two servers serves another model: half of all requests would be answered with 404."""
    with OutsideEngine(FAR) as right, OutsideEngine("another-model") as wrong:
        found = assert_only(
            yard.refused(asked(right.url, wrong.url)), "external_servers", "ExternalModelUnknown", f"server/{wrong.url}"
        )
        assert found["values"]["listed"] == "another-model"
        with yard.faults.broken(without=["external_servers"]):
            yard.submit(asked(right.url, wrong.url))
            try:
                assert yard.settled([FAR])[FAR]["phase"] == "rejected", "its probes found out what it would have done"
            finally:
                yard.remove(FAR)
        nobody = f"http://127.0.0.1:{free_port()}"
        answers = yard.refused(asked(nobody, nobody.replace("127.0.0.1", "localhost")))
        assert_only(answers, "external_servers", "ExternalNoneAnswers")


def test_external_servers_all(yard: Yard) -> None:
    """One of two servers is killed: every client is answered, and only this check says that the next is the last."""
    with OutsideEngine(FAR) as first, OutsideEngine(FAR) as second, contextlib.ExitStack() as stack:
        service = stack.enter_context(deployed(yard, asked(first.url, second.url)))
        client = stack.enter_context(service.client(yard))
        first.kill()

        def told() -> Any:
            live = [one for one in yard.control.check(FAR) if one["stage"] == "live"]
            return live if any(one["reason"] == "ExternalSilent" for one in live) else None

        live = wait_for(told, 30, "the silent server is told")
        assert_only(live, "external_servers_all", "ExternalSilent", f"server/{first.url}")
        assert {yard.chat(client, model=FAR).status_code for _ in range(8)} == {200}
        second.kill()
        until(lambda: yard.chat(client, model=FAR).status_code == 503, "the next death takes the whole service")


def test_external_encrypted(yard: Yard) -> None:
    """Whoever stands on the way to a server with http:// reads what users ask; status 200 all the while."""
    address = _address_of_this_host()
    with OutsideEngine(FAR) as engine, _listening_on_the_way(address, engine.port) as (url, overheard):
        wanted = asked(url, engine.url)
        found = assert_only(yard.preflight(wanted), "external_encrypted", "ExternalInClear", f"service/{FAR}")
        assert found["values"]["urls"] == url
        with deployed(yard, wanted) as service, service.client(yard) as client:
            until(
                lambda: (
                    yard.chat(client, "my card is 4111", model=FAR).status_code == 200
                    and b"my card is 4111" in overheard
                ),
                "the prompt was read on the way",
            )


def _address_of_this_host() -> str:
    """An address of this machine that others may reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback ones")
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback ones")
    return address


@contextlib.contextmanager
def _listening_on_the_way(address: str, port: int) -> Iterator[tuple[str, bytearray]]:
    """A router of the network in between, which keeps what it passes on."""
    overheard = bytearray()

    def carry(source: socket.socket, target: socket.socket, kept: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if kept:
                    overheard.extend(piece)
                target.sendall(piece)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", port), timeout=30)
                for words in ((client, server, True), (server, client, False)):
                    threading.Thread(target=carry, args=words, daemon=True).start()

    with socket.create_server((address, 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield f"http://{address}:{listening.getsockname()[1]}", overheard
