"""Change everything that may change while requests run, and count what failed: of 10,000 requests none may.

    .venv/bin/python benchmarks/rolling.py [--json] [--requests N] [--seconds N] [--only WORD]

Real CLI, control, Envoy and policy servers; the engines are scripted, so that requests are many and their one right
answer is known. Two services behind one gateway, one of replicas that control starts, one of servers that others run;
whole and streamed requests to both, without a pause, while: every replica is replaced by a new revision, the list of
servers changes, another service comes and goes, policy servers are killed and ended in turn, control is killed.
A request has failed that got another status than 200, another text, or no end.

0 failed of n shows, at 95 % confidence, an availability above 1 - 3/n: 9,985 for 99.97 %.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from rolling_load import Load, Request, Target
from tests.acceptance.deployment import Deployment, wait_for
from tests.free_ports import free_port
from tests.shell.outside_engine import OutsideEngine

from gonogo.api.client import ControlClient, ControlRefused, ControlSilent
from gonogo.facts.part import PARTS
from gonogo.runtimes.paths import StatePaths

ROOT = Path(__file__).parents[1]
OWN, FAR, THIRD = "own", "far", "third"
REPLICAS = 3
ENDED_GENTLY = ("relay",)
"""Parts that hold requests under way are not killed but asked to end (SIGTERM), as an upgrade would do it."""
PROBE = {"name": "counts", "prompt": "Count.", "expect_pattern": "one two three", "max_tokens": 8}


@dataclass(frozen=True)
class Step:
    """What was changed, how long that took, and the requests that were under way or began meanwhile."""

    change: str
    seconds: float
    requests: int
    streamed: int
    failed: int
    slowest_ms: float


class Stage:
    """The deployment and the servers of other people."""

    def __init__(self, folder: Path, engines: list[OutsideEngine]) -> None:
        environment = {
            "PYTHONPATH": os.pathsep.join((str(ROOT / "benchmarks/scripted"), *_own_path())),
            "GONOGO_SCRIPTED_ENGINE": str(ROOT / "tests/shell/outside_engine.py"),
        }
        self.deployment = Deployment(folder / "state", free_port(), environment)
        self._control = ControlClient(StatePaths.of(self.deployment.state_dir).control_socket)
        self._folder = folder
        self._engines = engines
        self._asked = 4

    def deploy(self, service: str, **fields: object) -> str:
        """`gonogo up` of this service; its key. Waits until replicas of older revisions have gone."""
        spec = {"service": service, "probes": [PROBE], **fields}
        place = self._folder / f"{service}.yaml"
        place.write_text(json.dumps(spec))
        told = self.deployment.up(str(place))
        wait_for(lambda: self._settled(service), 60, f"only the newest revision of {service} is left")
        return str(told["api_key"] or "")

    def own(self) -> str:
        """The service of replicas that control starts, in a revision that there was not before."""
        self._asked += 1
        expect = {"concurrent_requests": self._asked, "context_tokens": 512}
        return self.deploy(OWN, model="smollm2-135m", replicas=REPLICAS, expect=expect)

    def far(self, *chosen: int) -> str:
        """The service of these servers of other people."""
        return self.deploy(FAR, model=FAR, replicas={"external": [self._engines[one].url for one in chosen]})

    def third_comes_and_goes(self) -> None:
        self.deploy(THIRD, model=THIRD, replicas={"external": [self._engines[-1].url]})
        self.deployment.run("down", THIRD, "--yes")
        wait_for(lambda: self._entry(THIRD) is None, 60, "the third service is gone")

    def restart(self, role: str, number: signal.Signals) -> None:
        """Each process of this role in turn; the next one once the one before is back and listens."""
        for pid in self.pids(role):
            count = len(self.pids(role))
            os.kill(pid, number)
            wait_for(lambda pid=pid, count=count: self._back(role, pid, count), 60, f"{role} is back")
            time.sleep(1.0)  # Envoy asks for its health as often

    def kill_control(self) -> None:
        self.restart("control", signal.SIGKILL)

    def _back(self, role: str, gone: int, count: int) -> bool:
        try:
            now = self.pids(role)
        except (ControlSilent, ControlRefused):  # it is the one that was killed
            return False
        return gone not in now and len(now) == count and all(self._listens(role, index) for index in range(count))

    def _listens(self, role: str, index: int) -> bool:
        """Whether a part accepts connections: its process is there long before. Control has another socket."""
        if role not in PARTS:
            return True
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(StatePaths.of(self.deployment.state_dir).part_socket(role, index)))
            return True
        return False

    def pids(self, role: str) -> list[int]:
        """The processes of this role; none where there is no such role. (Not by a command, which costs a second.)"""
        return list(self._control.status()["processes"].get(role, ()))

    def _settled(self, service: str) -> bool:
        entry = self._entry(service)
        return entry is not None and all(
            one["id"].startswith(f"{service}/{entry['serving']}/") for one in entry["replicas"]
        )

    def _entry(self, service: str) -> Any:
        return next((one for one in self._control.status()["services"] if one["name"] == service), None)


def _own_path() -> tuple[str, ...]:
    own = os.environ.get("PYTHONPATH")
    return (own,) if own else ()


def changes(stage: Stage) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that is changed, in order."""
    yield f"all {REPLICAS} replicas replaced by a new revision", stage.own
    yield "the list of external servers: one exchanged", lambda: stage.far(1, 2)
    yield "policy servers killed -9, in turn", lambda: stage.restart("policy", signal.SIGKILL)
    yield "another service comes and goes", stage.third_comes_and_goes
    yield "policy servers ended (SIGTERM), in turn", lambda: stage.restart("policy", signal.SIGTERM)
    for role in ENDED_GENTLY:
        if stage.pids(role):
            yield f"{role} processes ended (SIGTERM), in turn", lambda role=role: stage.restart(role, signal.SIGTERM)
    yield "the list of external servers: both exchanged", lambda: stage.far(0, 2)
    yield f"all {REPLICAS} replicas replaced once more", stage.own
    yield "control killed -9", stage.kill_control


