"""`gonogo up`: from nothing to a proven endpoint, and everything that one needs to use it."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gonogo.cli.options import (
    Downtime,
    EngineAsked,
    HostNames,
    Json,
    Lang,
    Listen,
    ReplicaCount,
    StateDir,
    What,
    Yes,
    told,
)
from gonogo.cli.refusal import WORLD_DID_NOT_COMPLY, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.deploy import Asked, Deployed
    from gonogo.cli.session import Session
    from gonogo.spec import Spec

Foreground = Annotated[bool, typer.Option("--foreground", help=told("option.foreground"), show_default=False)]
CONTROL_LIMIT_S = 30.0


def command(  # noqa: PLR0913, PLR0917 (one parameter is one option)
    what: What = None,
    listen: Listen = None,
    hostname: HostNames = None,
    replicas: ReplicaCount = None,
    engine: EngineAsked = None,
    allow_downtime: Downtime = False,
    foreground: Foreground = False,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
    yes: Yes = False,
) -> Outcome:
    from gonogo.cli.choose_engine import with_engine
    from gonogo.cli.deploy import Asked
    from gonogo.cli.session import open_session
    from gonogo.cli.specs import overridden, spec_of

    started_at = process_started_at()
    session = open_session(state_dir, json, lang, yes)
    spec = with_engine(overridden(spec_of(session, what), listen, hostname, replicas), engine)
    asked = Asked(spec=spec, started_at=started_at, allow_downtime=allow_downtime)
    return _in_foreground(session, asked) if foreground else bring_up(session, asked)


def bring_up(session: Session, asked: Asked) -> Outcome:
    """Check, start control where there is none, deploy, and hand over. Raises `Refusal`."""
    from dataclasses import replace

    from gonogo.cli.checklist import print_checklist
    from gonogo.cli.deploy import deploy, interruptible
    from gonogo.cli.handover import key_for, print_handover
    from gonogo.cli.progress import Progress
    from gonogo.cli.provision import provisioned
    from gonogo.cli.report import write_report

    with interruptible(session) as changes:
        asked = replace(asked, spec=provisioned(session, asked.spec))
        with Progress(session) as progress:
            _require_possible(session, asked.spec)
            progress.step("progress.control")
            changes.now("interrupted.control", "interrupted.next")
            client = session.started_client(progress.control_waited)
            deployed = deploy(session, client, asked, changes, progress)
            progress.step("progress.report")
            report = write_report(session, client, deployed.name, None)
        changes.now("interrupted.proven", "interrupted.next", service=deployed.name, revision=deployed.revision)
        result = _result(session, deployed, key_for(session, deployed.name), str(report))
        print_checklist(session, deployed.answers)
        session.line()
        _summary(session, deployed, result)
        print_handover(session, result)
        session.line()
        changed = "up.changed" if deployed.changed else "up.unchanged"
        session.say(changed, service=deployed.name, revision=deployed.revision)
    return Outcome(result=result)


def _require_possible(session: Session, spec: Spec) -> None:
    """Where nothing of ours runs, what blocks is found before anything is started. Raises `Refusal` Blocked.

    Where something runs, control asks: only it knows what its replicas hold already.
    """
    from gonogo.cli.deploy import blocked
    from gonogo.control import views
    from gonogo.control.preflight import preflight
    from gonogo.runtimes.local import LocalRuntime
    from gonogo.spec import Revision

    if LocalRuntime(session.paths.root).scan():
        return
    found = preflight(session.paths, Revision(number=1, spec=spec))
    if any(answer.blocking for answer in found):
        raise blocked(session, [views.answer(answer) for answer in found])


def process_started_at() -> float:
    """When this process began, in Unix seconds: the command's own start, before Python was loaded."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as stat, open("/proc/uptime") as uptime:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            age_s = float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - max(0.0, age_s)


def _result(session: Session, deployed: Deployed, key: str | None, report: str) -> dict[str, Any]:
    """The object of `up --json`; its schema is `docs/reference/up.schema.json`."""
    from gonogo.api.report.checklist import counts, latest

    service, status = deployed.service, deployed.status
    return {
        "service": deployed.name,
        "revision": deployed.revision,
        "changed": deployed.changed,
        "model": service["model"],
        "endpoint": service.get("endpoint") or status["endpoint"],
        "ca_file": status["ca_file"],
        "api_key": key,
        "state_dir": str(session.paths.root),
        "report": report,
        "seconds_to_proven": service.get("seconds_to_proven"),
        "replicas": [
            {"id": one["id"], "host": one["host"], "address": f"{one['address']}:{one['port']}", "pid": one["pid"]}
            for one in service["replicas"]
        ],
        "processes": status["processes"],
        "findings": counts(latest(deployed.answers)),
    }


def _summary(session: Session, deployed: Deployed, result: dict[str, Any]) -> None:
    from gonogo.api.report.checklist import advising, latest

    advice = advising(latest(deployed.answers))
    values = {
        "service": deployed.name,
        "revision": deployed.revision,
        "replicas": len(result["replicas"]),
        "passed": result["findings"]["pass"],
        "seconds": result["seconds_to_proven"],
    }
    told_line = session.told("up.proven", **values)
    session.out.print(f"✓ {told_line}", style="bold green", markup=False)
    if advice:
        session.say("up.advice", count=len(advice), reasons=", ".join(one["reason"] for one in advice))


def _in_foreground(session: Session, asked: Asked) -> Outcome:
    """Become the control process; a child does what `up` does. systemd then sees control as the unit's main process."""
    from gonogo.control.keeper import control_command
    from gonogo.control.launch import answers

    if answers(session.paths):
        raise Refusal("ControlAlreadyRuns", WORLD_DID_NOT_COMPLY, {"state_dir": str(session.paths.root)})
    session.paths.make()
    child = os.fork()
    if child == 0:
        # a grandchild, so that control never has a child that it does not know
        os._exit(0 if os.fork() else _once_control_answers(session, asked))
    os.waitpid(child, 0)
    root = str(session.paths.root)
    environment = {**os.environ, "GONOGO_STATE": root, "GONOGO_ROLE": "control", "GONOGO_NAME": "control"}
    words = control_command(session.paths.root)
    os.execve(words[0], words, environment)  # noqa: S606 (words, no shell)


def _once_control_answers(session: Session, asked: Asked) -> int:
    from gonogo.cli.main import finish
    from gonogo.control.launch import answers

    deadline = time.monotonic() + CONTROL_LIMIT_S
    while not answers(session.paths) and time.monotonic() < deadline:
        time.sleep(0.1)
    return finish(lambda: bring_up(session, asked), sys.argv[1:])
