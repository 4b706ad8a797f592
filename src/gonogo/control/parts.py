"""Watches Envoy and the parts (`gonogo.facts.part`): a dead one is seen by its process, a hung one by its silence.

The verdict is `gonogo.plan.health`'s: unanswered looks while the kernel says "stopped", or while no CPU is used.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Awaitable, Callable, Iterable, Mapping

import grpc
import httpx

from gonogo.facts.part import POLICY, RELAY, RPC, TASKS, VALKEY, WORKER
from gonogo.facts.replica import Health
from gonogo.plan import health
from gonogo.runtimes.local import LocalRuntime, Process
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.unix_http import over_async

LOOK_EVERY_S = 1.0
ANSWER_LIMIT_S = 0.7
HEALTH_CHECK = "/grpc.health.v1.Health/Check"


class PartsWatch:
    """One task per process of the gateway and of each part. `on_change` is called when one hangs."""

    def __init__(self, paths: StatePaths, runtime: LocalRuntime, on_change: Callable[[], None]) -> None:
        self._paths = paths
        self._runtime = runtime
        self._on_change = on_change
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hung: set[str] = set()
        self._asks: Mapping[str, Callable[[Process], Awaitable[bool]]] = {
            "gateway": self._gateway_answers,
            POLICY: self._grpc_answers,
            RELAY: self._relay_answers,
            RPC: self._grpc_answers,
            VALKEY: self._valkey_answers,
            TASKS: self._http_answers,
            WORKER: self._hangs_up,
        }

    def follow(self, processes: Iterable[Process]) -> None:
        """Watch these processes, and no others any more."""
        wanted = {process.handle: process for process in processes if process.role in self._asks}
        for handle in [handle for handle in self._tasks if handle not in wanted]:
            self._tasks.pop(handle).cancel()
            self._hung.discard(handle)
        for handle, process in wanted.items():
            if handle not in self._tasks:
                self._tasks[handle] = asyncio.create_task(self._watch(process))

    def hung(self, handle: str) -> bool:
        """Whether this process is alive and does nothing."""
        return handle in self._hung

    async def _watch(self, process: Process) -> None:
        answers = self._asks[process.role]
        now = time.monotonic()
        history = health.generated(health.History(born_at=now, load_limit_s=0.0), now)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            answered = await answers(process)
            pulse = self._runtime.pulse(process.handle)
            if pulse is None:
                return
            stopped = pulse.state in ("T", "t")
            look = health.Look(
                at=time.monotonic(), answered=answered, stopped=stopped, cpu_s=pulse.cpu_s, tokens=None, busy=False
            )
            history = health.add(history, look)
            if health.judge(history) is Health.HUNG:
                self._hung.add(process.handle)
                self._on_change()

    async def _gateway_answers(self, _: Process) -> bool:
        return await _http_answers(self._paths.admin_socket, "/ready")  # 503 while it drains: an answer too

    async def _relay_answers(self, process: Process) -> bool:
        return await _http_answers(self._paths.part_socket(process.role, int(process.name)), "/healthz")

    async def _grpc_answers(self, process: Process) -> bool:
        socket = self._paths.part_socket(process.role, int(process.name))
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            check: Callable[..., Awaitable[bytes]] = channel.unary_unary(
                HEALTH_CHECK, request_serializer=None, response_deserializer=None
            )
            try:
                await check(b"", timeout=ANSWER_LIMIT_S)
            except grpc.aio.AioRpcError:
                return False
            return True

    async def _http_answers(self, process: Process) -> bool:
        """Any answer counts."""
        socket = self._paths.part_socket(process.role, int(process.name))
        transport = over_async(socket)
        try:
            async with httpx.AsyncClient(transport=transport, timeout=ANSWER_LIMIT_S) as client:
                await client.get("http://part/healthz")
                return True
        except httpx.HTTPError:
            return False

    async def _hangs_up(self, process: Process) -> bool:
        """It accepts a connection and closes it."""
        socket = self._paths.part_socket(process.role, int(process.name))
        try:
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                return await asyncio.wait_for(reader.read(1), ANSWER_LIMIT_S) == b""
            finally:
                writer.close()
        except (OSError, asyncio.TimeoutError):
            return False

    async def _valkey_answers(self, process: Process) -> bool:
        """Any answer to a PING counts: while it loads what it kept it says so, and is not hung."""
        socket = self._paths.part_socket(process.role, int(process.name))
        try:
            return await asyncio.wait_for(_ping(str(socket)), ANSWER_LIMIT_S)
        except (OSError, asyncio.TimeoutError):
            return False


async def _http_answers(socket: Path, path: str) -> bool:
    transport = over_async(socket)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=ANSWER_LIMIT_S) as client:
            await client.get(f"http://part{path}")
            return True
    except httpx.HTTPError:
        return False


async def _ping(socket: str) -> bool:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(b"PING\r\n")
        return bool(await reader.readline())
    finally:
        writer.close()
