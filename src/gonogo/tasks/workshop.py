"""A worker process's own: the queue, the keys that act for owners, the pace that the last drain ended with."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import Callable

from gonogo.store import open_store
from gonogo.tasks import pace
from gonogo.tasks.delegates import SEEN_AFTER_S, Delegates, OwnerGone
from gonogo.tasks.door import Door
from gonogo.tasks.judge import Answer
from gonogo.tasks.leases import Machine
from gonogo.tasks.places import Queue
from gonogo.tasks.work import Bench, drain


class Workshop:
    """Works through the ledger whenever it is asked to. `stop` says whether to end soon."""

    def __init__(self, queue: Queue, stop: Callable[[], bool]) -> None:
        self._queue, self._stop = queue, stop
        self._pace = pace.Pace()
        self._delegates = Delegates(
            lambda: open_store(queue.paths.database, clock=time.time), queue.database, queue.bodies, time.time
        )

    def drain(self) -> int:
        """Do what waits; how many tasks ended. Raises `StoreError`s, `KeyFileError`."""
        return asyncio.run(self._drain())

    async def _drain(self) -> int:
        paths = self._queue.paths
        async with Door(paths.front_socket) as door:

            async def ask(path: str, body: bytes, owner: str) -> Answer:
                return await self._ask(door, path, body, owner)

            bench = Bench(
                database=self._queue.database,
                bodies=self._queue.bodies,
                ask=ask,
                machine=Machine.this(),
                stop=self._stop,
                name=socket.gethostname(),
            )
            drained = await drain(bench, self._pace)
        self._pace = drained.pace
        return drained.ended

    async def _ask(self, door: Door, path: str, body: bytes, owner: str) -> Answer:
        try:
            delegate = self._delegates.of(owner)
        except OwnerGone:
            return Answer(status=401, code="owner_gone")
        answer = await door.post(path, body, delegate.text)
        if answer.status == 401 and time.time() < delegate.made_at + SEEN_AFTER_S:
            return replace(answer, status=503, retry_after_s=0.2)  # policy has not seen the new key yet
        return answer
