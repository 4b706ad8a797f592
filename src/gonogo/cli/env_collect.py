"""`gonogo env collect`, and why `gonogo env remove` refuses: environments and who needs them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from gonogo.cli.refusal import Outcome
from gonogo.control.collect import collect, unused_here, uses_here
from gonogo.runtimes.environment_use import processes_in
from gonogo.runtimes.uv import EnvironmentFault

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.runtimes.environments import EnvironmentStore, Made

MIB = 1024**2


def collect_unused(session: Session, store: EnvironmentStore, dry_run: bool) -> Outcome:
    """Say what may go, ask, and take it away. Raises StoreError: what cannot be read is not taken for unused."""
    uses, now = uses_here(session.paths), time.time()
    found = unused_here(store, uses, now)
    for made in found:
        session.say("env.may_go", name=made.name, mib=made.disk_bytes // MIB)
    refused = bool(found) and session.asks and not dry_run and not typer.confirm(session.told("ask.apply"))
    if not found or dry_run or refused:
        session.say("nothing_changed")
        names, size = [made.name for made in found], sum(made.disk_bytes for made in found)
        return Outcome(result={"collected": [], "would_go": names, "bytes": size})
    gone = collect(store, uses, now, lambda made: session.say("env.removed", name=made.name))
    size = sum(made.disk_bytes for made in gone)
    return Outcome(result={"collected": [made.name for made in gone], "would_go": [], "bytes": size})


def refuse_used(session: Session, made: Made) -> None:
    """Raises EnvironmentFault for an environment that a revision needs or a process runs from; StoreError."""
    users = [*uses_here(session.paths).get(made.name, ()), *(f"pid {pid}" for pid in processes_in(made.path))]
    if users:
        raise EnvironmentFault("EnvironmentInUse", {"name": made.name, "users": ", ".join(users)})
