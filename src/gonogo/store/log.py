"""Writing to the audit log inside one transaction: who writes, and each event linked to the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

import sqlalchemy as sa

from gonogo.security.chain import Draft, Event, Head, canonical, link
from gonogo.store import queries
from gonogo.store import tables as t
from gonogo.store.kinds import ACTORS, KINDS
from gonogo.store.plain import plain_mapping, plain_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who changes something: the part of gonogo, on whose behalf (OS user or key id), for which request."""

    actor: str
    principal: str
    request_id: str | None

    def __post_init__(self) -> None:
        if self.actor not in ACTORS:
            raise ValueError(f"{self.actor} is no actor; they are {', '.join(ACTORS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an event is about."""

    service: str | None = None
    revision: int | None = None


class Log:
    """Appends to the chain. The connection must hold the write lock, so that the last event stays the last.

    `now` (Unix seconds) is the time of everything in this transaction.
    """

    def __init__(self, connection: sa.Connection, author: Author, now: float) -> None:
        self._connection = connection
        self._author = author
        self.now = now
        self._head: Head | None = None

    @property
    def written(self) -> Head | None:
        """The last event written here, None when there was none."""
        return self._head

    def append(self, kind: str, subject: Subject, detail: Mapping[str, object]) -> Event:
        """Write one event. Raises ValueError for a kind that is not in the list."""
        if kind not in KINDS:
            raise ValueError(f"{kind} is no kind of event; gonogo.store.kinds has the list")
        draft = Draft(
            at_ms=round(self.now * 1000),
            actor=self._author.actor,
            principal=plain_text(self._author.principal),
            request_id=None if self._author.request_id is None else plain_text(self._author.request_id),
            kind=kind,
            service=subject.service,
            revision=subject.revision,
            detail=plain_mapping(detail),
        )
        event = link(draft, self._head or queries.head(self._connection))
        self._connection.execute(sa.insert(t.events).values(**_row(event)))
        self._head = event.head
        return event


def _row(event: Event) -> dict[str, object]:
    return {
        "sequence": event.sequence,
        "at_ms": event.at_ms,
        "actor": event.actor,
        "principal": event.principal,
        "request_id": event.request_id,
        "kind": event.kind,
        "service": event.service,
        "revision": event.revision,
        "detail": canonical(event.detail).decode("utf-8"),
        "previous_hash": event.previous_hash,
        "hash": event.hash,
    }
