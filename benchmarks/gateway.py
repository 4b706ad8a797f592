"""The gateway beside its peers: `.venv/bin/python benchmarks/gateway.py [--json] [--without-peers]`, or `make bench`.

One run, one machine, one fake upstream, everything over TLS keep-alive (vLLM's router has no TLS): the upstream itself
(`direct`), our gateway with keys checked (`ours`), LiteLLM, SGLang's router and vLLM's. At 1 connection: median and
99th percentile; at 32: requests a second. Rounds are interleaved, and of each number the best counts. It judges ours by
its aims; a missed aim is said, not an exit code. Exit code 4: the upstream or ours could not be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

try:
    from gonogo import __version__
except ImportError:
    sys.exit(
        "benchmarks/gateway.py needs gonogo's own environment: make bench, or .venv/bin/python benchmarks/gateway.py"
    )

from contenders import peers
from contenders.load import Generator, generator
from contenders.ours import ours
from contenders.process import Contender, NotReady
from contenders.result import DIRECT, OURS, Round, Row, added_ms, aims, as_json
from contenders.upstream import upstream
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from gonogo.runtimes.programs import look_at_installed
from gonogo.security.certificates import CertificateFiles, ensure_certificates

MANY = 32
WARM_UP_S = 1
WORLD = 4
say = Console(stderr=True, highlight=False)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output instead of the table")
    parser.add_argument("--without-peers", action="store_true", help="only direct and ours")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 11), metavar="1-10", help="default 3")
    parser.add_argument("--seconds", type=int, default=3, choices=range(1, 11), metavar="1-10", help="default 3")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    missing = "left out by --without-peers" if given.without_peers else peers.set_up()
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        load = generator(root)
        entered = _enter(stack, root, missing)
        rows = _measure(load, entered, given.rounds, given.seconds)
        setting = _setting(load, given.rounds, given.seconds)
    if given.json:
        print(json.dumps(as_json(rows, setting), indent=2))
    else:
        _show(rows, setting)
    return WORLD if any(aim.met is None for aim in aims(rows)) else 0


Entry = tuple[Row, "Contender | None"]


def _enter(stack: contextlib.ExitStack, root: Path, missing: str | None) -> list[Entry]:
    """Start everybody. Who does not start gets a row with the reason."""
    certificates = ensure_certificates(root / "tls", ["127.0.0.1"], time.time())
    _tell("starting the fake upstream")
    base = stack.enter_context(upstream(root, certificates))
    entries: list[Entry] = [(Row(name=DIRECT, version=None, note=base.direct.note), base.direct)]
    starts: dict[str, Any] = {OURS: lambda: ours(root / "ours", base.port, certificates)}
    place = _place(root, base.port, certificates)
    for name, peer in peers.PEERS.items():
        starts[name] = lambda peer=peer: peer(place)
    for name, start in starts.items():
        version = __version__ if name == OURS else peers.version(name)
        row = Row(name=name, version=version, note="")
        if missing is not None and name != OURS:
            entries.append((replace(row, error=missing), None))
            continue
        _tell(f"starting {name}")
        try:
            contender = stack.enter_context(start())
        except NotReady as error:
            entries.append((replace(row, error=str(error)), None))
        else:
            entries.append((replace(row, note=contender.note), contender))
    return entries


def _place(root: Path, upstream_port: int, certificates: CertificateFiles) -> peers.Place:
    folder = root / "peers"
    folder.mkdir(mode=0o700)
    place = peers.Place(
        folder=folder,
        upstream_port=upstream_port,
        certificate_file=folder / "server.crt",
        key_file=folder / "server.key",
    )
    place.certificate_file.write_text(certificates.chain_pem)
    place.key_file.touch(mode=0o600)
    place.key_file.write_text(certificates.key_pem)
    return place


def _measure(load: Generator, entries: list[Entry], rounds: int, seconds: int) -> tuple[Row, ...]:
    rows = {row.name: row for row, _ in entries}
    for number in range(1, rounds + 1):
        for name, contender in ((row.name, contender) for row, contender in entries):
            if contender is None or rows[name].error is not None:
                continue
            _tell(f"round {number} of {rounds}: {name}")
            try:
                rows[name] = replace(rows[name], rounds=(*rows[name].rounds, _round(load, contender, seconds)))
            except NotReady as error:
                rows[name] = replace(rows[name], error=str(error))
    return tuple(rows.values())


def _round(load: Generator, contender: Contender, seconds: int) -> Round:
    before = os.getloadavg()[0]
    # A slow one may answer nothing in so short a time; that is no reason not to measure it.
    with contextlib.suppress(NotReady):
        load.measure(contender, MANY, WARM_UP_S)
    one = load.measure(contender, 1, seconds)
    return Round(one=one, many=load.measure(contender, MANY, seconds), load_average=before)


def _setting(load: Generator, rounds: int, seconds: int) -> dict[str, Any]:
    installed = {each.name: each.version for each in look_at_installed()}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "envoy": installed.get("gateway"),
        "load_generator": load.name,
        "rounds": rounds,
        "seconds_each": seconds,
        "connections": MANY,
        "load_average_after": [round(each, 2) for each in os.getloadavg()],
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _show(rows: tuple[Row, ...], setting: dict[str, Any]) -> None:
    out = Console(highlight=False, soft_wrap=True)
    out.print(f"Over TLS keep-alive, the same fake upstream; p50 and p99 at 1 connection, requests/s at {MANY};")
    out.print(f"each number is the best of {setting['rounds']} rounds of {setting['seconds_each']} s each")
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("p50 ms", "added ms", "p99 ms", "req/s", "of direct", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    direct = next((row.many for row in rows if row.name == DIRECT), None)
    for row in rows:
        name = f"{row.name} {row.version or ''}".strip()
        one, many, added = row.one, row.many, added_ms(row, rows)
        if one is None or many is None:
            table.add_row(name, *["-"] * 6)
            continue
        table.add_row(
            name, f"{one.p50_ms:.2f}", "" if row.name == DIRECT or added is None else f"{added:+.2f}",
            f"{row.one_p99_ms:.2f}", f"{many.requests_per_s:,.0f}",
            "" if direct is None else f"{many.requests_per_s / direct.requests_per_s:.1%}", str(row.failed),
        )  # fmt: skip
    out.print(table)
    for row in rows:
        out.print(f"{row.name}: {row.note if row.error is None else _why(row)}")
    loads = [each.load_average for row in rows for each in row.rounds]
    out.print(
        f"{setting['cores']} cores, {setting['processor']}, {setting['system']}, Envoy {setting['envoy']}, "
        f"Python {setting['python']}, load by {setting['load_generator']}\n"
        f"load average before the rounds: {min(loads, default=0):.1f} to {max(loads, default=0):.1f} "
        "(the benchmark's own load included)"
    )
    for aim in aims(rows):
        out.print(str(aim))


def _why(row: Row) -> str:
    return f"stopped after {len(row.rounds)} rounds: {row.error}" if row.rounds else f"not measured: {row.error}"


def _tell(text: str) -> None:
    say.print(f"  {text}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotReady as error:
        say.print(f"the fake upstream: {error}")
        sys.exit(WORLD)
    except KeyboardInterrupt:
        sys.exit(130)
