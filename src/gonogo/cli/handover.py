"""What `up` hands over: endpoint, CA, key, lines for curl, the SDK and the recipe's programs, the report.

All of it works when pasted; the lines themselves are in `gonogo.words.client_lines`.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gonogo.cli.session import Session

KEY_NAME = "up"
"""The name of the key that `up` makes; while a live one of that name opens the service, no other is made."""


def key_for(session: Session, service: str) -> str | None:
    """A new API key for `service`; None when an earlier `up` made one that still counts. Raises `StoreError`."""
    import time

    from gonogo.cli.keyring import add_key
    from gonogo.security.keys import usable
    from gonogo.store import open_store

    store = open_store(session.paths.database, clock=time.time)
    try:
        now = time.time()
        known = (key for key in store.keys(service) if key.name == KEY_NAME and key.revision is None)
        if any(usable(key, now) for key in known):
            return None
        return add_key(store, name=KEY_NAME, service=service, scopes=("inference", "models"), expires_at=None)[0]
    finally:
        store.close()


def print_handover(session: Session, result: dict[str, Any]) -> None:
    """What to copy, and what to do next. `result` is the object that `up --json` prints."""
    from gonogo.cli.clients import make_key_line, print_clients, programs_of
    from gonogo.words.client_lines import Access, client_lines

    key = result["api_key"]
    session.line()
    rows = (
        ("handover.endpoint", result["endpoint"]),
        ("handover.grpc", f"{grpc_address(result['endpoint'])}   (gonogo docs grpc)"),
        ("handover.ca", result["ca_file"]),
        ("handover.key", key or session.told("handover.key_from_before")),
        ("handover.report", result["report"]),
    )
    labels = [session.told(name) for name, _ in rows]
    width = max(map(_cells, labels))
    for label, (name, value) in zip(labels, rows, strict=True):
        once = f"   ({session.told('handover.once')})" if name == "handover.key" and key else ""
        session.line(f"  {label}{' ' * (width - _cells(label))}  {value}{once}")
    if shutil.which("gonogo") is None:
        session.line()
        session.say("handover.path")
        session.line(f'export PATH={shlex.quote(str(Path(sys.argv[0]).resolve().parent))}:"$PATH"')
    if key is None:
        session.line()
        session.say("handover.make_key")
        session.line(make_key_line(session, result["service"]))
    access = Access(endpoint=result["endpoint"], ca_file=result["ca_file"], service=result["service"], key=key)
    print_clients(session, access, client_lines(access, programs_of(result["model"], result["service"])))
    session.line()
    session.say("handover.next", service=result["service"])


def grpc_address(endpoint: str) -> str:
    """What a gRPC client connects to: the host and port of the base URL."""
    return endpoint.removeprefix("https://").partition("/")[0]


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
