"""What a worker does when the bell rings: it takes tasks, asks the gateway, keeps the answers, until none is left.

Batches are formed under a budget of tokens (`gonogo.plan.batching`), and begun at the gateway's pace (`pace`). Whatever
ends this process, the tasks that it held wait again: an answer counts only while the lease holds (`leases`).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from typing import Awaitable, Callable, Mapping, Sequence, Union

from gonogo.plan.batching import Batch, DynamicBatchScheduler, Priority, Waiting
from gonogo.security.keyring import KeyFileError
from gonogo.security.sealing import SealError
from gonogo.tasks import leases, pace
from gonogo.tasks.bodies import Bodies
from gonogo.tasks.database import Database
from gonogo.tasks.judge import Answer, Means, later_s, means, words
from gonogo.tasks.leases import LeaseLost, Machine
from gonogo.tasks.nouns import OF_BATCH, SINGLE, Ended, Postponed, State, Taken

DRAIN_S = 30.0
"""How long one ring is worked for; whatever is left is rung for again."""
RENEW_EVERY_S = 5.0
LOOK_EVERY_S = 0.5
GATHER_S = 0.01

Ask = Callable[[str, bytes, str], Awaitable[Answer]]
"""Path, body, the owner's key id → the gateway's answer."""
Fate = Union[Ended, Postponed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a worker works with. `stop` says whether to end soon; `wall` gives Unix seconds."""

    database: Database
    bodies: Bodies
    ask: Ask
    machine: Machine
    stop: Callable[[], bool] = field(default=lambda: False)
    wall: Callable[[], float] = time.time
    name: str = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """How many tasks ended in one drain, and the pace to begin the next one with."""

    ended: int
    pace: pace.Pace


async def drain(bench: Bench, begin_with: pace.Pace, limit_s: float = DRAIN_S) -> Drained:
    """Work for `limit_s` at most, and not longer than there is something to do. Raises `StoreError`s."""
    with bench.database.writing() as c:
        lease = leases.begin(c, bench.machine, bench.name, os.getpid())
    shift = _Shift(bench, lease, begin_with)
    try:
        await shift.run(limit_s)
    except LeaseLost:
        pass  # we were taken for dead: others do it now
    finally:
        await shift.drop()
        with bench.database.writing() as c:
            leases.end(c, lease)
    return Drained(ended=shift.ended, pace=shift.pace)


class _Shift:
    """One drain: what waits in its hands, what is under way."""

    def __init__(self, bench: Bench, lease: int, begin_with: pace.Pace) -> None:
        self._bench, self._lease = bench, lease
        self._scheduler = DynamicBatchScheduler(max_tokens=pace.TOKENS)
        self.pace = begin_with
        self._waiting: dict[str, Taken] = {}
        self._running: dict[asyncio.Task[Fate], Taken] = {}
        self._renewed_at = bench.machine.clock()
        self.ended = 0

    async def run(self, limit_s: float) -> None:
        until = self._bench.machine.clock() + limit_s
        while not self._bench.stop():
            now = self._bench.machine.clock()
            taking = now < until
            if taking:
                self._take(now)
                self._begin(now)
            if not self._running and (not taking or not self._waiting):
                return
            await self._wait()
            self._keep()
            self._renew()

    async def drop(self) -> None:
        """What is under way is given up; its tasks wait again."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _take(self, now: float) -> None:
        """As many in hand as may be under way: more would only be kept from other workers."""
        most = pace.room(self.pace, len(self._running) + len(self._waiting), now)
        if most == 0:
            return
        alone = not self._running and not self._waiting
        with self._bench.database.writing() as c:
            taken = leases.take(c, self._lease, most, self._bench.wall(), ranks=(SINGLE, OF_BATCH), alone=alone)
        for one in taken:
            waiting = Waiting(
                request_id=str(one.task.number),
                prompt_tokens=min(one.task.tokens, pace.TOKENS),  # a guess: one that is too large is let to the gateway
                output_tokens=0,
                key=one.task.owner,
                priority=Priority.BATCH if one.task.batch_id else Priority.INTERACTIVE,
                since=now,
            )
            self._waiting[waiting.request_id] = one
            self._scheduler.add(waiting)

    def _begin(self, now: float) -> None:
        tokens = pace.TOKENS - sum(min(one.task.tokens, pace.TOKENS) for one in self._running.values())
        batch = Batch()
        if tokens > 0:
            batch = self._scheduler.take(now, tokens=tokens, most=pace.room(self.pace, len(self._running), now))
        for request in batch.requests:
            taken = self._waiting.pop(request.request_id)
            self._running[asyncio.create_task(self._ask(taken))] = taken

    async def _wait(self) -> None:
        if not self._running:
            await asyncio.sleep(LOOK_EVERY_S / 10)
            return
        await asyncio.wait(self._running, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        # Answers that come together are kept by one flush of the disk.
        await asyncio.sleep(GATHER_S)

    def _keep(self) -> None:
        fates = [(one, one.result()) for one in self._running if one.done()]
        if not fates:
            return
        now = self._bench.wall()
        with self._bench.database.writing() as c:
            for _, fate in fates:
                if isinstance(fate, Ended):
                    self.ended += leases.finish(c, self._lease, fate, now)
                else:
                    leases.postpone(c, self._lease, fate, now)
        for one, _ in fates:
            del self._running[one]

    def _renew(self) -> None:
        now = self._bench.machine.clock()
        if now - self._renewed_at < RENEW_EVERY_S:
            return
        self._renewed_at = now
        with self._bench.database.writing() as c:
            held = leases.renew(c, self._bench.machine, self._lease)
        for one in [one for one, taken in self._running.items() if taken.task.number not in held]:
            one.cancel()  # it was cancelled, or its window ended
            del self._running[one]

    async def _ask(self, taken: Taken) -> Fate:
        task = taken.task
        try:
            asked = self._bench.bodies.open(task.task_id, "prompt", taken.prompt)
        except (SealError, KeyFileError) as error:
            return _ended(task.number, State.DEAD, None, reason="cannot_be_opened", message=str(error))
        answer = await self._bench.ask(asked["url"], json.dumps(asked["body"]).encode(), task.owner)
        return self._fate(taken, answer)

    def _fate(self, taken: Taken, answer: Answer) -> Fate:
        task, now = taken.task, self._bench.machine.clock()
        meaning = means(answer)
        reason, message = words(answer)
        if meaning in (Means.LATER, Means.AGAIN):
            wait_s = later_s(answer, task.attempts)
            self.pace = pace.refused(self.pace, now, wait_s) if meaning is Means.LATER else self.pace
            return Postponed(
                number=task.number,
                not_before=self._bench.wall() + wait_s,
                counts=meaning is Means.AGAIN,
                reason=reason,
                message=message,
            )
        self.pace = pace.answered(self.pace)
        result = {"status": answer.status, "request_id": answer.request_id, "body": _body(answer.body)}
        sealed = self._bench.bodies.seal(task.task_id, "result", result)
        if meaning is Means.DONE:
            return Ended(number=task.number, state=State.DONE, status=answer.status, result=sealed)
        return _ended(task.number, State.FAILED, sealed, status=answer.status, reason=reason, message=message)


def _ended(
    number: int, state: State, result: bytes | None, *, reason: str, message: str, status: int | None = None
) -> Ended:
    return Ended(number=number, state=state, status=status, result=result, reason=reason, message=message)


def _body(body: bytes) -> Union[Mapping[str, object], Sequence[object], str]:
    """The answer as JSON where it is JSON, else its text."""
    try:
        read: Mapping[str, object] = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
    return read
