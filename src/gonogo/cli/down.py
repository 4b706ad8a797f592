"""`gonogo down`: take one service down, or everything. Works without control: a user must always be able to stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gonogo.cli.options import Json, Lang, ServiceName, StateDir, Yes, told
from gonogo.cli.refusal import INTERRUPTED, WORLD_DID_NOT_COMPLY, WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.api.client import ControlClient
    from gonogo.cli.session import Session

All = Annotated[bool, typer.Option("--all", help=told("option.all"), show_default=False)]
LIMIT_S = 60.0
REPLICA_PATIENCE_S = 5.0


def command(
    service: ServiceName = None,
    everything: All = False,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
    yes: Yes = False,
) -> Outcome:
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang, yes)
    if everything:
        _confirm(session, "ask.down_all")
        return _all(session)
    name = _chosen(session, service)
    if name is None:
        session.say("down.nothing")
        return Outcome(result={"services": [], "ended": []})
    _confirm(session, "ask.down", service=name)
    return _one(session, name)


def _confirm(session: Session, question: str, **values: object) -> None:
    if session.asks and not typer.confirm(session.told(question, **values), default=True):
        raise Refusal("Declined", INTERRUPTED, {})


def _all(session: Session) -> Outcome:
    from gonogo.cli.deploy import principal
    from gonogo.cli.progress import Progress
    from gonogo.control.takedown import take_down

    with Progress(session) as progress:
        progress.step("progress.ending")
        taken = take_down(session.paths, principal())
    ended = [{"role": role, "name": name, "pid": pid} for role, name, pid in taken.ended]
    result: dict[str, Any] = {"services": list(taken.services), "ended": ended}
    if taken.left:
        known = ", ".join(f"{role} {name} ({pid})" for role, name, pid in taken.left)
        raise Refusal("WouldNotEnd", WORLD_DID_NOT_COMPLY, {"count": len(taken.left), "known": known}, result)
    if taken.fault is not None:
        session.say("down.unrecorded", count=len(ended))
        raise taken.fault
    said = "down.all" if ended or taken.services else "down.nothing"
    session.say(said, services=", ".join(taken.services) or "–", count=len(ended), state_dir=session.paths.root)
    return Outcome(result=result)


def _chosen(session: Session, asked: str | None) -> str | None:
    """The service that is meant; None when there is none at all."""
    known = _services(session)
    if asked is not None and asked not in known:
        raise Refusal("NoService", WRONG_INPUT, {"service": asked, "known": known})
    if asked is None and len(known) > 1:
        raise Refusal("WhichService", WRONG_INPUT, {"known": known, "all": "--all"})
    return asked or (known[0] if known else None)


def _services(session: Session) -> list[str]:
    import time

    from gonogo.store import open_store

    if not session.paths.database.exists():
        return []
    store = open_store(session.paths.database, clock=time.time)
    try:
        return [service.name for service in store.services()]
    finally:
        store.close()


def _one(session: Session, name: str) -> Outcome:
    from gonogo.api.client import ControlSilent
    from gonogo.cli.deploy import principal

    client = session.client()
    try:
        client.delete_service(name, principal())
    except ControlSilent:
        return _without_control(session, name)
    _wait_gone(session, client, name)
    session.say("down.one", service=name)
    return Outcome(result={"services": [name], "ended": []})


def _wait_gone(session: Session, client: ControlClient, name: str) -> None:
    from gonogo.cli.deploy import interruptible
    from gonogo.cli.progress import Progress, follow_until, newest_sequence

    with interruptible(session) as changes, Progress(session) as progress:
        changes.now("interrupted.down", "interrupted.next", service=name)
        progress.step("progress.down", service=name)
        after = newest_sequence(client)

        def gone(status: Any) -> bool | None:
            return None if any(one["name"] == name for one in status["services"]) else True

        if follow_until(client, progress, gone, after, LIMIT_S) is None:
            raise Refusal("NotGone", WORLD_DID_NOT_COMPLY, {"service": name, "seconds": LIMIT_S})


def _without_control(session: Session, name: str) -> Outcome:
    """Policy refuses the service from now on; its replicas are ended here. A later control finds nothing left to do."""
    import time

    from gonogo.cli.deploy import principal
    from gonogo.runtimes.local import LocalRuntime
    from gonogo.store import open_store

    store = open_store(session.paths.database, clock=time.time)
    try:
        with store.change(epoch=None, actor="cli", principal=principal()) as change:
            change.remove_service(name)
    finally:
        store.close()
    runtime = LocalRuntime(session.paths.root)
    mine = [one for one in runtime.scan() if one.role == "replica" and one.name.rsplit("/", 2)[0] == name]
    ended = [one for one in mine if runtime.end(one.handle, REPLICA_PATIENCE_S)]
    result = {
        "services": [name],
        "ended": [{"role": one.role, "name": one.name, "pid": one.pid} for one in ended],
    }
    left = [one for one in mine if one not in ended]
    if left:
        known = ", ".join(f"{one.name} ({one.pid})" for one in left)
        raise Refusal("WouldNotEnd", WORLD_DID_NOT_COMPLY, {"count": len(left), "known": known}, result)
    session.say("down.one", service=name)
    return Outcome(result=result)
