"""What control sees of a replica that says it is broken, and of one whose port somebody else listens on too."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Callable, Coroutine, Iterator

import pytest

from gonogo.control.deployment import Deployment, Memory
from gonogo.control.observe import Observer
from gonogo.control.watch import ReplicaWatch
from gonogo.engines.model import Launch
from gonogo.facts.replica import FAILED_TO_START, Health
from gonogo.runtimes.local import LocalRuntime, Process
from gonogo.runtimes.paths import StatePaths
from gonogo.spec import Spec
from gonogo.spec.engine import EngineChoice
from gonogo.store import open_store
from tests.free_ports import free_port

NAME = "svc/1/0"
PROGRAM = Path(__file__).parent / "fake_replica.py"
UNKNOWN_ERROR = "Traceback (most recent call last):\n  File \"engine.py\", line 1\nTypeError: unhashable type: 'dict'\n"
ENDED_IN_CHILD = "(EngineCore pid=7) ERROR: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


class Scene:
    """A deployment that looks at one replica of vLLM, or of what stands for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = StatePaths.of(folder / "state")
        self.runtime = LocalRuntime(self.paths.root)
        self.port = free_port()
        self.paths.log("replica", NAME).parent.mkdir(parents=True)

    def start(self, runtime: LocalRuntime) -> Process:
        command = (sys.executable, str(PROGRAM), str(self.port), str(self.folder))
        launch = Launch(command=command, environment={}, niceness=0)
        return runtime.start(launch, ("replica", NAME, self.port), self.paths.log("replica", NAME))

    def play(self, story: Callable[[Observer, ReplicaWatch], Coroutine[None, None, None]]) -> None:
        """Watch a replica that was just started, until the story ends."""
        with contextlib.closing(open_store(self.paths.database, clock=time.time)) as store:
            epoch = store.acquire_lease("test")
            with store.change(epoch=epoch, actor="control", principal="test") as change:
                change.add_revision(Spec(service="svc", model="m", engine=EngineChoice(name="vllm-cpu")))
            deployment = Deployment(paths=self.paths, runtime=self.runtime, store=store, epoch=epoch, memory=Memory())

            async def played() -> None:
                observer = Observer(deployment, lambda: None, lambda: None)
                process = self.start(self.runtime)
                observer.watch(process, adopted=False)
                watch = deployment.memory.watches[process.handle]
                try:
                    await asyncio.wait_for(story(observer, watch), timeout=30)
                finally:
                    watch.end()

            asyncio.run(played())


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    for process in made.runtime.scan():
        made.runtime.send(process.handle, signal.SIGKILL)


async def until(happened: Callable[[], bool]) -> None:
    while not happened():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("last_words", "why"), [(None, "EngineChildDied"), (ENDED_IN_CHILD, "EngineOutOfMemory")])
def test_a_replica_that_says_it_is_broken_is_hung_within_a_second_with_its_logs_reason(
    scene: Scene, last_words: str | None, why: str
) -> None:
    async def story(observer: Observer, watch: ReplicaWatch) -> None:
        await until(lambda: watch.verdict is Health.READY)
        if last_words is not None:
            (scene.folder / "last-words").write_text(last_words)
        began = time.monotonic()
        (scene.folder / "sick").touch()
        await until(lambda: watch.verdict is Health.HUNG)
        assert time.monotonic() - began < 3.0, "two looks, and what a busy machine adds"
        assert watch.broken
        observer.died(watch, hung=True)
        world = await observer.observe(())
        assert world.deaths[NAME].why == why

    scene.play(story)


@pytest.mark.parametrize(("generated", "why"), [(False, FAILED_TO_START), (True, "killed")], ids=["loading", "ready"])
def test_an_error_that_nobody_knows_is_what_it_died_of_only_while_it_starts(
    scene: Scene, generated: bool, why: str
) -> None:
    if not generated:
        (scene.folder / "sick").touch()

    async def story(observer: Observer, watch: ReplicaWatch) -> None:
        await until(lambda: watch.verdict is Health.READY if generated else watch.broken)
        with scene.paths.log("replica", NAME).open("a") as log:
            log.write(UNKNOWN_ERROR)
        scene.runtime.kill(watch.process.handle)
        observer.died(watch, hung=False)
        world = await observer.observe(())
        assert world.deaths[NAME].why == why

    scene.play(story)


def test_a_replica_that_is_not_well_while_it_loads_is_starting(scene: Scene) -> None:
    (scene.folder / "sick").touch()

    async def story(_observer: Observer, watch: ReplicaWatch) -> None:
        await until(lambda: watch.broken)
        assert watch.verdict in (None, Health.STARTING)
        (scene.folder / "sick").unlink()
        await until(lambda: watch.verdict is Health.READY)

    scene.play(story)


def test_a_replica_whose_port_another_deployment_listens_on_too_never_counts_as_ready(scene: Scene) -> None:
    """Both bind with SO_REUSEPORT and answer in turns: a request would be answered by another model."""
    others = LocalRuntime(scene.folder / "another-state")
    stranger = scene.start(others)
    try:
        asyncio.run(_answers(scene.port))
        seen: list[Health | None] = []

        async def story(observer: Observer, watch: ReplicaWatch) -> None:
            def look() -> bool:
                seen.append(watch.verdict)
                return watch.verdict is Health.HUNG

            await until(look)
            assert watch.shared
            observer.died(watch, hung=True)
            world = await observer.observe(())
            assert world.deaths[NAME].why == "EnginePortTaken"

        scene.play(story)
        assert Health.READY not in seen
    finally:
        others.kill(stranger.handle)


async def _answers(port: int) -> None:
    async def connected() -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.01)

    await asyncio.wait_for(connected(), timeout=30)
