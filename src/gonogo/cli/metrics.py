"""`gonogo metrics`: the metrics in Prometheus's text form, once, or served on the loopback for a scraper.

Serving is a process of its own, started only where somebody wants it: no port is open without it. It goes on without
control, with what the store knows.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Callable, Optional

import typer

from gonogo.cli.options import Json, Lang, StateDir, told
from gonogo.cli.refusal import WORLD_DID_NOT_COMPLY, WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session

Serve = Annotated[
    Optional[str],
    typer.Option("--listen", metavar="ADDRESS:PORT", help=told("option.metrics_listen"), show_default=False),
]


def command(listen: Serve = None, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    if listen is None:
        found = current(session)
        session.line(found.rstrip("\n"))
        return Outcome(result={"metrics": found})
    serve(session, *_address(listen))
    return Outcome(result={"listened": listen})


def current(session: Session) -> str:
    """What control tells; without control, what the store tells."""
    from gonogo.api.client import ControlSilent

    try:
        return session.client().metrics()
    except ControlSilent:
        return _without_control(session)


def serve(session: Session, address: str, port: int) -> None:
    """Answer scrapers until Ctrl-C. Raises `Refusal` PortNotOpened."""
    try:
        server = ThreadingHTTPServer((address, port), handler(lambda: current(session)))
    except OSError as error:
        values = {"address": address, "port": port, "words": error.strerror or str(error)}
        raise Refusal("PortNotOpened", WORLD_DID_NOT_COMPLY, values) from None
    server.daemon_threads = True
    session.say("metrics.served", url=f"http://{address}:{server.server_port}/metrics")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return
    finally:
        server.server_close()


def handler(render: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    """GET /metrics and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "there is /metrics")
                return
            try:
                body = render().encode()
            except Exception as error:  # noqa: BLE001 (a boundary: the scraper sees that there is nothing, and tries again)
                self.send_error(503, type(error).__name__)
                return
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    return Handler


def _without_control(session: Session) -> str:
    from gonogo.cli.stored import existing_store
    from gonogo.control.metrics import from_store
    from gonogo.monitoring.exposition import text

    with existing_store(session) as store:
        return text(from_store(store))


def _address(given: str) -> tuple[str, int]:
    address, _, port = given.rpartition(":")
    address = address.strip("[]") or "127.0.0.1"
    try:
        loopback = ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback or not port.isdecimal() or int(port) > 65535:
        words = f"{given}: 127.0.0.1:PORT"
        raise Refusal(
            "OptionMistaken", WRONG_INPUT, {"option": "--listen", "words": words, "command": "gonogo metrics"}
        )
    return address, int(port)
