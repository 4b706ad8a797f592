"""Kill and stop real llama.cpp replicas under streamed load, and print what clients got, and what the relay costs.

    .venv/bin/python benchmarks/streams.py [--streams N] [--at-once N] [--seed N] [--no-cost] [--json]

Two replicas of SmolLM2 (one thread and four slots each), the real Envoy, two relays; no policy server, no control: this
program starts a killed replica again. A blow comes after a random number of tokens that all clients together got: of
eight, six are kill -9, one is a SIGSTOP of six seconds, one stops the computing thread alone. Four streams at once have
a slot each at the replica that is left; with more some wait there until others end, which no relay can spare them.
`benchmarks/stream_stalls.py` tells where the time of a stall goes, `streams_cost.py` measures the relay without an
engine. 1,000 streams take about a quarter of an hour on two cores; progress is told every ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import aiohttp
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from stream_stalls import shown, stalls, steps
from streams_cost import cost
from tests.acceptance.stream_verdict import judge, traces
from tests.acceptance.stream_wishes import wishes
from tests.acceptance.streams import SLOTS, Got, Pace, Replica, blows, load
from tests.free_ports import free_port
from tests.shell.relay_parts import RelayedFront

EVERY = (60, 240)
"""Tokens between two blows."""
TELL_EVERY_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """One kind of request: how many, and how they ended. `continued`: those whose replica was lost in the middle."""

    kind: str
    asked: int
    whole: int
    failed: int
    truncated: int
    clean_errors: int
    continued: int


async def drill(root: Path, given: argparse.Namespace) -> Mapping[str, Any]:
    """Everything that is to be known of one drill."""
    async with AsyncExitStack() as stack:
        replicas = [Replica(free_port(), root / f"replica-{index}.log") for index in range(2)]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for replica in replicas:
            replica.start()
            stack.callback(replica.end)
        for replica in replicas:
            await replica.ready(session)
        front = RelayedFront(root, {"m/1": [replica.port for replica in replicas]}, traced=True)
        await stack.enter_async_context(front)
        pace, began = Pace(), time.monotonic()
        striking = asyncio.create_task(blows(replicas, pace, random.Random(given.seed), EVERY))
        telling = asyncio.create_task(_tell(pace, given.streams, began))
        got = await load(front, wishes(given.seed), at_once=given.at_once, count=given.streams, told=pace.told)
        telling.cancel()
        striking.cancel()
        struck, took_s = await striking, time.monotonic() - began
        _say("all streams have ended; their seams are judged, and greedy ones asked again without blows")
        for replica in replicas:
            await replica.ready(session)
        await asyncio.sleep(2)
        records = {record["request_id"]: record for record in front.records()}
        traced = traces(root)
        verdict = await judge(got, records, traced, replicas[0].port)
        found, unexplained = stalls(traced, records, struck)
        equal = await _equal(front, [one for one in got if _cut(one, records)], given.at_once)
    return {
        "took_s": round(took_s, 1),
        "load_of_the_machine": os.getloadavg(),
        "blows": dict(Counter(blow.kind for blow in struck)),
        "tokens": sum(one.pieces for one in got),
        "outcomes": [asdict(one) for one in outcomes(got, records)],
        "stalls": [asdict(one) for one in steps(found)],
        "moved_without_a_blow": unexplained,
        "seams": asdict(verdict),
        "equal_to_undisturbed": equal,
        "not_continued": dict(Counter(str(one["reason"]) for one in records.values() if one["status"] == "lost")),
        "wrong": [_told(one, records) for one in got if not one.whole and one.wish.continues],
    }


def outcomes(got: Sequence[Got], records: Mapping[str, Any]) -> list[Outcome]:
    """By kind of request, and all together."""
    kinds = sorted({one.wish.kind for one in got})
    groups = [(kind, [one for one in got if one.wish.kind == kind]) for kind in kinds] + [("all", list(got))]
    return [
        Outcome(
            kind=kind,
            asked=len(some),
            whole=sum(one.whole for one in some),
            failed=sum(not one.whole and not one.clean_error for one in some),
            truncated=sum(one.broken is not None or (one.status == 200 and one.dones != 1) for one in some),
            clean_errors=sum(one.clean_error for one in some),
            continued=sum(records.get(one.request_id, {}).get("continued", 0) > 0 for one in some),
        )
        for kind, some in groups
    ]


async def _tell(pace: Pace, count: int, began: float) -> None:
    """A line on the error output every ten seconds."""
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        took_s = time.monotonic() - began
        left = f", about {took_s * (count / pace.ended - 1):.0f} s left" if pace.ended else ""
        _say(f"{took_s:.0f} s: {pace.ended} of {count} streams, {pace.pieces} pieces{left}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def _equal(front: RelayedFront, cut: Sequence[Got], at_once: int) -> Mapping[str, int]:
    """Greedy answers that were cut, asked again without blows: how many have the same text."""
    greedy = {json.dumps(one.wish.body, sort_keys=True): one for one in cut if one.wish.greedy}
    again = await load(front, iter([one.wish for one in greedy.values()]), at_once=at_once, count=len(greedy))
    texts = {json.dumps(one.wish.body, sort_keys=True): one.text for one in again if one.whole}
    same = [key for key, one in greedy.items() if texts.get(key) == one.text]
    return {"compared": len(texts), "equal": len(same)}


def _cut(got: Got, records: Mapping[str, Any]) -> bool:
    return got.whole and records.get(got.request_id, {}).get("continued", 0) > 0


def _told(got: Got, records: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stream that did not come whole: what is known of it."""
    record = records.get(got.request_id)
    return {"kind": got.wish.kind, "status": got.status, "error": got.error, "broken": got.broken, "record": record}


def show(console: Console, seen: Mapping[str, Any]) -> None:
    """The tables."""
    load = ", ".join(f"{one:.1f}" for one in seen["load_of_the_machine"])
    title = f"{seen['tokens']} pieces in {seen['took_s']} s; blows: {seen['blows']}; load of the machine: {load}"
    table = Table(title=title)
    for name in ("kind", "asked", "whole", "failed", "truncated", "clean_errors", "continued"):
        table.add_column(name.replace("_", " "), justify="left" if name == "kind" else "right")
    for one in seen["outcomes"]:
        table.add_row(*(str(value) for value in one.values()))
    console.print(table)
    seams, equal = seen["seams"], seen["equal_to_undisturbed"]
    console.print(
        f"seams: {seams['exact']} exact, {seams['approximate']} by text, {len(seams['wrong'])} wrong {seams['wrong']}"
    )
    console.print(f"greedy and cut: {equal['equal']} of {equal['compared']} have the text of an undisturbed run")
    console.print(shown(seen["stalls"]))
    console.print(f"taken from a replica that nobody had killed or stopped: {seen['moved_without_a_blow']}")
    console.print(f"not continued, ended by an error that can be read: {seen['not_continued']}")
    for one in seen["wrong"]:
        console.print("not whole:", one)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=SLOTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-cost", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="gonogo-streams-"))
    try:
        seen = dict(asyncio.run(drill(root, given)))
        if not given.no_cost:
            _say("what the relay costs per token")
            (root / "cost").mkdir()
            seen["cost"] = asyncio.run(cost(root / "cost"))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if given.json:
        print(json.dumps(seen, indent=1))
    else:
        show(Console(width=max(120, Console().width)), seen)
        for line in seen.get("cost", {}).items():
            print(*line)
    total = seen["outcomes"][-1]
    return (
        0 if not total["failed"] and not total["truncated"] and not seen["wrong"] and not seen["seams"]["wrong"] else 1
    )


if __name__ == "__main__":
    sys.exit(main())
