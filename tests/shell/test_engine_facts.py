"""Control tells through the real Valkey which engines are full, and policy servers believe it while it is fresh."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from gonogo.control.engine_facts import tell_for_ever
from gonogo.control.watch import Seen
from gonogo.engines.model import Progress
from gonogo.facts.part import COUNTERS_DB
from gonogo.gateway.policy.engine_facts import KEY, EngineWatch
from gonogo.gateway.policy.replicas import ReplicaSeen
from gonogo.gateway.policy.shared import scripts
from gonogo.gateway.policy.valkey import Valkey
from tests.shell.valkey_parts import Valkey as Server
from tests.shell.valkey_parts import reads

ENDPOINT = "127.0.0.1:9001"


@dataclass
class Process:
    port: int = 9001


@dataclass
class Watch:
    """As control's: an engine whose counters say what the test says, read just now."""

    cache_used: float = 0.1
    process: Process = field(default_factory=Process)

    @property
    def seen(self) -> Seen:
        progress = Progress(
            tokens_generated=1, prompt_tokens=1, requests_running=1, requests_waiting=0, cache_used=self.cache_used
        )
        return Seen(pulse=None, progress=progress, progress_at=time.monotonic())


def test_a_full_cache_is_known_within_seconds_and_forgotten_when_nobody_tells_any_more() -> None:
    async def story(server: Server) -> None:
        watch: Any = Watch()
        telling = asyncio.create_task(tell_for_ever(server.socket, lambda: [watch]))
        valkey = Valkey(server.socket, COUNTERS_DB, scripts(), tell=lambda _: None)
        await valkey.start()
        seen = (ReplicaSeen(endpoint=ENDPOINT, healthy=True, active=0),)
        engines = EngineWatch(valkey, lambda _: seen, time.time)
        looking = asyncio.create_task(engines.run())
        try:
            await asyncio.sleep(1.2)
            assert server.client().get(KEY) is None, "an engine that is not full is not written about"
            assert engines.of("svc/1") == seen
            watch.cache_used = 0.99
            await reads(lambda: (engines.of("svc/1") or seen)[0].cache_used == 0.99)
            telling.cancel()  # as control when it is killed
            await reads(lambda: engines.of("svc/1") == seen)
            server.end(signal.SIGKILL)
            await engines.look()
            assert engines.of("svc/1") == seen
        finally:
            telling.cancel()
            looking.cancel()
            await valkey.stop()

    with Server() as server:
        asyncio.run(story(server))
