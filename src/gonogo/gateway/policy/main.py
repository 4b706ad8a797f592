"""The policy server's process: `python -m gonogo.gateway.policy.main --socket PATH --database PATH --index N`.

Not here: what it answers (`server`, `decide`). Started and watched by control; it needs neither control nor Envoy to
run. SIGTERM lets decisions in flight finish and ends within 2 s. It logs to stderr, which the launcher made a file.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Sequence

from gonogo.gateway.policy.counting import Counting, Places
from gonogo.gateway.policy.server import PolicyService, build_server
from gonogo.gateway.policy.snapshot import SnapshotSource
from gonogo.gateway.policy.view import open_ruled
from gonogo.gateway.unix_socket import Place, SocketRefused
from gonogo.runtimes.tell import tell

GRACE_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT, which end the process with 0. Returns 2 when the socket's place is wrong."""
    parser = argparse.ArgumentParser(prog="gonogo-policy", description="Checks API keys for the gateway.")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket that Envoy asks")
    parser.add_argument("--database", type=Path, required=True, help="the store, read only")
    parser.add_argument("--index", type=int, required=True, help="which of the policy servers this is")
    parser.add_argument("--valkey", type=Path, required=True, help="unix socket of the Valkey that all count in")
    parser.add_argument("--access-log", type=Path, required=True, help="Envoy's log, which tells of ends")
    parser.add_argument("--relay-log", type=Path, action="append", default=[], help="a relay's log, which does too")
    parser.add_argument(
        "--envoy", type=Path, help="Envoy's admin socket, which tells of replicas; absent: Envoy balances"
    )
    given = parser.parse_args(arguments)
    os.umask(0o077)
    source = SnapshotSource(given.database, open_ruled, clock=time.monotonic, tell=tell)
    # Before the socket is there: the first request must find a snapshot.
    source.poll()
    poller = threading.Thread(target=source.run, name="snapshot", daemon=True)
    poller.start()
    try:
        places = Places(
            valkey=given.valkey, access_log=given.access_log, relay_logs=tuple(given.relay_log), envoy=given.envoy
        )
        asyncio.run(_serve(given.socket, source, given.index, Counting(places, source.fresh, tell)))
    except SocketRefused as error:
        tell(str(error))
    finally:
        source.stop()
    return 2


async def _serve(socket: Path, source: SnapshotSource, index: int, counting: Counting) -> None:
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    await counting.start()
    service = PolicyService(source.fresh, tell=tell, gate=counting.gate)
    server = build_server(service)
    place = Place.find(socket)
    server.add_insecure_port(f"unix:{place.temporary}")
    await server.start()
    door = place.open()
    tell(f"policy server {index} listens (pid {os.getpid()})")
    await asked_to_stop.wait()
    door.close()
    await service.drain(GRACE_S)
    tell(f"policy server {index} stopped")
    # Not server.stop(): it answers streams that arrive meanwhile with CANCELLED, which Envoy does not try again; a
    # connection that just ends is tried again on the other server. Seen: 6 of 6,700 requests lost, and none.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
