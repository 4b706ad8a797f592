"""The queue's bell on a server of other people's, as the spec names it: let in, moved, silent; and never a password."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest

from gonogo.runtimes.look_queue import look_at_queue
from gonogo.runtimes.programs import valkey_binary
from gonogo.security.certificates import CertificateFiles, ensure_certificates
from gonogo.spec.queue import Queue
from gonogo.store.faults import StoreUnreadable
from gonogo.tasks import broker
from gonogo.tasks.asked_queue import AskedQueue, asked_queue
from tests.free_ports import free_port
from tests.shell.policy_parts import until
from tests.shell.tasks_parts import QueueParts, chat
from tests.shell.test_tasks_celery import python
from tests.shell.valkey_parts import Valkey

PASSWORD = "ge/h:e@im%20?"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "queue-password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def locked() -> Iterator[tuple[Path, int]]:
    """A Valkey with a password: its unix socket, and its port."""
    folder, port = Path(tempfile.mkdtemp(prefix="gonogo-locked-")), free_port()
    place = folder / "locked.sock"
    words = [valkey_binary(), "--port", str(port), "--unixsocket", str(place), "--dir", str(folder), "--save", ""]
    process = subprocess.Popen([*words, "--requirepass", PASSWORD], stdout=subprocess.DEVNULL)
    try:
        until(place.exists, 20)
        yield place, port
    finally:
        process.kill()
        process.wait(10)
        shutil.rmtree(folder)


def answered(parts: QueueParts, text: str) -> None:
    """One task is left, and done."""
    with parts.client() as client:
        made = client.post("/v1/tasks", json={"body": chat(text)}).json()
        for _ in range(30):
            parts.keep("worker")
            told = client.get(f"/v1/tasks/{made['id']}", params={"wait": 2}).json()
            if told["state"] == "done":
                return
    raise AssertionError((told, parts.log("worker")[-2000:], parts.log("tasks")[-2000:]))


def test_a_store_that_cannot_be_read_for_a_moment_moves_no_bell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with QueueParts(tmp_path / "state", gateway=False) as parts:
        parts.deployment.ask(queue=Queue(url="redis://queue.example/3"))
        monkeypatch.setattr("gonogo.tasks.asked_queue.EVERY_S", -1.0)
        held = AskedQueue(parts.paths.database)
        assert held.now().url == "redis://queue.example:6379/3"
        monkeypatch.setattr(held, "_file", tmp_path / "torn.db")
        (tmp_path / "torn.db").write_bytes(b"no database at all, for a moment" * 99)
        assert held.now().url == "redis://queue.example:6379/3"


@pytest.mark.parametrize("kind", ["unix", "redis"])
def test_the_bell_hangs_where_the_spec_says_with_the_password_of_its_file(
    tmp_path: Path, kind: str, locked: tuple[Path, int], secret: Path
) -> None:
    place, port = locked
    url = f"unix://{place}" if kind == "unix" else f"redis://127.0.0.1:{port}/1"
    with QueueParts(tmp_path / "state") as parts:
        parts.deployment.ask(queue=Queue(url=url, password_file=str(secret)))
        parts.start("tasks", "worker")
        answered(parts, "hello")
        shown = python(parts, "-m", "celery", "-A", "gonogo.tasks", "report")
        assert shown.returncode == 0, shown.stderr
        told = shown.stdout + shown.stderr + parts.log("tasks") + parts.log("worker")
        assert "ge/h" not in told and "ge%2Fh" not in told


def test_over_a_network_the_bell_is_rung_through_tls_to_a_server_whose_certificate_is_right(
    tmp_path: Path, locked: tuple[Path, int], secret: Path
) -> None:
    place, _ = locked
    made = ensure_certificates(tmp_path / "tls", ["127.0.0.1"], time.time())
    assert made.ca_file is not None
    with tls_before(place, tmp_path, made) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        right = Queue(url=url, password_file=str(secret), ca_file=str(made.ca_file))
        assert look_at_queue(right).trouble is None
        untrusted = look_at_queue(Queue(url=url, password_file=str(secret)))
        assert untrusted.trouble == "queue_silent" and "certificate" in str(untrusted.detail).lower()
        with QueueParts(tmp_path / "state") as parts:
            parts.deployment.ask(queue=right)
            parts.start("tasks", "worker")
            answered(parts, "hello")


@contextlib.contextmanager
def tls_before(place: Path, folder: Path, made: CertificateFiles) -> Iterator[int]:
    """A port with TLS before a unix socket."""
    pair = folder / "pair.pem"
    pair.write_text(made.chain_pem + made.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(place))
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def test_a_bell_that_is_hung_elsewhere_is_heard_there_without_anybody_starting_anything(tmp_path: Path) -> None:
    with Valkey() as other, QueueParts(tmp_path / "state") as parts:
        parts.start("valkey", "tasks", "worker")
        answered(parts, "here")
        parts.deployment.ask(queue=Queue(url=f"unix://{other.socket}"))
        before = parts.processes["worker"].pid
        until(lambda: parts.processes["worker"].poll() is not None, 30)
        parts.kill("valkey")
        parts.keep("worker")
        assert parts.processes["worker"].pid != before
        answered(parts, "there")


def test_a_server_that_says_nothing_holds_nobody_up(tmp_path: Path) -> None:
    """It takes connections, and is silent: tasks are taken at once, and wait."""
    with socket.create_server(("127.0.0.1", 0)) as silent, QueueParts(tmp_path / "state") as parts:
        queue = Queue(url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        parts.deployment.ask(queue=queue)
        parts.start("tasks")
        with parts.client() as client:
            began = time.monotonic()
            for number in range(40):
                assert client.post("/v1/tasks", json={"body": chat(str(number))}).status_code == 202
            assert time.monotonic() - began < 20, "each would wait for its own ring"
        facts = look_at_queue(queue)
        assert facts.trouble == "queue_silent" and "imeout" in str(facts.detail)


def test_what_keeps_us_out_is_told_apart(tmp_path: Path, locked: tuple[Path, int], secret: Path) -> None:
    place, port = locked
    url = f"unix://{place}"
    empty = tmp_path / "empty"
    empty.write_text("\n")
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed")
    seen = {
        "right": Queue(url=url, password_file=str(secret)),
        "none": Queue(url=url),
        "wrong": Queue(url=url, password_file=str(wrong)),
        "missing": Queue(url=url, password_file=str(tmp_path / "nothing")),
        "empty": Queue(url=url, password_file=str(empty)),
        "nobody": Queue(url=f"redis://127.0.0.1:{free_port()}/0"),
        "unknown name": Queue(url="redis://no-such-host.invalid/0"),
        "no TLS there": Queue(url=f"rediss://127.0.0.1:{port}/0"),
    }
    found = {name: look_at_queue(queue).trouble for name, queue in seen.items()}
    assert found == {
        "right": None,
        "none": "queue_refuses",
        "wrong": "queue_refuses",
        "missing": "queue_password_file",
        "empty": "queue_password_file",
        "nobody": "queue_silent",
        "unknown name": "queue_silent",
        "no TLS there": "queue_silent",
    }


def test_the_first_service_that_says_something_decides_and_without_any_it_is_the_own_valkey(tmp_path: Path) -> None:
    with QueueParts(tmp_path / "state", gateway=False) as parts:
        own = broker.broker_url(parts.paths)
        assert own.startswith("redis+socket://") and "valkey-0.sock" in own
        parts.deployment.ask(queue=Queue(url="redis://queue.example/3"))
        assert broker.broker_url(parts.paths) == "redis://queue.example:6379/3"
        assert asked_queue(tmp_path / "nothing.db") == Queue()
        held = AskedQueue(tmp_path / "torn.db")
        (tmp_path / "torn.db").write_bytes(b"no database at all, for a moment" * 99)
        with pytest.raises(StoreUnreadable):
            held.now()
        encrypted = Queue(url="rediss://me@queue.example:1/0", ca_file="/c a.pem")
        told = broker.broker_url(parts.paths, encrypted)
        assert told == "rediss://me:@queue.example:1/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fc%20a.pem"
