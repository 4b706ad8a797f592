"""The ways of feeding two replicas that are compared: what a client without a gateway does, and the gateway."""

from __future__ import annotations

import asyncio
import time
from typing import Awaitable, Callable, Sequence

import aiohttp

from replaying.client import Client, Target
from replaying.result import Outcome
from replaying.trace import Arrival

Feed = Callable[[Client, Sequence[Target], Sequence[Arrival]], Awaitable[list[Outcome]]]
BATCH, BATCH_WAIT_S = 4, 0.5


async def replay(feed: Feed, targets: Sequence[Target], arrivals: Sequence[Arrival]) -> list[Outcome]:
    """All of the trace, by this way."""
    timeout = aiohttp.ClientTimeout(total=None)
    # Engines close a connection that was idle for 5 s; a request sent into that moment would be lost.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        return await feed(Client(session, time.monotonic()), targets, arrivals)


async def as_they_come(client: Client, targets: Sequence[Target], arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Each at once, to one target after the other: round robin, or the gateway where there is one target."""

    async def one(arrival: Arrival) -> Outcome:
        await _at(client, arrival)
        return await client.send(targets[arrival.number % len(targets)], arrival)

    return list(await asyncio.gather(*map(one, arrivals)))


async def one_at_a_time(client: Client, targets: Sequence[Target], arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Each replica has one request, and the others wait for it in the order in which they came."""
    return await _from_a_queue(client, targets, arrivals, 1)


async def fixed_batches(client: Client, targets: Sequence[Target], arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Each replica gets four requests, or those of half a second, and the next four when all of these are answered."""
    return await _from_a_queue(client, targets, arrivals, BATCH)


async def _from_a_queue(
    client: Client, targets: Sequence[Target], arrivals: Sequence[Arrival], size: int
) -> list[Outcome]:
    queue: asyncio.Queue[Arrival | None] = asyncio.Queue()
    outcomes: list[Outcome] = []

    async def work(target: Target) -> None:
        while (batch := await _batch(queue, size)) is not None:
            outcomes.extend(await asyncio.gather(*(client.send(target, each) for each in batch)))

    workers = [asyncio.create_task(work(target)) for target in targets]
    for arrival in arrivals:
        await _at(client, arrival)
        queue.put_nowait(arrival)
    queue.put_nowait(None)
    await asyncio.gather(*workers)
    return outcomes


async def _batch(queue: asyncio.Queue[Arrival | None], size: int) -> list[Arrival] | None:
    """The next requests; None: there will be none."""
    batch: list[Arrival] = []
    ends: float | None = None
    while len(batch) < size:
        try:
            arrival = await asyncio.wait_for(queue.get(), None if ends is None else max(0.0, ends - time.monotonic()))
        except asyncio.TimeoutError:
            break
        if arrival is None:
            queue.put_nowait(None)  # for the other workers
            return batch or None
        batch.append(arrival)
        ends = ends or time.monotonic() + BATCH_WAIT_S
    return batch


async def _at(client: Client, arrival: Arrival) -> None:
    await asyncio.sleep(max(0.0, client.began + arrival.at_s - time.monotonic()))
