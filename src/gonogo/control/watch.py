"""Watches one replica: looks each 0.4 s (sooner while it loads or is silent), and notices its end at once.

Asks it for a token when it is new or idle. Looking only: the verdict is `gonogo.plan.health`'s.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace
from typing import Callable

import httpx

from gonogo.engines.model import Engine, Progress
from gonogo.facts.replica import Health, ReplicaName
from gonogo.plan import health
from gonogo.runtimes.local import LocalRuntime, Process, Pulse
from gonogo.runtimes.look import shares_port

LOOK_EVERY_S = 0.4
LOOK_LIMIT_S = 0.7
METRICS_LIMIT_S = 2.0
GENERATE_LIMIT_S = 30.0
IDLE_PROBE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The last look in numbers. `progress_at`: when the engine's counters were read (monotonic seconds)."""

    pulse: Pulse | None
    progress: Progress | None
    progress_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """How a watch began: `adopted` from an earlier control process, which may have told `ready_after_s`; or started by
    this one, which gives it `load_limit_s` to its first token. `stuck_s`: so many seconds may it be busy without a
    token or prompt token more.
    """

    load_limit_s: float
    stuck_s: float = health.STUCK_S
    adopted: bool = False
    ready_after_s: float | None = None


class ReplicaWatch:
    """One task per replica. `on_change` is called when the verdict changes or the process ends."""

    def __init__(
        self, runtime: LocalRuntime, process: Process, engine: Engine, on_change: Callable[[], None], birth: Birth
    ) -> None:
        self.process = process
        self._runtime = runtime
        self._engine = engine
        self._on_change = on_change
        self._adopted = birth.adopted
        self._service = ReplicaName.parse(process.name).service
        self._port = process.port or 0
        self._base = f"http://127.0.0.1:{self._port}"
        self._shared = False
        self._parts: frozenset[int] | None = None
        self._born_at = time.monotonic()
        self._history = health.History(born_at=self._born_at, load_limit_s=birth.load_limit_s, stuck_s=birth.stuck_s)
        self._seen = Seen(pulse=None, progress=None)
        self._verdict: Health | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._descriptor: int | None = None
        self.ready_at: float | None = None
        self.ready_after_s = birth.ready_after_s

    def begin(self) -> None:
        """Start looking. Needs a running event loop."""
        self._descriptor = self._runtime.open_watch(self.process.handle)
        if self._descriptor is not None:
            asyncio.get_running_loop().add_reader(self._descriptor, self._ended)
        for work in (self._look_for_ever(), self._read_metrics_for_ever(), self._generate_when_idle()):
            self._tasks.append(asyncio.create_task(work))

    def end(self) -> None:
        """Stop looking."""
        for task in self._tasks:
            task.cancel()
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def verdict(self) -> Health | None:
        """None until known: an adopted replica that has not generated for us yet is unknown, not "starting"."""
        return self._verdict

    @property
    def seen(self) -> Seen:
        return self._seen

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def shared(self) -> bool:
        """Whether another program listens on its port too."""
        return self._shared

    @property
    def loading(self) -> bool:
        """Whether it has not generated a token yet, as far as this control process saw."""
        return self._history.generated_at is None and not self._adopted

    @property
    def broken(self) -> bool:
        """Whether it said of itself, last time, that it is not well."""
        return self._history.broken > 0

    def _ended(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._set(Health.DEAD)

    def _set(self, verdict: Health | None) -> None:
        if verdict is Health.READY and self.ready_at is None:
            self.ready_at = time.monotonic()
            if not self._adopted:
                self.ready_after_s = self.ready_at - self._born_at
        if verdict is not self._verdict:
            self._verdict = verdict
            self._on_change()

    async def _look_for_ever(self) -> None:
        async with httpx.AsyncClient(timeout=LOOK_LIMIT_S, trust_env=False) as client:
            while self._verdict is not Health.DEAD:
                status = await self._health(client)
                answered = status == 200
                pulse = self._runtime.pulse(self.process.handle)
                if pulse is None:
                    self._set(Health.DEAD)
                    return
                progress = self._seen.progress
                self._seen = replace(self._seen, pulse=pulse)
                look = health.Look(
                    at=time.monotonic(),
                    answered=answered,
                    broken=status == 503 or self._lost(pulse),
                    shared=self._shared,
                    stopped=pulse.state in ("T", "t"),
                    cpu_s=pulse.cpu_s,
                    tokens=None if progress is None else progress.work,
                    busy=None if progress is None else progress.requests_running > 0,
                )
                self._history = health.add(self._history, look)
                verdict = health.judge(self._history)
                unknown = self._adopted and verdict is Health.STARTING
                self._set(None if unknown else verdict)
                calm = answered and self._history.generated_at is not None
                await asyncio.sleep(LOOK_EVERY_S if calm else LOOK_EVERY_S / 4)

    def _lost(self, pulse: Pulse) -> bool:
        """Whether one of the processes is gone that the engine had when it first generated."""
        part = self._engine.part
        if part is None or self._history.generated_at is None:
            return False
        if self._parts is None:
            self._parts = frozenset(pid for pid, name in pulse.parts if name.startswith(part))
        return not self._parts <= {pid for pid, _ in pulse.parts}

    async def _health(self, client: httpx.AsyncClient) -> int | None:
        """The status of /health; None: no answer in time."""
        try:
            return (await client.get(f"{self._base}/health")).status_code
        except httpx.HTTPError:
            return None

    async def _read_metrics_for_ever(self) -> None:
        async with httpx.AsyncClient(timeout=METRICS_LIMIT_S, trust_env=False) as client:
            while True:
                try:
                    answer = await client.get(f"{self._base}/metrics")
                    progress = self._engine.progress(answer.text) if answer.status_code == 200 else None
                except httpx.HTTPError:
                    progress = None
                if progress is not None:
                    self._seen = replace(self._seen, progress=progress, progress_at=time.monotonic())
                    if self._adopted and progress.tokens_generated > 0 and self._history.generated_at is None:
                        self._history = health.generated(self._history, time.monotonic())
                await asyncio.sleep(1.0)

    async def _generate_when_idle(self) -> None:
        """One token at once when new, then one each 30 s while nobody else asks."""
        async with httpx.AsyncClient(timeout=GENERATE_LIMIT_S, trust_env=False) as client:
            last_tokens = -1
            while True:
                progress = self._seen.progress
                tokens = 0 if progress is None else progress.tokens_generated
                idle = progress is None or (progress.requests_running == 0 and tokens == last_tokens)
                if self._history.generated_at is None or idle:
                    if await self._generates(client) and not self._shares_port():
                        self._history = health.generated(self._history, time.monotonic())
                    elif self._history.generated_at is None:
                        await asyncio.sleep(0.1)
                        continue
                last_tokens = tokens
                await asyncio.sleep(IDLE_PROBE_EVERY_S)

    def _shares_port(self) -> bool:
        """Looked for when somebody answers on the port: it may not be ours."""
        self._shared = self._shared or shares_port(self._runtime.family(self.process.handle), self._port)
        return self._shared

    async def _generates(self, client: httpx.AsyncClient) -> bool:
        question = {"model": self._service, "prompt": "1 2 3", "max_tokens": 1, "temperature": 0}
        try:
            answer = await client.post(f"{self._base}/v1/completions", json=question)
            return answer.status_code == 200 and int(answer.json()["usage"]["completion_tokens"]) >= 1
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False
