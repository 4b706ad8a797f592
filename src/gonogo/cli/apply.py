"""`gonogo apply`: make it so, where control runs already. A changed spec becomes a new revision."""

from __future__ import annotations

from gonogo.cli.options import Downtime, EngineAsked, HostNames, Json, Lang, Listen, ReplicaCount, StateDir, What, Yes
from gonogo.cli.refusal import INTERRUPTED, Outcome, Refusal


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
    yes: Yes = False,
) -> Outcome:
    import typer

    from gonogo.api.report.checklist import counts, latest
    from gonogo.cli.checklist import print_checklist
    from gonogo.cli.choose_engine import with_engine
    from gonogo.cli.deploy import Asked, deploy, interruptible
    from gonogo.cli.plan import plan_of, print_plan
    from gonogo.cli.progress import Progress
    from gonogo.cli.provision import provisioned
    from gonogo.cli.session import open_session
    from gonogo.cli.specs import overridden, spec_of
    from gonogo.cli.up import process_started_at

    started_at = process_started_at()
    session = open_session(state_dir, json, lang, yes)
    spec = with_engine(overridden(spec_of(session, what), listen, hostname, replicas), engine)
    client = session.running_client()
    with interruptible(session) as changes:
        spec = provisioned(session, spec)
        if session.asks:
            planned = plan_of(session, spec, allow_downtime)
            print_plan(session, planned)
            if planned["actions"] and not typer.confirm(session.told("ask.apply"), default=True):
                raise Refusal("Declined", INTERRUPTED, {})
        asked = Asked(spec=spec, started_at=started_at, allow_downtime=allow_downtime)
        with Progress(session) as progress:
            deployed = deploy(session, client, asked, changes, progress)
        print_checklist(session, deployed.answers)
        session.line()
        said = "up.changed" if deployed.changed else "up.unchanged"
        session.say(said, service=deployed.name, revision=deployed.revision)
    return Outcome(
        result={
            "service": deployed.name,
            "revision": deployed.revision,
            "changed": deployed.changed,
            "seconds_to_proven": deployed.service.get("seconds_to_proven"),
            "findings": counts(latest(deployed.answers)),
        }
    )
