"""What the limits of keys cost a request: one round trip to Valkey, beside the floor and beside redis-py, in one run.

    python benchmarks/limits.py [--calls 5000]

The floor is a PING on the same connection. `own` is the time of the policy server's process alone, which is what
bounds how many requests it decides in a second. Judging a request (JSON, fields, rules) is the last pair of rows.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Awaitable, Callable

import redis.asyncio

from gonogo.facts.part import COUNTERS_DB
from gonogo.gateway.policy.counters import End, LocalCounters, Taking
from gonogo.gateway.policy.gate import OpenGate
from gonogo.gateway.policy.gate_limits import LimitsGate
from gonogo.gateway.policy.ledger import Hold, MemoryLedger, Room
from gonogo.gateway.policy.request import Head, Request, request_of
from gonogo.gateway.policy.rules import ServiceRules
from gonogo.gateway.policy.shared import SharedCounters, SharedLedger, scripts
from gonogo.gateway.policy.valkey import Valkey
from gonogo.runtimes.valkey import valkey_command
from gonogo.security.keys import KeyRow

MANY = 10**9
REQUESTS = {"requests_per_minute": MANY}
ALL = {**REQUESTS, "tokens_per_minute": MANY, "tokens_per_day": MANY, "concurrent": MANY}
FIELDS = {"model": "svc", "messages": [{"role": "user", "content": "Hello " * 40}], "max_tokens": 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Microseconds of one call: the median, the 99th percentile, and this process's own time."""

    name: str
    median: float
    p99: float
    own: float


async def measured(name: str, calls: int, call: Callable[[int], Awaitable[object]]) -> Row:
    for number in range(200):
        await call(-number - 1)
    took: list[float] = []
    own = time.process_time()
    for number in range(calls):
        began = time.perf_counter()
        await call(number)
        took.append(time.perf_counter() - began)
    own = time.process_time() - own
    ordered = sorted(took)
    return Row(
        name=name, median=statistics.median(ordered) * 1e6, p99=ordered[int(calls * 0.99)] * 1e6, own=own / calls * 1e6
    )


async def rows(socket: Path, calls: int) -> list[Row]:
    valkey = Valkey(socket, COUNTERS_DB, scripts(), tell=print)
    await valkey.start()
    counters = SharedCounters(valkey, LocalCounters(lambda: 0))
    ledger = SharedLedger(valkey, MemoryLedger(time.time), time.time)
    gates = {"no limits": LimitsGate(counters, OpenGate()), "all limits": LimitsGate(counters, OpenGate())}

    def taking(number: int, limits: dict[str, int], key: str) -> Taking:
        return Taking(request_id=f"{key}{number}", key_id=key, limits=limits, tokens=100)

    def judged(number: int) -> Request:
        made = request_of(
            Head(method="POST", path="/v1/chat/completions", request_id=f"judged{number}"), FIELDS, ServiceRules()
        )
        assert isinstance(made, Request)
        return made

    async def decided(number: int, key: KeyRow, gate: LimitsGate) -> object:
        return await gate.admit(replace(judged(number), request_id=f"{key.key_id}{number}"), key, "svc/1")

    def hold(number: int) -> Hold:
        expires_at = time.time() + 60
        return Hold(request_id=f"h{number}", revision="svc/1", key_id="k", tokens=1, expires_at=expires_at)

    room = Room(tokens=MANY, sequences=MANY)
    found = [
        await measured("PING (the floor)", calls, lambda _: valkey.call("PING")),
        await measured("take: requests a minute", calls, lambda n: counters.take(taking(n, REQUESTS, "one"))),
        await measured("take: all four limits", calls, lambda n: counters.take(taking(n, ALL, "all"))),
        await measured("finish of one", calls, lambda n: counters.finish([End(request_id=f"all{n}", tokens=50)])),
        await measured("reserve on a replica", calls, lambda n: ledger.reserve(hold(n), ["here"], room)),
        await measured("release of one", calls, lambda n: ledger.release([f"h{n}"])),
        await _with_redis_py(socket, calls),
        await measured("judged, no limits", calls, lambda n: decided(n, _key("free"), gates["no limits"])),
        await measured(
            "judged, all four limits", calls, lambda n: decided(n, _key("full", **ALL), gates["all limits"])
        ),
    ]
    assert valkey.opened == 1, "it was never away"
    await valkey.stop()
    return found


async def _with_redis_py(socket: Path, calls: int) -> Row:
    pool = redis.asyncio.Redis(unix_socket_path=str(socket), db=COUNTERS_DB)
    digest = await pool.script_load(scripts()["take"])
    words: list[Any] = ["clock", "known:x", "at_once:x", *(f"{name}:py" for name in ALL if name != "concurrent")]

    async def take(number: int) -> object:
        keys = [words[0], f"known:py{number}", words[2], *words[3:]]
        windows = [MANY, 1, 1000, 60, 0, MANY, 100, 1000, 60, 1, MANY, 100, 600_000, 144, 1]
        return await pool.evalsha(digest, len(keys), *keys, -1, f"py{number}", 3_600_000, MANY, *windows)

    row = await measured("take: all four, by redis-py's pool", calls, take)
    await pool.aclose()
    return row


def _key(name: str, **limits: int) -> KeyRow:
    return KeyRow(
        key_id=name,
        secret_hash="",
        name=name,
        service="svc",
        revision=None,
        scopes=("inference",),
        created_at=0.0,
        expires_at=None,
        revoked_at=None,
        **limits,  # type: ignore[arg-type]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000)
    calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as folder:
        socket, directory = Path(folder) / "valkey.sock", Path(folder) / "valkey"
        directory.mkdir()
        server = subprocess.Popen(valkey_command(socket, directory), stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                time.sleep(0.01)
            found = asyncio.run(rows(socket, calls))
        finally:
            server.terminate()
            server.wait(10)
    floor = found[0]
    print(f"| {'one call':36} | median µs | p99 µs | own µs | ÷ PING |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for row in found:
        times = row.median / floor.median
        print(f"| {row.name:36} | {row.median:9.0f} | {row.p99:6.0f} | {row.own:6.1f} | {times:6.1f} |")


if __name__ == "__main__":
    main()
