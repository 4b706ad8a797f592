"""The journal of actions: what was started and not yet finished, so that a crash shows what was half-done."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from gonogo.actions.model import (
    Action,
    EnsureReplica,
    ForgetService,
    ProbeRevision,
    Promote,
    Reject,
    RemoveReplica,
)
from gonogo.facts.replica import ReplicaName
from gonogo.security.chain import Json, canonical
from gonogo.store import queries
from gonogo.store import tables as t
from gonogo.store.log import Log, Subject
from gonogo.store.plain import plain
from gonogo.store.records import OpenAction

_LONGEST_ERROR = 4000


def started(connection: sa.Connection, log: Log, action: Action, *, epoch: int, now: float) -> None:
    """Note that `action` begins. Begun again after a crash, it counts from now."""
    subject, detail = about(action), _detail(action)
    event = log.append("ActionStarted", subject, detail)
    finish(connection, action)
    row = {
        "digest": _digest(action),
        "action": type(action).__name__,
        "service": subject.service,
        "revision": subject.revision,
        "detail": canonical(detail).decode("utf-8"),
        "epoch": epoch,
        "started_at": now,
        "sequence": event.sequence,
    }
    connection.execute(sa.insert(t.journal).values(**row))


def finished(connection: sa.Connection, log: Log, action: Action) -> None:
    """Note that `action` is done."""
    log.append("ActionFinished", about(action), {"action": type(action).__name__, **_replica(action)})
    finish(connection, action)


def failed(connection: sa.Connection, log: Log, action: Action, error: BaseException | str) -> None:
    """Note that `action` could not be done, and the error's words."""
    words = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    detail = {"action": type(action).__name__, **_replica(action), "error": words[:_LONGEST_ERROR]}
    log.append("ActionFailed", about(action), detail)
    finish(connection, action)


def finish(connection: sa.Connection, action: Action) -> None:
    """The action is open no more."""
    connection.execute(sa.delete(t.journal).where(t.journal.c.digest == _digest(action)))


def abandon(connection: sa.Connection, log: Log, *, epoch: int) -> tuple[OpenAction, ...]:
    """What earlier holders of the lease left open is open no more. Returns it."""
    left = tuple(action for action in queries.open_actions(connection) if action.epoch < epoch)
    for action in left:
        detail = {**action.detail, "epoch": action.epoch, "started": action.sequence}
        log.append("ActionAbandoned", Subject(service=action.service, revision=action.revision), detail)
    connection.execute(sa.delete(t.journal).where(t.journal.c.epoch < epoch))
    return left


def about(action: Action) -> Subject:
    """The service and revision that an action is about; those of the whole deployment have none."""
    name = _replica_name(action)
    if name is not None:
        return Subject(service=name.service, revision=name.revision)
    if isinstance(action, (ProbeRevision, Promote, Reject)):
        return Subject(service=action.service, revision=action.revision)
    if isinstance(action, ForgetService):
        return Subject(service=action.service)
    return Subject()


def _replica_name(action: Action) -> ReplicaName | None:
    if isinstance(action, EnsureReplica):
        return action.placement.name
    if isinstance(action, RemoveReplica):
        return action.name
    return None


def _replica(action: Action) -> dict[str, Json]:
    name = _replica_name(action)
    return {} if name is None else {"replica": str(name)}


def _detail(action: Action) -> dict[str, Json]:
    fields = plain(action)
    assert isinstance(fields, dict)
    return {"action": type(action).__name__, **_replica(action), **fields}


def _digest(action: Action) -> str:
    return hashlib.sha256(canonical(_detail(action))).hexdigest()
