"""Asks a scripted engine behind the real Envoy what a recipe asks, and judges the answers as control does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from gonogo.checks import probes, recipe_probes
from gonogo.checks.finding import Answer, Finding, Stage, Verdict
from gonogo.control.probe import FrontDoor, ask_everything
from gonogo.control.views import answer
from gonogo.facts.model import ModelFacts
from gonogo.facts.world import World
from gonogo.plan.decide import ask
from gonogo.spec import Probe, Revision, Spec
from gonogo.spec.recipe import load_recipes
from gonogo.spec.recipe_probes import RecipeProbe, ToolCall, WarmedCompletion
from gonogo.spec.recipes import texts
from tests.shell.gateway_parts import Front
from tests.shell.phone_model import right
from tests.shell.policy_parts import Deployment
from tests.shell.scripted_engine import Script, ScriptedEngine

CHECKS = (*probes.CHECKS, *recipe_probes.CHECKS)
TOOL = ToolCall(
    kind="tool_call",
    name="calls-a-tool",
    prompt="北京现在天气怎么样？请使用工具。",
    function="get_weather",
    argument="city",
    expect_pattern="Beijing|北京",
    max_tokens=200,
)
QUESTION = Probe(name="capital", prompt="What is the capital of France?", expect_pattern=r"\bParis\b")


def quick(probe: RecipeProbe) -> RecipeProbe:
    """The same, with less patience than a test has."""
    return probe.model_copy(update={"within_s": 0.5}) if isinstance(probe, WarmedCompletion) else probe


AUTOGLM = tuple(map(quick, load_recipes(texts())["autoglm-phone-9b"].probes))
ALL = (*AUTOGLM, TOOL, QUESTION)


@dataclass
class Bench:
    """The real gateway, and an engine behind it whose script may be exchanged."""

    front: Front
    engine: ScriptedEngine

    def answers(
        self, script: Script, asked: Sequence[RecipeProbe], seen: ModelFacts | None = None
    ) -> tuple[Answer, ...]:
        """What the checks make of this engine when it is asked these probes."""
        self.engine.script = script
        self.engine.asked.clear()
        keys = [self.front.deployment.add_key() for _ in range(2)]
        door = FrontDoor(
            address="127.0.0.1",
            port=self.front.port,
            ca_file=self.front.ca_file,
            key=keys[0].text,
            revocable_key=keys[1].text,
            revoke=lambda: self.front.deployment.revoke(keys[1]),
        )
        revision = Revision(number=1, spec=Spec(service="svc", model="m", probes=tuple(asked)))
        facts = ask_everything(door, revision, None if seen is None else seen.sees_images, time.time)
        world = World(observation=1, at=time.time(), probes=facts, models={} if seen is None else {"m": seen})
        return ask(CHECKS, Stage.LIVE, revision, world)

    def live(self, script: Script, asked: Sequence[RecipeProbe]) -> list[Mapping[str, Any]]:
        """The same as control's API tells it."""
        return [answer(one) for one in self.answers(script, asked)]

    def findings(self, script: Script, asked: Sequence[RecipeProbe], seen: ModelFacts | None = None) -> list[Finding]:
        return [one.finding for one in self.answers(script, asked, seen)]

    def wrong(self, script: Script, asked: Sequence[RecipeProbe] = ALL) -> dict[str, int]:
        """Reason → how many findings have it, of what neither passes nor is out of place."""
        return count(self.findings(script, asked))


def count(findings: Sequence[Finding]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in findings:
        if one.verdict in (Verdict.FAIL, Verdict.UNKNOWN):
            found[one.reason] = found.get(one.reason, 0) + 1
    return found


@contextlib.contextmanager
def open_bench(root: Path) -> Iterator[Bench]:
    """Everything of it ends with the block."""
    deployment = Deployment.make(root)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        deployment.start(0)
        deployment.start(1)
        with ScriptedEngine(right, model="svc") as engine:
            front = Front(deployment, engine_port=engine.port)
            asyncio.run_coroutine_threadsafe(front.__aenter__(), loop).result(30)
            try:
                yield Bench(front=front, engine=engine)
            finally:
                asyncio.run_coroutine_threadsafe(front.__aexit__(None, None, None), loop).result(30)
    finally:
        deployment.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
