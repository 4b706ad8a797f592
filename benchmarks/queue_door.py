"""How fast tasks are taken at the front door, and what large files cost: time, and the memory of the queue's parts.

    .venv/bin/python benchmarks/queue_door.py [--json] [--only post|lines|upload]
                                              [--seconds 10] [--lines 1000000] [--bytes 2000000000]

A whole deployment (`gonogo up`: Envoy with TLS, keys checked) before scripted servers; its queue is drained, so that
what is measured is the taking and not the work. `post`: tasks a second by single posts on 64 connections, and by lists
of 1,000 on 4. `lines`: one file of so many lines uploaded as a stream, left as a batch, until all are queued. `upload`:
one file of so many bytes. Beside each the most memory of its own that a part had meanwhile (resident, without what it
shares), and before.

Aims: 1,000 tasks a second and more; the part `tasks` never grows by more than 192 MiB, whatever the file's size.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import ssl
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table
from tests.acceptance.deployment import Deployment, wait_for
from tests.free_ports import free_port
from tests.shell.gateway_parts import read_body
from tests.shell.outside_engine import OutsideEngine

MODEL = "counts"
LEAST_PER_S, MOST_GROWTH_MIB = 1000.0, 192.0
SINGLE_CONNECTIONS, LIST_CONNECTIONS, AT_ONCE = 64, 4, 1000
PARTS = ("tasks", "worker", "valkey", "gateway", "policy")
BLOCK_BYTES = 2**20
MIB = 2**20
LIMIT_S = 900.0
say = Console(stderr=True, highlight=False)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured: a number with its unit, and MiB by part, before and at most."""

    what: str
    value: float
    unit: str
    seconds: float
    before_mib: dict[str, float] = field(default_factory=dict)
    most_mib: dict[str, float] = field(default_factory=dict)
    met: bool | None = None


def chat(number: int) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": f"Count, {number}."}], "max_tokens": 8}


class Memory:
    """Looks ten times a second at the memory of the parts' processes. `with`."""

    def __init__(self, deployment: Deployment) -> None:
        self._pids = {role: deployment.pids(role) for role in PARTS}
        self.before = self._now()
        self.most = dict(self.before)
        self._over = threading.Event()

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for role, seen in self._now().items():
                self.most[role] = max(self.most[role], seen)

    def _now(self) -> dict[str, float]:
        return {role: round(sum(map(_own_mib, pids)), 1) for role, pids in self._pids.items()}


