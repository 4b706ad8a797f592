"""Two replicas on paper, in a time of their own: the same ways of feeding them, the same numbers on every machine.

For tuning, and for a test, where a machine is too busy to measure. Each replica is stepped as llama.cpp steps: one
token for each slot that answers, and prompt tokens as far as a batch has room, all of it in turn on one thread. Ours is
the real admission and picker of two policy servers, which hear of an end as late as they do from the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Callable, Coroutine, Sequence

from gonogo.gateway.policy.admission import Admission
from gonogo.gateway.policy.counters import End
from gonogo.gateway.policy.gate import Admitted
from gonogo.gateway.policy.ledger import MemoryLedger
from gonogo.gateway.policy.placing import Clocks
from gonogo.gateway.policy.replicas import ReplicaSeen
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.rules import ServiceRules
from gonogo.security.keys import KeyRow
from replaying.result import REFUSED, Outcome, Slo
from replaying.trace import BATCH_KEY, Arrival

STEP_S, PROMPT_TOKEN_S, ANSWER_TOKEN_S = 0.006, 0.005, 0.012
"""Of one thread of the machine these were measured on, with SmolLM2-135M: 200 tokens of prompts a second, or 55 of one
answer."""
HEARD_AFTER_S = 0.075
"""The log is written to the file every 50 ms and read every 50 ms."""


class PaperLoop(asyncio.SelectorEventLoop):
    """Whoever sleeps is woken at once, and it is that much later."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


@dataclass
class _Task:
    arrival: Arrival
    left: int
    began_s: float
    moments: list[float] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class PaperEngine:
    """One replica: so many slots, so many tokens in a step at most."""

    def __init__(self, slots: int, batch: int) -> None:
        self._slots, self._batch = slots, batch
        self._waiting: deque[_Task] = deque()
        self._running: list[_Task] = []
        self._awake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.process = asyncio.create_task(self._run())

    @property
    def active(self) -> int:
        return len(self._waiting) + len(self._running)

    async def serve(self, arrival: Arrival) -> Outcome:
        """As `Client.send`."""
        task = _Task(arrival, arrival.prompt_tokens, self._loop.time())
        self._waiting.append(task)
        self._awake.set()
        await task.ended.wait()
        moments = [moment - arrival.at_s for moment in task.moments]
        return Outcome(
            arrival=arrival,
            status=200,
            ttft_s=moments[0],
            gaps_s=tuple(later - earlier for earlier, later in pairwise(moments)),
            tokens=len(moments),
            done=True,
            ended_s=moments[-1],
        )

    async def _run(self) -> None:
        while True:
            while self._waiting and len(self._running) < self._slots:
                self._running.append(self._waiting.popleft())
            if not self._running:
                self._awake.clear()
                await self._awake.wait()
                continue
            await self._step()

    async def _step(self) -> None:
        answering = [task for task in self._running if task.left == 0]
        room, prompts = self._batch - len(answering), 0
        finished = []
        for task in self._running:
            took = min(task.left, room)
            if took:
                task.left, room, prompts = task.left - took, room - took, prompts + took
                finished += [task] if task.left == 0 else []
        await asyncio.sleep(STEP_S + PROMPT_TOKEN_S * prompts + ANSWER_TOKEN_S * len(answering))
        for task in (*answering, *finished):
            task.moments.append(self._loop.time())
            if len(task.moments) == task.arrival.answer_tokens:
                self._running.remove(task)
                task.ended.set()


def on_paper(way: Callable[[], Coroutine[Any, Any, list[Outcome]]]) -> list[Outcome]:
    """Run it in paper's time."""
    loop = PaperLoop()
    try:
        return loop.run_until_complete(way())
    finally:
        loop.close()


async def round_robin(arrivals: Sequence[Arrival]) -> list[Outcome]:
    """With llama.cpp's own defaults: four slots, 2,048 tokens in a batch."""
    engines = [PaperEngine(4, 2048) for _ in range(2)]

    async def one(arrival: Arrival) -> Outcome:
        await asyncio.sleep(arrival.at_s)
        return await engines[arrival.number % 2].serve(arrival)

    return await _all(engines, [one(arrival) for arrival in arrivals])


async def ours(arrivals: Sequence[Arrival], slo: Slo, slots: int = 2) -> list[Outcome]:
    """Two policy servers, one ledger, two replicas of so many slots, 128 tokens in a batch."""
    engines = {f"127.0.0.1:{9001 + number}": PaperEngine(slots, 128) for number in range(2)}
    time = asyncio.get_running_loop().time
    rules = ServiceRules(
        context_tokens=2048, concurrent_requests=2 * slots, replicas=2, ttft_ms=round(slo.ttft_s * 1000)
    )
    ledger, clocks = MemoryLedger(time), Clocks(monotonic=time, wall=time)

    def seen(_: str) -> list[ReplicaSeen]:
        return [ReplicaSeen(endpoint=name, healthy=True, active=each.active) for name, each in engines.items()]

    servers = [Admission(ledger, seen, lambda _: rules, clocks) for _ in range(2)]
    ticking = [asyncio.create_task(server.run()) for server in servers]
    hearing: set[asyncio.Task[None]] = set()

    async def hear(name: str) -> None:
        await asyncio.sleep(HEARD_AFTER_S)
        for server in servers:
            await server.heard([End(request_id=name, tokens=None)])

    async def one(arrival: Arrival) -> Outcome:
        await asyncio.sleep(arrival.at_s)
        request = _request(arrival)
        answer = await servers[arrival.number % 2].admit(request, _key(arrival.key), "replay/1")
        if not isinstance(answer, Admitted):
            return Outcome(arrival=arrival, status=REFUSED, ended_s=time() - arrival.at_s)
        outcome = await engines[answer.endpoints[0]].serve(arrival)
        task = asyncio.create_task(hear(request.request_id))
        hearing.add(task)
        task.add_done_callback(hearing.discard)
        return outcome

    outcomes = await _all(list(engines.values()), [one(arrival) for arrival in arrivals])
    for task in (*ticking, *hearing):
        task.cancel()
    await asyncio.gather(*ticking, *hearing, return_exceptions=True)
    return outcomes


async def _all(engines: Sequence[PaperEngine], requests: Sequence[Any]) -> list[Outcome]:
    outcomes = list(await asyncio.gather(*requests))
    for engine in engines:
        engine.process.cancel()
    return outcomes


def _request(arrival: Arrival) -> Request:
    return Request(
        path="/v1/completions",
        method="POST",
        request_id=str(arrival.number),
        model="replay",
        stream=True,
        n=1,
        max_tokens=arrival.answer_tokens,
        prompt_tokens=arrival.prompt_tokens,
        expected_tokens=arrival.answer_tokens,
        pictures=0,
        prefix=(),
        continuable=True,
        wants_usage=True,
    )


def _key(name: str) -> KeyRow:
    return KeyRow(
        key_id=name,
        secret_hash="",
        name=name,
        service=None,
        revision=None,
        scopes=("inference",),
        created_at=0.0,
        expires_at=None,
        revoked_at=None,
        priority="batch" if name == BATCH_KEY else "interactive",
    )
