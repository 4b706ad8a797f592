"""Control's look at replicas that end while it looks: what they died of is read before the next one writes its log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from gonogo.control.deployment import Deployment, Memory
from gonogo.control.observe import Observer
from gonogo.control.watch import Birth, ReplicaWatch
from gonogo.engines.model import Launch
from gonogo.facts.replica import Health
from gonogo.facts.world import World
from gonogo.runtimes.local import LocalRuntime, Process
from gonogo.runtimes.paths import StatePaths
from gonogo.store import open_store
from tests.core.gpu_engines import adapter
from tests.free_ports import free_port

NAME = "svc/1/0"
PARTS = Path(__file__).with_name("engine_in_parts.py")
SAYS = "print('gonogo.runner: starting', flush=True); import signal; signal.pause()"
DIES = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit('gonogo.runner: EngineOutOfMemory: x')); "


def test_a_replica_that_ends_during_a_look_is_buried_in_it_with_its_own_reason(tmp_path: Path) -> None:
    paths = StatePaths.of(tmp_path / "state")
    log = paths.log("replica", NAME)
    log.parent.mkdir(parents=True)
    runtime = LocalRuntime(paths.root)
    with contextlib.closing(open_store(paths.database, clock=time.time)) as store:
        deployment = Deployment(paths=paths, runtime=runtime, store=store, epoch=1, memory=Memory())

        async def story() -> tuple[World, World]:
            observer = Observer(deployment, lambda: None, lambda: None)
            launch = Launch(command=(sys.executable, "-c", DIES + SAYS), environment={}, niceness=0)
            process = runtime.start(launch, ("replica", NAME, 1), log)
            observer.watch(process, adopted=False)
            await until(lambda: "starting" in log.read_text())
            look, before = observer.host.look, await observer.observe(())

            def while_it_dies(*asked: Any) -> Any:
                os.kill(process.pid, signal.SIGTERM)
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                return look(*asked)

            observer.host.look = while_it_dies  # type: ignore[method-assign]
            after = await observer.observe(())
            for watch in deployment.memory.watches.values():
                watch.end()
            return before, after

        before, after = asyncio.run(story())
    assert [str(one.name) for one in before.replicas] == [NAME] and not before.deaths
    assert after.replicas == ()
    assert after.deaths[NAME].why == "EngineOutOfMemory", "not there yet, and another would start into its log"


@pytest.mark.parametrize(("name", "noticed"), [("VLLM::EngineCor", True), ("python", False)])
def test_an_engine_that_lost_one_of_its_processes_is_sick_whatever_its_server_says(
    tmp_path: Path, name: str, noticed: bool
) -> None:
    runtime, port = LocalRuntime(tmp_path), free_port()
    command = (sys.executable, str(PARTS), str(port))

    async def story() -> ReplicaWatch:
        launch = Launch(command=command, environment={}, niceness=0)
        process = runtime.start(launch, ("replica", NAME, port), tmp_path / "log")
        try:
            return await watched(process)
        finally:
            runtime.kill(process.handle)

    async def watched(process: Process) -> ReplicaWatch:
        watch = ReplicaWatch(runtime, process, adapter("vllm"), lambda: None, Birth(load_limit_s=60.0))
        watch.begin()
        try:
            await until(lambda: watch.verdict is Health.READY and len(parts(watch)) == 2)
            # without a name of its own it is no part of the engine: a compiler, say, that was needed for a moment
            lost = next(pid for pid, given in parts(watch).items() if given.startswith(name))
            os.kill(lost, signal.SIGKILL)
            await until(lambda: watch.verdict is Health.HUNG if noticed else lost not in parts(watch))
            seen = watch.seen.pulse
            await until(lambda: watch.seen.pulse is not seen)
        finally:
            watch.end()
        return watch

    watch = asyncio.run(story())
    assert (watch.verdict, watch.broken) == ((Health.HUNG, True) if noticed else (Health.READY, False))


def parts(watch: ReplicaWatch) -> dict[int, str]:
    return dict(watch.seen.pulse.parts) if watch.seen.pulse is not None else {}


async def until(happened: Callable[[], bool]) -> None:
    async def waited() -> None:
        while not happened():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(waited(), timeout=30)
