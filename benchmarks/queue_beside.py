"""What interactive requests feel of a batch beside them, and what the batch gets: real llama.cpp, two replicas.

    .venv/bin/python benchmarks/queue_beside.py [--json] [--seconds 40] [--rounds 2]

A whole deployment (`gonogo up`). First its capacity: as many streamed requests a second as eight clients get that ask
one after the other. Then by turns, each for so many seconds: interactive requests at 20 % of that, at random moments
(the same ones each time); the same beside a batch that has always more lines; the batch alone. Between them the queue
is drained. The time to the first token is the client's, from the sent request to the first piece with text.

Aims: the 95th percentile of it beside the batch at most 1.5 times that without; the batch beside interactive requests
at least 60 % of its pace alone. With the defaults it takes six to seven minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sqlite3
import ssl
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Awaitable, Callable

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from rich.console import Console
from rich.table import Table
from tests.acceptance.deployment import Deployment, wait_for
from tests.free_ports import free_port

CLIENTS, CAPACITY_S, SETTLE_S, SHARE = 8, 20.0, 3.0, 0.2
ALONE_AFTER_S = 31.0
"""So long the gateway keeps most of each replica for those who asked."""
MOST_RATIO, LEAST_PACE = 1.5, 0.6
TOKENS, LINES = 16, 20_000
WORDS = (
    *("the", "of", "a", "lamp", "river", "seven", "under", "quickly"),
    *("green", "paper", "station", "winter", "open", "small", "number", "letter"),
)
say = Console(stderr=True, highlight=False)


@dataclass
class Felt:
    """What interactive requests of one kind of phase felt: seconds to the first token, and those that failed."""

    ttft_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def at(self, share: float) -> float:
        ordered = sorted(self.ttft_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@dataclass
class Pace:
    """Lines that a batch had done, and the seconds that took."""

    lines: int = 0
    seconds: float = 0.0

    @property
    def per_s(self) -> float:
        return self.lines / self.seconds if self.seconds else float("nan")


@dataclass
class Result:
    """Everything that was measured. `capacity_per_s` and `asked_per_s`: streamed requests a second."""

    capacity_per_s: float
    asked_per_s: float
    alone: Felt = field(default_factory=Felt)
    beside: Felt = field(default_factory=Felt)
    batch_alone: Pace = field(default_factory=Pace)
    batch_beside: Pace = field(default_factory=Pace)

    @property
    def ratio(self) -> float:
        return self.beside.at(0.95) / self.alone.at(0.95)

    @property
    def pace_left(self) -> float:
        return self.batch_beside.per_s / self.batch_alone.per_s


class Bench:
    """The deployment, and what is asked of it."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        trust = ssl.create_default_context(cafile=str(deployment.state_dir / "tls" / "ca.crt"))
        self._client = httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{deployment.port}",
            verify=trust,
            headers={"authorization": f"Bearer {deployment.key}"},
            timeout=120.0,
            trust_env=False,
        )

    def question(self, chance: random.Random) -> dict[str, Any]:
        """Some forty words that were not asked before, so that no cache answers."""
        text = " ".join(chance.choice(WORDS) for _ in range(40))
        asked = {"model": self.deployment.service, "messages": [{"role": "user", "content": f"Go on: {text}"}]}
        return {**asked, "max_tokens": TOKENS, "temperature": 0}

    async def ask(self, chance: random.Random, into: Felt) -> None:
        """One streamed request."""
        began, first = time.monotonic(), None
        question = {**self.question(chance), "stream": True}
        try:
            async with self._client.stream("POST", "/v1/chat/completions", json=question) as answer:
                async for line in answer.aiter_lines():
                    if first is None and '"content":"' in line.replace(" ", "") and '"content":""' not in line:
                        first = time.monotonic()
                status = answer.status_code
        except httpx.HTTPError as error:
            into.failed.append(f"{type(error).__name__}: {error}")
            return
        if status != 200 or first is None:
            into.failed.append(f"status {status}")
        else:
            into.ttft_s.append(first - began)

    async def capacity(self, seconds: float) -> float:
        """Requests a second of clients that ask one after the other."""
        felt, ends, chance = Felt(), time.monotonic() + seconds, random.Random(1)

        async def one() -> None:
            while time.monotonic() < ends:
                await self.ask(chance, felt)

        began = time.monotonic()
        await asyncio.gather(*(one() for _ in range(CLIENTS)))
        return len(felt.ttft_s) / (time.monotonic() - began)

    async def interactive(self, per_s: float, seconds: float, seed: int, into: Felt) -> None:
        """Requests at random moments, whether earlier ones are answered or not."""
        moments, chance = random.Random(seed), random.Random(time.time_ns())
        asking: list[asyncio.Task[None]] = []
        ends = time.monotonic() + seconds
        while (wait_s := moments.expovariate(per_s)) < ends - time.monotonic():
            await asyncio.sleep(wait_s)
            asking.append(asyncio.create_task(self.ask(chance, into)))
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
        await asyncio.gather(*asking)

    def drain(self, on: bool) -> None:
        """Nothing of the queue begins, or it goes on; and it is so."""
        self.deployment.run("tasks", "drain", *(() if on else ("--off",)), "--json")
        wanted = (lambda running: running == 0) if on else (lambda running: running > 0)
        wait_for(lambda: wanted(self._count("state = 'leased'")), 60, "the queue is as it should be")
        time.sleep(SETTLE_S)

    def leave_batch(self) -> None:
        """A batch with more lines than will be done."""
        chance = random.Random(2)
        lines = (
            {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": self.question(chance)}
            for n in range(LINES)
        )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with self.deployment.client() as client:
            sent = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("b.jsonl", text)})
            asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": sent.json()["id"]}
            made = client.post("/v1/batches", json=asked)
            assert made.status_code == 200, made.text
            wait_for(
                lambda: client.get(f"/v1/batches/{made.json()['id']}").json()["status"] == "in_progress", 120, "read"
            )

    async def batch(self, into: Pace, beside: Callable[[], Awaitable[None]]) -> None:
        """How many lines are done while something else happens."""
        before, began = self._count("state = 'done'"), time.monotonic()
        await beside()
        into.lines += self._count("state = 'done'") - before
        into.seconds += time.monotonic() - began

    def _count(self, condition: str) -> int:
        with closing(sqlite3.connect(f"file:{self.deployment.state_dir}/tasks/tasks.db?mode=ro", uri=True)) as ledger:
            return int(ledger.execute(f"SELECT count(*) FROM tasks WHERE {condition}").fetchone()[0])


