"""Kill the queue's workers again and again, empty its Valkey once, and count: lost tasks, tasks with two effects.

    .venv/bin/python benchmarks/tasks.py [--tasks 20000] [--kills 150] [--only ours|plain] [--json]

Ours: the real parts `tasks`, `worker` and Valkey in a directory of its own, before a gateway whose answers take 50 to
400 ms, so that kills meet many that are under way ("asked twice": the gateway was asked again for them). An effect is
an answer that the ledger gives. Beside it plain Celery with its safest settings on the same Valkey, which is not
emptied for it, for it would lose all that waits; there an effect is a line in a file. A kill is SIGKILL of a worker at
work, by turns of all of it and of one of its children, as the kernel does when memory runs out.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table
from tests.shell.tasks_parts import QueueParts, chat, echo

from gonogo.tasks import ledger
from gonogo.tasks.nouns import State
from gonogo.tasks.places import open_queue

SETTLED_S = 30.0
WORK_LIMIT_S = 30.0
ANSWER_LIMIT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Drill:
    """What came of one. `twice`: tasks with two effects; `asked_twice`: those for which the gateway was asked again."""

    who: str
    tasks: int
    kills: int
    emptied: int
    lost: int
    twice: int
    asked_twice: int | None
    seconds: float


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(one) for one in found.stdout.split()]


def strike(number: int, pid: int, restart: Callable[[], None], chance: random.Random) -> None:
    """Kill a child, or the whole worker, which is then started again."""
    below = children(pid)
    if number % 2 and below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(below), signal.SIGKILL)
        return
    restart()


def at_work(seen: Callable[[], object]) -> None:
    """Wait until a worker does something: a kill before it has begun would show nothing."""
    ends = time.monotonic() + WORK_LIMIT_S
    while not seen() and time.monotonic() < ends:
        time.sleep(0.01)


def ours(root: Path, tasks: int, kills: int) -> Drill:
    chance, began = random.Random(6), time.monotonic()
    with QueueParts(root / "state", lambda body: replace(echo(body), after_s=chance.uniform(0.05, 0.4))) as parts:
        parts.start("valkey", "tasks", "worker")
        queue = open_queue(parts.paths)

        def restart() -> None:
            parts.kill("worker")
            parts.start("worker", wait=False)

        names: list[str] = []
        with parts.client() as client:
            for number in range(kills):
                upto = tasks * (number + 1) // kills
                new = [{"body": chat(str(n))} for n in range(len(names), upto)]
                names += [one["id"] for one in client.post("/v1/tasks", json={"tasks": new}).json()["data"]]
                at_work(lambda: parts.keep("worker") or parts.gateway.running)
                time.sleep(chance.uniform(0.0, 1.0))
                parts.keep("worker")
                strike(number, parts.processes["worker"].pid, restart, chance)
                if number == kills // 2:
                    empty(parts)
            ends = time.monotonic() + ANSWER_LIMIT_S
            while time.monotonic() < ends:
                parts.keep("worker")
                with queue.database.reading() as c:
                    if ledger.counts(c).open == 0:
                        break
                time.sleep(0.5)
            effects = collections.Counter(_effects(queue, names))
        asked = collections.Counter(text for _, text in parts.gateway.asked)
    return Drill(
        who="ours",
        tasks=len(names),
        kills=kills,
        emptied=1,
        lost=sum(effects[str(n)] == 0 for n in range(len(names))),
        twice=sum(effects[str(n)] > 1 for n in range(len(names))),
        asked_twice=sum(count > 1 for count in asked.values()),
        seconds=time.monotonic() - began,
    )


def _effects(queue: Any, names: list[str]) -> list[str]:
    """What was asked in each task's answer: another task's answer would show as a second effect of that one."""
    found = []
    for name in names:
        with queue.database.reading() as c:
            task = ledger.task(c, name)
            sealed = ledger.result(c, task.number)
        if task.state is State.DONE:
            answer = queue.bodies.open(name, "result", sealed)["body"]["choices"][0]["message"]["content"]
            found.append(answer.removeprefix("echo "))
    return found


def empty(parts: QueueParts) -> None:
    """Valkey is killed and comes back without anything."""
    parts.kill("valkey")
    for path in (parts.paths.root / "valkey").rglob("*"):
        if path.is_file():
            path.unlink()
    parts.start("valkey")


def plain(root: Path, tasks: int, kills: int) -> Drill:
    chance, began = random.Random(6), time.monotonic()
    with QueueParts(root / "state") as parts:
        parts.start("valkey")
        effects = root / "effects"
        os.environ["PLAIN_BROKER"] = str(parts.paths.part_socket("valkey", 0))
        os.environ["PLAIN_EFFECTS"] = str(effects)
        sys.path.insert(0, str(Path(__file__).parent / "contenders"))
        from plain_celery import effect

        worker = _plain_worker(root)

        def restart() -> None:
            nonlocal worker
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(10)
            worker = _plain_worker(root)

        sent = 0
        for number in range(kills):
            upto = tasks * (number + 1) // kills
            for n in range(sent, upto):
                effect.delay(n)
            sent = upto
            before = _bytes(effects)
            at_work(lambda: worker.poll() is not None or _bytes(effects) > before)  # noqa: B023 (asked at once)
            time.sleep(chance.uniform(0.0, 0.1))
            if worker.poll() is not None:
                worker = _plain_worker(root)
            strike(number, worker.pid, restart, chance)
        if worker.poll() is not None:
            worker = _plain_worker(root)
        seen = _settled(effects)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(10)
    return Drill(
        who="plain Celery",
        tasks=sent,
        kills=kills,
        emptied=0,
        lost=sum(seen[n] == 0 for n in range(sent)),
        twice=sum(seen[n] > 1 for n in range(sent)),
        asked_twice=None,
        seconds=time.monotonic() - began,
    )


def _plain_worker(root: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "celery", "-A", "plain_celery", "worker", "--concurrency=2", "--loglevel=ERROR"]
    words += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with (root / "plain.log").open("ab") as log:
        folder = Path(__file__).parent / "contenders"
        return subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def _settled(effects: Path) -> collections.Counter[int]:
    """The effects, once no more came for a while that is longer than the visibility timeout."""
    size, since = -1, time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        now = _bytes(effects)
        if now != size:
            size, since = now, time.monotonic()
        time.sleep(0.5)
    return collections.Counter(map(int, effects.read_text().split()))


def _bytes(effects: Path) -> int:
    return effects.stat().st_size if effects.exists() else 0


def shown(drills: list[Drill]) -> Table:
    table = Table(box=None)
    for name in ("", "tasks", "SIGKILLs", "Valkey emptied", "lost", "two effects", "asked twice", "seconds"):
        table.add_column(name, justify="right" if name else "left")
    for one in drills:
        again = "" if one.asked_twice is None else str(one.asked_twice)
        cells = (one.tasks, one.kills, one.emptied, one.lost, one.twice, again, f"{one.seconds:.0f}")
        table.add_row(one.who, *map(str, cells))
    return table


def main() -> int:
    """0: nothing of ours was lost or had two effects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=150)
    parser.add_argument("--only", choices=("ours", "plain"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    drills = []
    for name, run in (("ours", ours), ("plain", plain)):
        if given.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="gonogo-tasks-") as folder:
                drills.append(run(Path(folder), given.tasks, given.kills))
    if given.json:
        print(json.dumps([asdict(one) for one in drills]))
    else:
        Console().print(shown(drills))
    return int(any(one.lost or one.twice for one in drills if one.who == "ours"))


if __name__ == "__main__":
    sys.exit(main())
