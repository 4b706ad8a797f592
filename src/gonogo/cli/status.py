"""`gonogo status`: services, replicas and processes, as control sees them, or, without control, as the system does."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Mapping

from gonogo.cli.options import Json, Lang, StateDir
from gonogo.cli.refusal import WORLD_DID_NOT_COMPLY, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session

MIB = 1024 * 1024


def command(state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.api.client import ControlSilent
    from gonogo.cli.session import open_session
    from gonogo.cli.usage import print_availability

    session = open_session(state_dir, json, lang)
    try:
        status = session.client().status()
    except ControlSilent:
        raise _without_control(session) from None
    session.line(f"{session.told('status.state_dir')}  {status['state_dir']}")
    if not status["services"]:
        session.say("status.no_services")
    for service in status["services"]:
        _print_service(session, service)
    print_availability(session, status.get("availability") or {})
    _print_queue(session, status.get("queue"))
    _print_processes(session, status["processes"])
    return Outcome(result=status)


def _print_queue(session: Session, queue: Mapping[str, Any] | None) -> None:
    from gonogo.words.queue import queue_lines

    if queue is None:
        return
    session.line()
    first, *more = queue_lines(queue, session.lang)
    session.line(f"{session.told('report.queue')}: {first}")
    for line in more:
        session.line(f"  {line}")


def _without_control(session: Session) -> Refusal:
    """What the process table and the queue's ledger say. Traffic goes on without control, so this is worth showing."""
    from gonogo.runtimes.local import LocalRuntime
    from gonogo.tasks.database import NAME
    from gonogo.tasks.summary import summary_of

    processes: dict[str, list[int]] = {}
    for process in LocalRuntime(session.paths.root).scan():
        processes.setdefault(process.role, []).append(process.pid)
    seen = summary_of(session.paths.root / "tasks" / NAME, time.time())
    queue = None if seen is None else asdict(seen)
    _print_queue(session, queue)
    if processes:
        _print_processes(session, processes)
    values = {"state_dir": str(session.paths.root)}
    return Refusal("ControlNotRunning", WORLD_DID_NOT_COMPLY, values, {"processes": processes, "queue": queue})


def _print_service(session: Session, service: Mapping[str, Any]) -> None:
    from gonogo.cli.deploy import rejection_text

    session.line()
    phase = session.told(f"phase.{service['phase']}")
    session.out.print(f"{service['name']}  {phase}", style="bold", markup=False)
    values = {"desired": service["desired"], "serving": service["serving"], "model": service["model"]}
    session.say("status.service", **values)
    engine = service.get("engine") or {}
    if engine:
        told = {"engine": engine["name"], "version": engine["version"], "environment": engine["environment"]}
        session.say("status.engine", **told)
    if service.get("endpoint"):
        session.line(f"  {service['endpoint']}")
    if service.get("rejected"):
        session.say("status.rejected", revision=service["desired"], why=rejection_text(session, service["rejected"]))
    if service["replicas"]:
        session.out.print(_replicas(session, service["replicas"]))


def _replicas(session: Session, replicas: list[Mapping[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="dim")
    for name in ("replica", "health", "address", "pid", "restarts", "memory"):
        number = name in ("pid", "restarts", "memory")
        table.add_column(session.told(f"status.{name}"), justify="right" if number else "left")
    for one in replicas:
        health = str(one["health"] or "unknown")
        style = {"ready": "green", "starting": "yellow"}.get(health, "red")
        table.add_row(
            Text(one["id"]),
            Text(session.told(f"health.{health}"), style=style),
            f"{one['address']}:{one['port']}",
            "–" if one["pid"] is None else str(one["pid"]),
            str(one["restarts"]),
            "–" if one.get("url") else _memory(one.get("memory")),
        )
    return table


def _memory(measured: Mapping[str, Any] | None) -> str:
    resident = (measured or {}).get("resident_bytes")
    return "?" if resident is None else f"{resident / MIB:,.0f} MiB"


def _print_processes(session: Session, processes: Mapping[str, list[int]]) -> None:
    session.line()
    for role, pids in processes.items():
        session.line(f"  {session.told('role.' + role)}  {' '.join(map(str, pids)) or '–'}")
