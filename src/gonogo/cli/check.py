"""`gonogo check`: every question that can be answered now: of what runs, or of what would run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Mapping

import typer

from gonogo.cli.options import Json, Lang, StateDir, What, told
from gonogo.cli.refusal import BLOCKED, WORLD_DID_NOT_COMPLY, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session

Live = Annotated[bool, typer.Option("--live", help=told("option.live"), show_default=False)]
Answers = list[Mapping[str, Any]]


def command(
    what: What = None, live: Live = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    from gonogo.api.report.checklist import advising, blocking, counts, latest
    from gonogo.cli.checklist import print_checklist
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    answers = _live(session, what) if live else _known(session, what)
    shown = latest(answers)
    print_checklist(session, answers)
    session.line()
    found = counts(shown)
    session.say("check.counts", **{**found, "advice": len(advising(shown))})
    wrong = blocking(shown)
    if wrong:
        values = {"count": len(wrong)}
        raise Refusal("ChecksFail", BLOCKED, values, {"findings": found, "answers": answers})
    session.say("nothing_changed")
    return Outcome(result={"findings": found, "answers": answers})


def _known(session: Session, what: str | None) -> Answers:
    """With a spec, or where nothing runs: the preflight of that spec. Otherwise what control knows."""
    from gonogo.api.client import ControlSilent
    from gonogo.cli.plan import plan_of
    from gonogo.cli.specs import spec_of

    if what is None:
        try:
            known = session.client().check()
        except ControlSilent:
            known = []
        if known:
            return list(known)
    spec = spec_of(session, what)
    answers = list(plan_of(session, spec)["answers"])
    if answers or what is None:
        return answers
    return list(session.client().check(spec.service))  # unchanged and running: nothing is planned, all is known


def _live(session: Session, what: str | None) -> Answers:
    from gonogo.cli.progress import Progress
    from gonogo.cli.specs import spec_of

    client = session.running_client()
    services = [str(one["name"]) for one in client.status()["services"]]
    if what is not None and what not in services:
        services = [spec_of(session, what).service]
    elif what is not None:
        services = [what]
    if not services:
        raise Refusal("NoService", WORLD_DID_NOT_COMPLY, {})
    answers: Answers = []
    with Progress(session) as progress:
        for name in services:
            progress.step("progress.asking", service=name)
            answers.extend(client.check_live(name))
    return answers
