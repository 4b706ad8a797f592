"""`gonogo env check|lock|create|list|remove|collect|bundle`: the environments of engines and agents, each its own."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Iterator, Optional

import typer

from gonogo.cli.options import Json, Lang, StateDir, Yes, told
from gonogo.cli.refusal import BLOCKED, WORLD_DID_NOT_COMPLY, WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.plan.collect import Uses
    from gonogo.runtimes.environments import EnvironmentStore, Made

Target = Annotated[str, typer.Argument(metavar="ENGINE|RECIPE", help=told("argument.env_target"), show_default=False)]
AnyTarget = Annotated[
    Optional[str], typer.Argument(metavar="ENGINE|RECIPE", help=told("argument.env_target"), show_default=False)
]
Name = Annotated[str, typer.Argument(metavar="NAME", help=told("argument.env_name"), show_default=False)]
Versions = Annotated[
    Optional[str], typer.Option("--version", metavar="X.Y.Z|RANGE", help=told("option.env_version"), show_default=False)
]
EngineName = Annotated[
    Optional[str], typer.Option("--engine", metavar="NAME", help=told("option.env_engine"), show_default=False)
]
PythonWanted = Annotated[
    Optional[str], typer.Option("--python", metavar="X.Y", help=told("option.env_python"), show_default=False)
]
Wheels = Annotated[
    Optional[list[str]], typer.Option("--wheels", metavar="DIR", help=told("option.env_wheels"), show_default=False)
]
Offline = Annotated[bool, typer.Option("--offline", help=told("option.env_offline"), show_default=False)]
Output = Annotated[Optional[str], typer.Option("--output", "-o", metavar="FILE", help=told("option.output"))]
LockFile = Annotated[
    Optional[str], typer.Option("--lock", metavar="FILE", help=told("option.env_lock"), show_default=False)
]
BundleFile = Annotated[
    Optional[str], typer.Option("--bundle", metavar="FILE", help=told("option.env_bundle"), show_default=False)
]
Prefix = Annotated[
    Optional[str], typer.Option("--prefix", metavar="DIR", help=told("option.env_prefix"), show_default=False)
]
Described = Annotated[
    Optional[str], typer.Option("--file", "-f", metavar="FILE", help=told("option.env_file"), show_default=False)
]
Against = Annotated[
    Optional[str],
    typer.Option("--against", metavar="guide|RECIPE", help=told("option.env_against"), show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help=told("option.env_dry_run"), show_default=False)]
MIB = 1024**2
WRONG = ("LockUnreadable", "EnvironmentNotRead", "BundleUnreadable", "EnvironmentNotThere")
STOPPED = ("EnvironmentInUse", "LockForeign", "PackagePoisoned", "ReleaseNotThere", "DiskTooSmall")


def application() -> typer.Typer:
    """The verbs under `env`."""
    made = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    for name, verb in (("check", check), ("lock", lock), ("create", create), ("list", list_all)):
        made.command(name, help=told(f"env.{name}"))(verb)
    made.command("remove", help=told("env.remove"))(remove)
    made.command("collect", help=told("env.collect"))(collect)
    made.command("bundle", help=told("env.bundle"))(bundle)
    return made


def check(  # noqa: PLR0913, PLR0917 (one parameter is one option)
    target: AnyTarget = None,
    prefix: Prefix = None,
    file: Described = None,
    against: Against = None,
    version: Versions = None,
    engine: EngineName = None,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    """What is here against what is needed; or an environment that somebody else made."""
    from gonogo.cli import env_check
    from gonogo.cli.env_choice import Order
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    with faults(session):
        if prefix is not None or file is not None:
            return env_check.judge_given(session, prefix, file, against)
        return env_check.check_here(session, _store(session), Order(target=target, versions=version, engine=engine))


def lock(  # noqa: PLR0913, PLR0917
    target: Target,
    version: Versions = None,
    engine: EngineName = None,
    python: PythonWanted = None,
    wheels: Wheels = None,
    offline: Offline = False,
    output: Output = None,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    """Resolve, and write the lock under its address; its path goes to standard output."""
    from gonogo.cli.env_choice import Order, locked
    from gonogo.cli.session import open_session
    from gonogo.facts.environment_lock import render_lock
    from gonogo.runtimes.environments import fault_of
    from gonogo.runtimes.whole_folders import write_whole

    session = open_session(state_dir, json, lang)
    store = _store(session)
    with faults(session):
        order = Order(
            target=target,
            versions=version,
            engine=engine,
            python=python,
            wheels=tuple(wheels or ()),
            offline=offline,
        )
        made = locked(session, store, order, fresh=True)
        path = store.keep_lock(made.lock.digest, render_lock(made.lock))
        if output is not None:
            path = Path(output).absolute()
            try:
                write_whole(path, render_lock(made.lock))
            except OSError as error:
                raise fault_of(error, path) from None
    session.line(str(path))
    return Outcome(result={"lock": made.lock.digest, "path": str(path), **made.plain()})


def create(  # noqa: PLR0913, PLR0917
    target: AnyTarget = None,
    version: Versions = None,
    engine: EngineName = None,
    python: PythonWanted = None,
    wheels: Wheels = None,
    offline: Offline = False,
    lock_file: LockFile = None,
    bundle_file: BundleFile = None,
    yes: Yes = False,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    """Make an environment that works here, from a lock; ends with its path and what its engine answered."""
    from gonogo.cli.env_choice import Order
    from gonogo.cli.env_create import create_environment
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang, yes)
    order = Order(
        target=target,
        versions=version,
        engine=engine,
        python=python,
        wheels=tuple(wheels or ()),
        offline=offline,
        lock_file=lock_file,
        bundle_file=bundle_file,
    )
    if target is None and lock_file is None and bundle_file is None:
        words = "ENGINE|RECIPE, --lock FILE, --bundle FILE"
        raise Refusal("WrongUsage", WRONG_INPUT, {"words": words, "command": "gonogo env create"})
    with faults(session):
        return create_environment(session, _store(session), order)


def list_all(state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    """Every whole environment: name, engine, version, Python, size, who needs it."""
    from gonogo.cli.env_page import environments_table, plain_environment
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    store = _store(session)
    found, uses = store.all(), _uses(session)
    if found:
        session.out.print(environments_table(session, found, uses))
    else:
        session.say("env.none")
    told_of = [{**plain_environment(one), "used_by": list(uses.get(one.name, ()))} for one in found]
    return Outcome(result={"environments": told_of})


def remove(name: Name, yes: Yes = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    """Take one environment away. Its lock stays: it can be made again."""
    from gonogo.cli.session import open_session
    from gonogo.runtimes.uv import EnvironmentFault

    session = open_session(state_dir, json, lang, yes)
    store = _store(session)
    with faults(session):
        found = store.find(name)
        if found is None:
            known = ", ".join(one.name for one in store.all())
            raise EnvironmentFault("EnvironmentNotThere", {"name": name, "known": known})
        _refuse_used(session, found)
        if session.asks and not typer.confirm(session.told("env.ask_remove", name=name)):
            session.say("nothing_changed")
            return Outcome(result={"removed": None})
        store.remove(name)
    session.say("env.removed", name=name)
    return Outcome(result={"removed": name})


def collect(
    dry_run: DryRun = False, yes: Yes = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    """Take away every environment that nobody needs: control does so each hour, this does it now."""
    import time

    from gonogo.cli.session import open_session
    from gonogo.control import collect as collecting

    session = open_session(state_dir, json, lang, yes)
    store, now = _store(session), time.time()
    with faults(session):
        uses = _uses(session)
        found = collecting.unused_here(store, uses, now)
        for made in found:
            session.say("env.may_go", name=made.name, mib=made.disk_bytes // MIB)
        asked = found and not dry_run and session.asks
        if asked and not typer.confirm(session.told("ask.apply"), default=False):
            found = ()
        if not found or dry_run:
            session.say("nothing_changed")
            names = [made.name for made in found]
            return Outcome(result={"collected": [], "would_go": names, "bytes": sum(one.disk_bytes for one in found)})
        gone = collecting.collect(store, uses, now, lambda made: session.say("env.removed", name=made.name))
    size = sum(one.disk_bytes for one in gone)
    return Outcome(result={"collected": [one.name for one in gone], "would_go": [], "bytes": size})


def bundle(  # noqa: PLR0913, PLR0917
    target: AnyTarget = None,
    output: Output = None,
    version: Versions = None,
    engine: EngineName = None,
    python: PythonWanted = None,
    wheels: Wheels = None,
    offline: Offline = False,
    lock_file: LockFile = None,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    """One file with a lock and all its wheels, for `gonogo env create --bundle` on a machine without an index."""
    from gonogo.cli.env_choice import Order
    from gonogo.cli.env_create import create_bundle
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    order = Order(
        target=target,
        versions=version,
        engine=engine,
        python=python,
        wheels=tuple(wheels or ()),
        offline=offline,
        lock_file=lock_file,
    )
    if target is None and lock_file is None:
        words = "ENGINE|RECIPE, --lock FILE"
        raise Refusal("WrongUsage", WRONG_INPUT, {"words": words, "command": "gonogo env bundle"})
    with faults(session):
        return create_bundle(session, _store(session), order, output)


@contextmanager
def faults(session: Session) -> Iterator[None]:
    """What the parts below cannot do becomes a refusal with the right exit code."""
    from gonogo.runtimes.uv import EnvironmentFault

    try:
        yield
    except EnvironmentFault as fault:
        code = WRONG_INPUT if fault.reason in WRONG else BLOCKED if fault.reason in STOPPED else WORLD_DID_NOT_COMPLY
        values: dict[str, Any] = {**fault.values, "what": fault.values.get(f"what_{session.lang}")}
        values = {name: value for name, value in values.items() if value is not None and not name.startswith("what_")}
        raise Refusal(fault.reason, code, values) from None


def _uses(session: Session) -> Uses:
    """Who needs which environment. Raises StoreError: what cannot be read is not taken for unused."""
    from gonogo.control.collect import uses_here

    return uses_here(session.paths)


def _refuse_used(session: Session, made: Made) -> None:
    """Raises EnvironmentFault for an environment that a revision needs or a process runs from."""
    from gonogo.runtimes.environment_use import processes_in
    from gonogo.runtimes.uv import EnvironmentFault

    users = [*_uses(session).get(made.name, ()), *(f"pid {pid}" for pid in processes_in(made.path))]
    if users:
        raise EnvironmentFault("EnvironmentInUse", {"name": made.name, "users": ", ".join(users)})


def _store(session: Session) -> EnvironmentStore:
    from gonogo.runtimes.environments import EnvironmentStore

    return EnvironmentStore(session.paths.environments)
