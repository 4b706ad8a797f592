"""The relay's process: `python -m gonogo.gateway.relay.main --socket PATH --inner PATH --log FILE --index N`.

Not here: what it does with a stream (`relayed`). Started and watched by control, needs only Envoy to run. SIGTERM: it
listens no longer, streams go on to their end, for at most two minutes; those that are left get an error event.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Sequence

import uvloop
from aiohttp import web

from gonogo.gateway.log_writer import LogWriter
from gonogo.gateway.relay.machine import Machine
from gonogo.gateway.relay.relayed import Relay
from gonogo.gateway.relay.replicas import Replicas
from gonogo.gateway.relay.server import Limits, Server
from gonogo.gateway.relay.upstream import Inner
from gonogo.gateway.relay.watch import Watch
from gonogo.gateway.unix_socket import Place, SocketRefused
from gonogo.runtimes.tell import tell

GRACE_S = 120.0
CONTINUATIONS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT, which end the process with 0. Returns 2 when the socket's place is wrong."""
    parser = argparse.ArgumentParser(prog="gonogo-relay", description="Continues streams whose replica dies.")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket that Envoy sends streamed requests to")
    parser.add_argument("--inner", type=Path, required=True, help="unix socket of Envoy's inner listener")
    parser.add_argument("--admin", type=Path, help="unix socket of Envoy's admin interface: who is healthy")
    parser.add_argument("--log", type=Path, required=True, help="file for one JSON line per stream")
    parser.add_argument("--index", type=int, required=True, help="which of the relays this is")
    parser.add_argument("--continuations", type=int, default=CONTINUATIONS, help="most continuations of one request")
    parser.add_argument("--trace", type=Path, help="for drills: a file for what was asked of engines, word for word")
    given = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        uvloop.run(_serve(given))
    except SocketRefused as error:
        tell(str(error))
        return 2
    return 0


async def _serve(given: argparse.Namespace) -> None:
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    async with Inner(str(given.inner)) as inner, Replicas(str(given.admin) if given.admin else None) as replicas:
        watch = Watch(replicas, Machine())
        relay = Relay(inner=inner, watch=watch, continuations=given.continuations)
        write = LogWriter(given.log).write
        trace = LogWriter(given.trace).write if given.trace else None
        server = Server(relay, limits=Limits(), write=write, tell=tell, trace=trace)
        # Without `handler_cancellation` a stream would go on for a client that has gone.
        runner = web.AppRunner(server.application(), handler_cancellation=True, access_log=None, handle_signals=False)
        await runner.setup()
        place = Place.find(given.socket)
        await web.UnixSite(runner, str(place.temporary)).start()
        listening = place.open()
        watching = asyncio.create_task(watch.run())
        tell(f"relay {given.index} listens (pid {os.getpid()})")
        asked = asyncio.create_task(asked_to_stop.wait())
        await asyncio.wait({asked, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()  # without it a hung replica would hang its streams: better to be started again
        listening.close()
        await server.drain(GRACE_S)
        watching.cancel()
        tell(f"relay {given.index} stopped")
    # What is left are connections on which nothing runs; aiohttp would wait a minute for them.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
