"""Several services behind one gateway, whose replicas are added, removed and replaced without a pause, under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from pathlib import Path

from gonogo.actions.model import ClusterPlan
from tests.shell.edge_parts import KEY, Edge
from tests.shell.outside_engine import OutsideEngine
from tests.shell.test_external_behind_envoy import external

CHAT = "/v1/chat/completions"
CHANGES = 24
SEED = 20261126
WHOLE, STREAM = b'{"max_tokens": 4}', b'{"max_tokens": 12, "stream": true}'


class Load:
    """Clients of both services, whole and streamed, one request after the other on connections of their own."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._over = asyncio.Event()
        self.wrong: list[str] = []
        self.served: Counter[str] = Counter()
        self._tasks = [
            asyncio.create_task(self._ask(revision, streamed))
            for revision in ("own/1", "far/1")
            for streamed in (False, True)
        ]

    async def more(self, count: int) -> None:
        """Wait until so many more were answered, or one was answered wrong."""
        wanted = sum(self.served.values()) + count
        await self._edge.until(lambda: bool(self.wrong) or sum(self.served.values()) >= wanted, 60)

    async def end(self) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _ask(self, revision: str, streamed: bool) -> None:
        while not self._over.is_set():
            answer = await self._edge.ask("POST", f"{CHAT}?rev={revision}", KEY, STREAM if streamed else WHOLE)
            whole = not streamed or answer.body.rstrip().endswith(b"data: [DONE]")
            if answer.status != 200 or not whole:
                self.wrong.append(f"{revision} {answer.status} {answer.body[-200:]!r}")
                continue
            first = answer.body.split(b"\n")[0].removeprefix(b"data: ")
            self.served[f"{revision} {json.loads(first)['system_fingerprint']}"] += 1


def test_replicas_of_two_services_come_and_go_without_a_failed_request(tmp_path: Path) -> None:
    chance = random.Random(SEED)

    async def story(engines: list[OutsideEngine]) -> None:
        mine, theirs = engines[:3], engines[3:]

        def own(chosen: list[OutsideEngine]) -> ClusterPlan:
            return Edge.cluster("own/1", *(one.port for one in chosen))

        def far(chosen: list[OutsideEngine]) -> ClusterPlan:
            return external(*(one.url for one in chosen), name="far/1")

        async with Edge(tmp_path) as edge:
            here, there = mine[:2], theirs[:2]
            await edge.publish(clusters=(own(here), far(there)))
            await edge.healthy(*(one.port for one in (*here, *there)))
            load = Load(edge)
            for _ in range(CHANGES):
                if chance.random() < 0.5:
                    here = _one_changed(chance, here, mine)
                else:
                    there = _one_changed(chance, there, theirs)
                await edge.publish(clusters=(own(here), far(there)))
                await edge.healthy(*(one.port for one in (*here, *there)))
                await load.more(8)
            await load.end()
            assert load.wrong == []
            assert len(load.served) == len(engines), f"each had its turn: {load.served}"

    with contextlib.ExitStack() as stack:
        asyncio.run(story([stack.enter_context(OutsideEngine("m")) for _ in range(6)]))


def _one_changed(chance: random.Random, chosen: list[OutsideEngine], every: list[OutsideEngine]) -> list[OutsideEngine]:
    """The same with one more, one fewer, or one in place of another; never none."""
    others = [one for one in every if one not in chosen]
    kinds = (["add", "replace"] if others else []) + (["remove"] if len(chosen) > 1 else [])
    kind = chance.choice([one for one in kinds if one != "replace" or len(chosen) > 1])
    kept = list(chosen)
    if kind != "add":
        kept.remove(chance.choice(kept))
    return kept if kind == "remove" else [*kept, chance.choice(others)]
