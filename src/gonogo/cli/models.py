"""`gonogo models fetch|list|remove`: the weights on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from gonogo.cli.options import Json, Lang, StateDir, Yes, told
from gonogo.cli.refusal import Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.runtimes.models import ModelStore

What = Annotated[
    str, typer.Argument(metavar="RECIPE|OWNER/NAME|FOLDER", help=told("argument.model_wish"), show_default=False)
]
Name = Annotated[str, typer.Argument(metavar="NAME", help=told("argument.model_name"), show_default=False)]
From = Annotated[
    Optional[str],
    typer.Option("--from", metavar="hf|modelscope|URL", help=told("option.model_from"), show_default=False),
]
Revision = Annotated[
    Optional[str], typer.Option("--revision", metavar="NAME", help=told("option.model_revision"), show_default=False)
]
Form = Annotated[
    Optional[str],
    typer.Option("--quantization", metavar="NAME", help=told("option.model_quantization"), show_default=False),
]
Files = Annotated[
    Optional[list[str]],
    typer.Option("--file", metavar="NAME.gguf", help=told("option.model_file"), show_default=False),
]


def application() -> typer.Typer:
    """The verbs under `models`."""
    made = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    for name, verb in (("fetch", fetch), ("list", list_all), ("remove", remove)):
        made.command(name, help=told(f"models.{name}"))(verb)
    return made


def fetch(  # noqa: PLR0913, PLR0917 (one parameter is one option)
    what: What,
    source: From = None,
    revision: Revision = None,
    quantization: Form = None,
    file: Files = None,
    yes: Yes = False,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    """Fetch the weights, or find them fetched; the folder goes to standard output."""
    from gonogo.cli.model_fetch import Source, fetched
    from gonogo.cli.model_wish import endpoint_of, wish_of
    from gonogo.cli.models_page import fetched_lines, plain_model, plain_plan
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang, yes)
    wish = wish_of(what, quantization, tuple(file or ()))
    where = Source(endpoint=endpoint_of(source), given=source, revision=revision)
    found = fetched(session, wish, where)
    plan = None if found.plan is None else plain_plan(found.plan)
    if found.model is None:
        return Outcome(result={"model": None, "fetched": False, "plan": plan})
    for line in fetched_lines(session, found.model):
        session.line(line)
    if wish.folder is not None:
        session.say("models.in_place")
    else:
        session.say("models.fetched" if found.now else "models.was_there", name=found.model.name)
    return Outcome(result={"model": plain_model(found.model), "fetched": found.now, "plan": plan})


def list_all(state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    """Every whole model, and what is kept of those that are not."""
    from gonogo.cli.models_page import models_table, plain_model
    from gonogo.cli.session import open_session
    from gonogo.runtimes.whole_folders import disk_bytes

    session = open_session(state_dir, json, lang)
    store = _store(session)
    found = store.all()
    begun = [(one, disk_bytes(store.work(one.name))) for one in store.unfinished()]
    if found or begun:
        session.out.print(models_table(session, found, begun))
    else:
        session.say("models.none")
    unfinished: list[dict[str, Any]] = [
        {"name": one.name, "model": one.model, "source": one.source, "size_bytes": one.size_bytes, "disk_bytes": kept}
        for one, kept in begun
    ]
    return Outcome(result={"models": [plain_model(one) for one in found], "unfinished": unfinished})


def remove(name: Name, yes: Yes = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    """Take one away, whole or unfinished."""
    from gonogo.cli.model_fetch import exit_code_of
    from gonogo.cli.refusal import WRONG_INPUT
    from gonogo.cli.session import open_session
    from gonogo.runtimes.models import ModelFault

    session = open_session(state_dir, json, lang, yes)
    store = _store(session)
    known = {one.name: one.model for one in store.unfinished()} | {one.name: one.model for one in store.all()}
    if name not in known:
        raise Refusal("ModelNotFetched", WRONG_INPUT, {"name": name, "known": ", ".join(sorted(known)) or None})
    if session.asks and not typer.confirm(session.told("models.ask_remove", name=name)):
        session.say("nothing_changed")
        return Outcome(result={"removed": None})
    try:
        store.remove(name, known[name])
    except ModelFault as fault:
        raise Refusal(fault.reason, exit_code_of(fault), fault.values) from None
    session.say("models.removed", name=name)
    return Outcome(result={"removed": name})


def _store(session: Session) -> ModelStore:
    from gonogo.runtimes.models import ModelStore

    return ModelStore(session.paths.models)
