"""The store's questions, by name: each takes a connection inside a transaction and gives back nouns."""

from __future__ import annotations

import json
from typing import Any, Mapping

import sqlalchemy as sa
from pydantic import ValidationError

from gonogo.plan.model import DesiredService
from gonogo.security.chain import GENESIS, Event, Head
from gonogo.security.keys import KeyRow
from gonogo.spec import Revision, Spec
from gonogo.store import tables as t
from gonogo.store.policy_view import (
    KEYS_SQL,
    REVISIONS_SQL,
    SERVING_SQL,
    VERSION_SQL,
    PolicyView,
    key_row,
    policy_view,
)
from gonogo.store.records import Lease, OpenAction, Rejection


class UnreadableSpec(Exception):
    """A kept spec is not one that this gonogo understands."""


def lease(connection: sa.Connection) -> Lease | None:
    """The lease, None before the first holder."""
    row = connection.execute(sa.select(t.lease)).mappings().one_or_none()
    return None if row is None else Lease(epoch=row["epoch"], holder=row["holder"], since=row["since_at"])


def services(connection: sa.Connection) -> tuple[DesiredService, ...]:
    """Every service that was asked for and not yet forgotten, by name."""
    rows = connection.execute(sa.select(t.services).order_by(t.services.c.name)).mappings().all()
    return tuple(_desired_service(connection, row) for row in rows)


def revision(connection: sa.Connection, service: str, number: int) -> Revision | None:
    r = t.revisions
    query = sa.select(r.c.number, r.c.spec).where(r.c.service == service, r.c.number == number)
    row = connection.execute(query).one_or_none()
    return None if row is None else _revision(row.number, row.spec)


def revisions(connection: sa.Connection, service: str) -> tuple[Revision, ...]:
    """Every revision ever asked for, oldest first, those of a forgotten service too."""
    r = t.revisions
    query = sa.select(r.c.number, r.c.spec).where(r.c.service == service).order_by(r.c.number)
    return tuple(_revision(row.number, row.spec) for row in connection.execute(query))


def rejection(connection: sa.Connection, service: str, number: int) -> Rejection | None:
    """Why the revision was rejected; None when it was not."""
    r = t.revisions
    query = sa.select(r.c.rejected_reason, r.c.rejected_detail).where(r.c.service == service, r.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None or row.rejected_reason is None:
        return None
    return Rejection(reason=row.rejected_reason, detail=json.loads(row.rejected_detail))


def keys(connection: sa.Connection, service: str | None) -> tuple[KeyRow, ...]:
    """Every key; with `service` only those that open it, the ones for all services included. Oldest first."""
    rows = map(key_row, connection.exec_driver_sql(KEYS_SQL))
    chosen = [key for key in rows if service is None or key.service in (None, service)]
    return tuple(sorted(chosen, key=lambda key: (key.created_at, key.key_id)))


def view_for_policy(connection: sa.Connection) -> PolicyView:
    version = int(connection.exec_driver_sql(VERSION_SQL).scalar_one())
    rows = (connection.exec_driver_sql(sql) for sql in (KEYS_SQL, SERVING_SQL, REVISIONS_SQL))
    return policy_view(version, *rows)


def head(connection: sa.Connection) -> Head:
    """The last event's place in the chain; `GENESIS` before the first."""
    e = t.events
    row = connection.execute(sa.select(e.c.sequence, e.c.hash).order_by(e.c.sequence.desc()).limit(1)).one_or_none()
    return GENESIS if row is None else Head(sequence=row.sequence, hash=row.hash)


def holds(connection: sa.Connection, head: Head) -> bool:
    """Whether the chain has that event, with that hash."""
    e = t.events
    found = connection.execute(sa.select(e.c.hash).where(e.c.sequence == head.sequence)).scalar_one_or_none()
    return head == GENESIS or found == head.hash


def events(
    connection: sa.Connection, after: int, limit: int, kind: str | None = None, service: str | None = None
) -> tuple[Event, ...]:
    """Events with a sequence above `after`, oldest first, at most `limit`."""
    query = _events(kind, service).where(t.events.c.sequence > after).order_by(t.events.c.sequence).limit(limit)
    return tuple(_event(row) for row in connection.execute(query).mappings())


def latest_events(
    connection: sa.Connection, limit: int, kind: str | None = None, service: str | None = None
) -> tuple[Event, ...]:
    """The last `limit` events, oldest of them first."""
    query = _events(kind, service).order_by(t.events.c.sequence.desc()).limit(limit)
    return tuple(_event(row) for row in reversed(connection.execute(query).mappings().all()))


def open_actions(connection: sa.Connection) -> tuple[OpenAction, ...]:
    """Actions that were started and neither finished nor failed, in the order in which they were started."""
    rows = connection.execute(sa.select(t.journal).order_by(t.journal.c.sequence)).mappings()
    return tuple(
        OpenAction(
            action=row["action"],
            service=row["service"],
            revision=row["revision"],
            detail=json.loads(row["detail"]),
            epoch=row["epoch"],
            since=row["started_at"],
            sequence=row["sequence"],
        )
        for row in rows
    )


def _desired_service(connection: sa.Connection, row: Mapping[Any, Any]) -> DesiredService:
    name = row["name"]
    desired = revision(connection, name, row["desired"])
    serving = None if row["serving"] is None else revision(connection, name, row["serving"])
    rejected = rejection(connection, name, row["desired"])
    if desired is None:
        raise UnreadableSpec(f"service {name} asks for revision {row['desired']}, which is not there")
    return DesiredService(
        name=name,
        desired=desired,
        serving=serving,
        rejected=None if rejected is None else rejected.reason,
        removed=bool(row["removed"]),
        serving_since=row["serving_since_at"],
        in_place_since=row["in_place_at"],
    )


def _revision(number: int, spec_json: str) -> Revision:
    try:
        return Revision(number=number, spec=Spec.model_validate_json(spec_json))
    except ValidationError as error:
        raise UnreadableSpec(f"the spec of revision {number} is from another version of gonogo: {error}") from error


def _events(kind: str | None, service: str | None) -> sa.Select[Any]:
    query = sa.select(t.events)
    if kind is not None:
        query = query.where(t.events.c.kind == kind)
    if service is not None:
        query = query.where(t.events.c.service == service)
    return query


def _event(row: Mapping[Any, Any]) -> Event:
    return Event(
        sequence=row["sequence"],
        at_ms=row["at_ms"],
        actor=row["actor"],
        principal=row["principal"],
        request_id=row["request_id"],
        kind=row["kind"],
        service=row["service"],
        revision=row["revision"],
        detail=json.loads(row["detail"]),
        previous_hash=row["previous_hash"],
        hash=row["hash"],
    )
