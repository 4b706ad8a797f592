"""Kill each part of a real deployment under a steady load, and print what it cost: failed requests, seconds, slowest.

    .venv/bin/python benchmarks/failures.py [--json] [--rounds N]

Real CLI, Envoy, policy servers and llama.cpp in a directory of its own; two clients ask one after the other, not
streamed, four tokens each. The limits beside the numbers are those of the project's first issue.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.acceptance.deployment import Deployment, wait_for
from tests.acceptance.load import Load
from tests.acceptance.test_failures import replicas, served_by
from tests.free_ports import free_port


@dataclass(frozen=True)
class Cost:
    """One blow: what was done, seconds until it was mended, requests during it, failed ones, slowest (seconds)."""

    blow: str
    mended_s: float
    limit_s: float | None
    requests: int
    failed: int
    slowest_s: float


def replica(number: signal.Signals) -> Callable[[Deployment, Load], float]:
    """Hit one replica; mended when its successor has served a request through Envoy."""

    def strike(deployment: Deployment, _: Load) -> float:
        before = replicas(deployment)
        victim = sorted(before)[0]
        os.kill(before[victim]["pid"], number)
        struck = time.monotonic()

        def replaced() -> Any:
            now = replicas(deployment).get(victim)
            return now is not None and now["pid"] != before[victim]["pid"] and served_by(deployment, now["port"])

        wait_for(replaced, 60, "the replica is replaced")
        return time.monotonic() - struck

    return strike


def part(role: str) -> Callable[[Deployment, Load], float]:
    """Kill one process of this role; mended when a request that began afterwards is answered."""

    def strike(deployment: Deployment, load: Load) -> float:
        before = deployment.pids(role)
        os.kill(before[0], signal.SIGKILL)
        struck = time.monotonic()

        def answered() -> Any:
            return [one for one in load.answers if one.status == 200 and one.began > struck]

        first = min(one.ended for one in wait_for(answered, 60, "a request is answered"))
        wait_for(lambda: _back(deployment, role, before), 60, f"{role} is back")
        return first - struck

    return strike


def _back(deployment: Deployment, role: str, before: list[int]) -> bool:
    try:
        now = deployment.pids(role)
    except (KeyError, ValueError):  # control itself is away
        return False
    return len(now) == len(before) and before[0] not in now


BLOWS: tuple[tuple[str, float | None, Callable[[Deployment, Load], float]], ...] = (
    ("kill -9 of a replica", 5.0, replica(signal.SIGKILL)),
    ("SIGSTOP of a replica", 6.0, replica(signal.SIGSTOP)),
    ("kill -9 of a policy server", None, part("policy")),
    ("kill -9 of Envoy", 2.0, part("gateway")),
    ("kill -9 of control", None, part("control")),
)


def measure(deployment: Deployment, rounds: int, tell: Callable[[str], None]) -> list[Cost]:
    """Every blow, `rounds` times, each after everything is well again."""
    costs = []
    for name, limit_s, strike in BLOWS:
        for number in range(rounds):
            tell(f"{name} ({number + 1} of {rounds})")
            wait_for(lambda: len(replicas(deployment)) == 2, 60, "two replicas are ready")
            with Load(deployment) as load:
                load.wait_for_more(20)
                before = len(load.answers)
                mended_s = strike(deployment, load)
                load.wait_for_more(20)
            during = load.answers[before:]
            failed = sum(1 for one in during if one.status != 200)
            slowest = max(one.ended - one.began for one in during)
            costs.append(Cost(name, round(mended_s, 2), limit_s, len(during), failed, round(slowest, 2)))
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 21))
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="gonogo-failures-"))
    deployment = Deployment(directory / "state", free_port())
    console = Console(stderr=True)
    try:
        with console.status("deploying") as status:
            up = deployment.up("--replicas", "2")
            costs = measure(deployment, given.rounds, status.update)
    finally:
        deployment.down()
        shutil.rmtree(directory, ignore_errors=True)
    result = {
        "seconds_to_proven": up["seconds_to_proven"],
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "blows": [asdict(cost) for cost in costs],
    }
    print(json.dumps(result)) if given.json else _print(result)
    return 0


def _print(result: dict[str, Any]) -> None:
    table = Table(title=f"proven {result['seconds_to_proven']} s after the command; {result['cores']} cores")
    for column in ("blow", "mended after", "limit", "requests", "failed", "slowest"):
        table.add_column(column, justify="left" if column == "blow" else "right")
    for cost in result["blows"]:
        limit = "" if cost["limit_s"] is None else f"{cost['limit_s']:.0f} s"
        row = (cost["blow"], f"{cost['mended_s']:.2f} s", limit, str(cost["requests"]), str(cost["failed"]))
        table.add_row(*row, f"{cost['slowest_s']:.2f} s")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