async def measure(bench: Bench, seconds: float, rounds: int) -> Result:
    say.print("capacity")
    await bench.capacity(SETTLE_S)  # warm
    capacity = await bench.capacity(min(CAPACITY_S, seconds))
    result = Result(capacity_per_s=capacity, asked_per_s=SHARE * capacity)
    await asyncio.to_thread(bench.drain, True)
    say.print(f"{capacity:.2f} requests/s; a batch of {LINES:,} lines is left")
    await asyncio.to_thread(bench.leave_batch)
    for number in range(rounds):

        async def load(into: Felt, seed: int = number) -> None:
            await bench.interactive(result.asked_per_s, seconds, seed, into)

        say.print(f"round {number + 1}: interactive alone")
        await load(result.alone)
        await asyncio.to_thread(bench.drain, False)
        say.print(f"round {number + 1}: both")
        await bench.batch(result.batch_beside, lambda: load(result.beside))
        say.print(f"round {number + 1}: the batch alone")
        await asyncio.sleep(ALONE_AFTER_S)
        await bench.batch(result.batch_alone, lambda: asyncio.sleep(seconds))
        await asyncio.to_thread(bench.drain, True)
    return result


def shown(result: Result) -> Table:
    table = Table(box=None, title=f"interactive at {result.asked_per_s:.2f} of {result.capacity_per_s:.2f} requests/s")
    for name in ("", "requests", "failed", "first token p50", "p95", "batch lines/s"):
        table.add_column(name, justify="right" if name else "left")
    for name, felt, pace in (
        ("interactive alone", result.alone, None),
        ("interactive and batch", result.beside, result.batch_beside),
        ("batch alone", None, result.batch_alone),
    ):
        told = ["", "", "", ""]
        if felt is not None:
            told = [str(len(felt.ttft_s)), str(len(felt.failed)), *(f"{1000 * felt.at(p):.0f} ms" for p in (0.5, 0.95))]
        table.add_row(name, *told, "" if pace is None else f"{pace.per_s:.2f}")
    return table


def verdict(result: Result) -> tuple[bool, str]:
    well = result.ratio <= MOST_RATIO and result.pace_left >= LEAST_PACE and not result.beside.failed
    return well, (
        f"p95 of the first token beside the batch: {result.ratio:.2f} times that without (aim: at most {MOST_RATIO}); "
        f"the batch beside: {100 * result.pace_left:.0f} % of its pace alone (aim: at least {100 * LEAST_PACE:.0f} %); "
        f"load average {os.getloadavg()[0]:.1f}: {'met' if well else 'missed'}"
    )


def main() -> int:
    """0: both aims are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each phase; default 40")
    parser.add_argument("--rounds", type=int, default=2, help="default 2")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gonogo-beside-"))
    deployment = Deployment(folder / "state", free_port())
    try:
        say.print("gonogo up, two replicas")
        deployment.up("--replicas", "2")
        result = asyncio.run(measure(Bench(deployment), given.seconds, given.rounds))
    finally:
        deployment.down()
        shutil.rmtree(folder, ignore_errors=True)
    well, told = verdict(result)
    if given.json:
        print(json.dumps({**asdict(result), "ratio": result.ratio, "pace_left": result.pace_left, "met": well}))
    else:
        Console().print(shown(result))
        Console().print(told, soft_wrap=True)
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