def measure(stage: Stage, load: Load, given: argparse.Namespace, tell: Callable[[str], None]) -> list[Step]:
    """Every change once, then on without changes until enough requests were made or the time is over."""
    began, steps = time.monotonic(), []
    for name, change in changes(stage):
        if given.only not in name:
            continue
        tell(name)
        at = time.monotonic()
        change()
        time.sleep(0.5)
        steps.append(_step(name, load, at, time.monotonic()))
    tell("enough requests")
    at = time.monotonic()
    while len(load.requests) < given.requests and time.monotonic() - began < given.seconds:
        time.sleep(0.1)
    steps.append(_step("nothing", load, at, time.monotonic()))
    return steps


def _step(name: str, load: Load, since: float, until: float) -> Step:
    mine = [one for one in tuple(load.requests) if since <= one.ended <= until]
    slowest = max((one.ended - one.began for one in mine), default=0.0)
    return Step(
        change=name,
        seconds=round(until - since, 1),
        requests=len(mine),
        streamed=sum(one.streamed for one in mine),
        failed=sum(1 for one in mine if one.wrong),
        slowest_ms=round(slowest * 1000),
    )


def summary(requests: list[Request], steps: list[Step]) -> dict[str, Any]:
    failed = [one for one in requests if one.wrong]
    return {
        "requests": len(requests),
        "streamed": sum(one.streamed for one in requests),
        "failed": len(failed),
        "failures": dict(Counter(one.wrong for one in failed).most_common(10)),
        "availability_shown_percent": None if failed or not requests else round(100 * (1 - 3 / len(requests)), 3),
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "steps": [asdict(one) for one in steps],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--requests", type=int, default=10_000, help="go on until so many were made")
    parser.add_argument("--seconds", type=float, default=200.0, help="but, after the last change, no longer than this")
    parser.add_argument("--only", default="", metavar="WORD", help="only the changes in whose words this stands")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gonogo-rolling-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        engines = [stack.enter_context(OutsideEngine(FAR)) for _ in range(3)]
        stage = Stage(folder, [*engines, stack.enter_context(OutsideEngine(THIRD))])
        stack.callback(stage.deployment.down)
        status = stack.enter_context(Console(stderr=True).status("deploying"))
        targets = (Target(service=OWN, key=stage.own()), Target(service=FAR, key=stage.far(0, 1)))
        ca_file = str(stage.deployment.state_dir / "tls" / "ca.crt")
        with Load(stage.deployment.port, ca_file, targets) as load:
            steps = measure(stage, load, given, status.update)
    result = summary(load.requests, steps)
    print(json.dumps(result)) if given.json else _print(result)
    return 1 if result["failed"] else 0


def _print(result: dict[str, Any]) -> None:
    shown = result["availability_shown_percent"]
    bound = "" if shown is None else f"; shown at 95 % confidence: available above {shown} %"
    title = f"{result['failed']} failed of {result['requests']:,} requests ({result['streamed']:,} streamed){bound}"
    table = Table(title=title)
    for column in ("what was changed meanwhile", "took", "requests", "streamed", "failed", "slowest"):
        table.add_column(column, justify="left" if column.startswith("what") else "right")
    for one in result["steps"]:
        row = (one["change"], f"{one['seconds']:.1f} s", f"{one['requests']:,}", f"{one['streamed']:,}")
        table.add_row(*row, str(one["failed"]), f"{one['slowest_ms']:,.0f} ms")
    Console().print(table)
    for wrong, count in result["failures"].items():
        Console().print(f"{count} × {wrong}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
