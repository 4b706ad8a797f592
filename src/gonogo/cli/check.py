"""`gonogo check`: every question that can be answered now: of what runs, or of what would run; and of this host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Mapping, Optional

import typer

from gonogo.cli.options import Json, Lang, StateDir, What, told
from gonogo.cli.refusal import BLOCKED, WORLD_DID_NOT_COMPLY, WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.facts.host import HostFacts

Live = Annotated[bool, typer.Option("--live", help=told("option.live"), show_default=False)]
Measure = Annotated[bool, typer.Option("--measure", help=told("option.measure"), show_default=False)]
ProfileName = Annotated[
    Optional[str], typer.Option("--profile", metavar="NAME|FILE", help=told("option.profile"), show_default=False)
]
Interpreter = Annotated[
    Optional[str], typer.Option("--python", metavar="PATH", help=told("option.python"), show_default=False)
]
Answers = list[Mapping[str, Any]]


def command(  # noqa: PLR0913, PLR0917 (one parameter is one option)
    what: What = None,
    live: Live = False,
    measure: Measure = False,
    profile: ProfileName = None,
    python: Interpreter = None,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    from gonogo.api.report.checklist import advising, blocking, counts, latest
    from gonogo.cli.checklist import print_checklist
    from gonogo.cli.host import print_host
    from gonogo.cli.measure import measured
    from gonogo.cli.profiles import profile_of
    from gonogo.cli.session import open_session
    from gonogo.control import preflight, views

    session = open_session(state_dir, json, lang)
    if python is not None and not measure:
        raise Refusal("OptionMistaken", WRONG_INPUT, {"option": "--python", "words": session.told("measure.only")})
    wished = profile_of(session, profile)
    answers, host = (_live(session, what), None) if live else _known(session, what)
    if measure or profile is not None or not live:
        host = host or preflight.look_at_this_host(session.paths)
    if host is not None and measure:
        host = replace(host, measured=measured(session, host, wished, python))
    if host is not None:
        answers = [*answers, *(views.answer(one) for one in preflight.judge_host(host, wished))]
        print_host(session, host)
    shown = latest(answers)
    print_checklist(session, answers)
    session.line()
    found = counts(shown)
    session.say("check.counts", **{**found, "advice": len(advising(shown))})
    wrong = blocking(shown)
    result = {"findings": found, "answers": answers, "profile": wished.name, "host": views.plain(host)}
    if wrong:
        raise Refusal("ChecksFail", BLOCKED, {"count": len(wrong)}, result)
    session.say("nothing_changed")
    return Outcome(result=result)


def _known(session: Session, what: str | None) -> tuple[Answers, HostFacts | None]:
    """With a spec, or where nothing runs: the preflight of that spec. Otherwise what control knows.

    The host beside it is what was seen of it on the way, None where control did the looking.
    """
    from gonogo.api.client import ControlSilent
    from gonogo.cli.provision import found_here
    from gonogo.cli.specs import spec_of

    if what is None:
        try:
            known = session.client().check()
        except ControlSilent:
            known = []
        if known:
            return list(known), None
    spec = found_here(session, spec_of(session, what))
    try:
        planned = session.client().plan(spec.model_dump(mode="json"))
    except ControlSilent:
        return _looked(session, spec)
    answers = list(planned["answers"])
    if answers or what is None:
        return answers, None
    return list(session.client().check(spec.service)), None  # unchanged and running: nothing is planned, all is known


def _looked(session: Session, spec: Any) -> tuple[Answers, HostFacts | None]:
    """No control runs: the look and the questions are our own."""
    from gonogo.control import preflight, views
    from gonogo.spec import Revision

    revision = Revision(number=1, spec=spec)
    world = preflight.look(session.paths, revision)
    return [views.answer(one) for one in preflight.preflight(session.paths, revision, world)], world.host


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