def _own_mib(pid: int) -> float:
    """Anonymous resident memory: neither programs nor pages of files, which the kernel takes back."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return 0.0


class Door:
    """Connections to the front door, with TLS and the key."""

    def __init__(self, deployment: Deployment) -> None:
        self._port, self._key = deployment.port, deployment.key
        self._trust = ssl.create_default_context(cafile=str(deployment.state_dir / "tls" / "ca.crt"))

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, ssl=self._trust)

    def head(self, path: str, size: int, kind: str = "application/json") -> bytes:
        lines = (
            f"POST {path} HTTP/1.1",
            "host: 127.0.0.1",
            f"authorization: Bearer {self._key}",
            f"content-type: {kind}",
            f"content-length: {size}",
        )
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def answer(self, reader: asyncio.StreamReader) -> tuple[int, Any]:
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), json.loads(await read_body(reader, head))

    async def post(self, streams: Any, path: str, content: bytes) -> Any:
        """The answer to one post. Raises AssertionError for one that was not taken."""
        reader, writer = streams
        writer.write(self.head(path, len(content)) + content)
        status, told = await self.answer(reader)
        assert status in (200, 202), told
        return told

    async def upload(self, blocks: Callable[[], Iterator[bytes]], size: int) -> str:
        """One file, sent piece by piece; its id."""
        begin = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        begin += b'--b\r\ncontent-disposition: form-data; name="file"; filename="f.jsonl"\r\n\r\n'
        end = b"\r\n--b--\r\n"
        reader, writer = await self.open()
        whole = len(begin) + size + len(end)
        writer.write(self.head("/v1/files", whole, "multipart/form-data; boundary=b") + begin)
        for block in blocks():
            writer.write(block)
            await writer.drain()
        writer.write(end)
        status, told = await self.answer(reader)
        writer.close()
        assert status == 200 and told["bytes"] == size, told
        return str(told["id"])


async def posts(door: Door, connections: int, each: int, seconds: float) -> tuple[int, float]:
    """How many tasks were taken, and the seconds that took."""
    ends, taken = time.monotonic() + seconds, 0

    async def one(number: int) -> None:
        nonlocal taken
        streams = await door.open()
        while time.monotonic() < ends:
            body: dict[str, Any] = {"body": chat(number)}
            if each > 1:
                body = {"tasks": [{"body": chat(number + n)} for n in range(each)]}
            await door.post(streams, "/v1/tasks", json.dumps(body).encode())
            taken += each
        streams[1].close()

    began = time.monotonic()
    await asyncio.gather(*(one(number) for number in range(connections)))
    return taken, time.monotonic() - began


def measure_posts(deployment: Deployment, seconds: float) -> Iterator[Row]:
    door = Door(deployment)
    for what, connections, each in (
        (f"single posts, {SINGLE_CONNECTIONS} connections", SINGLE_CONNECTIONS, 1),
        (f"lists of {AT_ONCE:,}, {LIST_CONNECTIONS} connections", LIST_CONNECTIONS, AT_ONCE),
    ):
        say.print(what)
        with Memory(deployment) as memory:
            taken, took = asyncio.run(posts(door, connections, each, seconds))
        rate = taken / took
        yield Row(
            what=what,
            value=rate,
            unit="tasks/s",
            seconds=took,
            before_mib=memory.before,
            most_mib=memory.most,
            met=rate >= LEAST_PER_S,
        )


def measure_lines(deployment: Deployment, count: int) -> Iterator[Row]:
    """One file of `count` lines, all of the same length, made while it is sent."""
    door, width = Door(deployment), len(_line(0, 0))
    lines = (_line(number, width) for number in range(count))

    def blocks() -> Iterator[bytes]:
        block = bytearray()
        for line in lines:
            block += line
            if len(block) >= BLOCK_BYTES:
                yield bytes(block)
                block.clear()
        yield bytes(block)

    async def leave() -> str:
        file = await door.upload(blocks, count * width)
        asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        streams = await door.open()
        made = await door.post(streams, "/v1/batches", json.dumps(asked).encode())
        streams[1].close()
        return str(made["id"])

    say.print(f"a batch of {count:,} lines, {count * width / MIB:,.0f} MiB")
    began = time.monotonic()
    with Memory(deployment) as memory:
        batch = asyncio.run(leave())
        uploaded = time.monotonic()
        wait_for(lambda: _state(deployment, batch) == "in_progress", LIMIT_S, "all lines are queued")
        queued = time.monotonic()
    yield Row(what=f"upload of {count:,} lines", value=count * width / MIB / (uploaded - began), unit="MiB/s",
              seconds=uploaded - began)  # fmt: skip
    yield Row(
        what=f"{count:,} lines queued",
        value=count / (queued - uploaded),
        unit="lines/s",
        seconds=queued - uploaded,
        before_mib=memory.before,
        most_mib=memory.most,
        met=memory.most["tasks"] - memory.before["tasks"] <= MOST_GROWTH_MIB,
    )
    deployment.run("tasks", "cancel", batch)


def measure_upload(deployment: Deployment, size: int) -> Iterator[Row]:
    block = os.urandom(BLOCK_BYTES // 2).hex().encode()

    def blocks() -> Iterator[bytes]:
        for at in range(0, size, len(block)):
            yield block[: size - at]

    say.print(f"a file of {size / 1e9:.1f} GB")
    began = time.monotonic()
    with Memory(deployment) as memory:
        asyncio.run(Door(deployment).upload(blocks, size))
        took = time.monotonic() - began
    yield Row(
        what=f"upload of {size / 1e9:.1f} GB",
        value=size / MIB / took,
        unit="MiB/s",
        seconds=took,
        before_mib=memory.before,
        most_mib=memory.most,
        met=memory.most["tasks"] - memory.before["tasks"] <= MOST_GROWTH_MIB,
    )


def _line(number: int, width: int) -> bytes:
    line = {"custom_id": f"r-{number:08d}", "method": "POST", "url": "/v1/chat/completions", "body": chat(number)}
    return json.dumps(line).encode().ljust(max(width, 240) - 1) + b"\n"


def _state(deployment: Deployment, batch: str) -> str:
    with closing(sqlite3.connect(f"file:{deployment.state_dir}/tasks/tasks.db?mode=ro", uri=True)) as ledger:
        return str(ledger.execute("SELECT state FROM batches WHERE batch_id = ?", (batch,)).fetchone()[0])


def shown(rows: list[Row]) -> Table:
    table = Table(box=None, title=f"load average {os.getloadavg()[0]:.1f}")
    for name in ("", "", "seconds", *(f"{part}, MiB" for part in PARTS), "aim"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        memory = [f"{row.before_mib[part]:.0f} → {row.most_mib[part]:.0f}" if row.most_mib else "" for part in PARTS]
        aim = "" if row.met is None else "met" if row.met else "missed"
        table.add_row(row.what, f"{row.value:,.0f} {row.unit}", f"{row.seconds:.1f}", *memory, aim)
    return table


def main() -> int:
    """0: every aim is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("post", "lines", "upload"))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=2_000_000_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gonogo-door-"))
    deployment = Deployment(folder / "state", free_port())
    steps = {
        "post": lambda: measure_posts(deployment, given.seconds),
        "lines": lambda: measure_lines(deployment, given.lines),
        "upload": lambda: measure_upload(deployment, given.bytes),
    }
    rows: list[Row] = []
    try:
        with OutsideEngine(MODEL) as one:
            spec = {"service": MODEL, "model": MODEL, "replicas": {"external": [one.url]}}
            place = folder / "counts.yaml"
            place.write_text(json.dumps({**spec, "queue": {"tasks_per_key": 10_000_000}}))
            deployment.up(str(place))
            deployment.run("tasks", "drain", "--json")
            for name, step in steps.items():
                if given.only in (None, name):
                    rows += step()
    finally:
        deployment.down()
        shutil.rmtree(folder, ignore_errors=True)
    if given.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        Console(width=150).print(shown(rows))
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
