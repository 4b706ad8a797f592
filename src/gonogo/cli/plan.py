"""`gonogo plan`: what `apply` would do first, from what is so now. Changes nothing, and starts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

from gonogo.cli.options import Downtime, EngineAsked, HostNames, Json, Lang, Listen, ReplicaCount, StateDir, What
from gonogo.cli.refusal import Outcome

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.spec import Spec


def command(  # noqa: PLR0913, PLR0917 (one parameter is one option)
    what: What = None,
    listen: Listen = None,
    hostname: HostNames = None,
    replicas: ReplicaCount = None,
    engine: EngineAsked = None,
    allow_downtime: Downtime = False,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    from gonogo.cli.checklist import print_checklist
    from gonogo.cli.choose_engine import with_engine
    from gonogo.cli.deploy import blocked
    from gonogo.cli.provision import found_here
    from gonogo.cli.session import open_session
    from gonogo.cli.specs import overridden, spec_of

    session = open_session(state_dir, json, lang)
    spec = with_engine(overridden(spec_of(session, what), listen, hostname, replicas), engine)
    spec = found_here(session, spec)
    planned = plan_of(session, spec, allow_downtime)
    if planned["blocked"]:
        raise blocked(session, list(planned["answers"]))
    print_checklist(session, planned["answers"])
    session.line()
    print_plan(session, planned)
    session.line()
    session.say("nothing_changed")
    return Outcome(result={**planned, "changed": False})


def plan_of(session: Session, spec: Spec, allow_downtime: bool = False) -> dict[str, Any]:
    """Control's plan for `spec`; where no control runs, the plan of a machine on which nothing of ours runs."""
    import json

    from gonogo.api.client import ControlSilent

    try:
        return session.client().plan(json.loads(spec.model_dump_json()), allow_downtime)
    except ControlSilent:
        from gonogo.control import views
        from gonogo.control.preflight import plan
        from gonogo.spec import Revision

        made: dict[str, Any] = views.plan(plan(session.paths, Revision(number=1, spec=spec)))
        return made


def print_plan(session: Session, planned: Mapping[str, Any]) -> None:
    """The ordered actions, one a line."""
    from rich.table import Table
    from rich.text import Text

    if not planned["actions"]:
        session.say("plan.nothing")
        return
    session.say("plan.head", observation=planned["observation"], count=len(planned["actions"]))
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", min_width=4)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for number, action in enumerate(planned["actions"], start=1):
        table.add_row(f"{number}.", str(action["action"]), Text(_described(session, action)))
    session.out.print(table)


def _described(session: Session, action: Mapping[str, Any]) -> str:
    placement = action.get("placement") or {}
    name = placement.get("name") or action.get("name") or {}
    values: dict[str, object] = {
        **{key: value for key, value in action.items() if isinstance(value, (str, int, float))},
        **{key: placement[key] for key in ("address", "port", "threads") if key in placement},
        "replica": f"{name['service']}/{name['revision']}/{name['index']}" if name else None,
        "clusters": ", ".join(str(one["name"]) for one in action.get("clusters", ())),
        "listeners": ", ".join(f"{one['address']}:{one['port']}" for one in action.get("listeners", ())),
        "reason": (action.get("finding") or action).get("reason"),
    }
    return session.told(f"action.{action['action']}", **values)
