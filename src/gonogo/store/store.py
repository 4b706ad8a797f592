"""`Store`: what control, API and CLI hold. Reads are one consistent look each; writes go through `change`."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable, Iterator

import sqlalchemy as sa

from gonogo.checks.finding import Stage
from gonogo.plan.model import DesiredService
from gonogo.security.chain import GENESIS, Event, Head
from gonogo.security.keys import KeyRow
from gonogo.spec import Revision
from gonogo.store import answers, head_file, metering, queries
from gonogo.store import tables as t
from gonogo.store.change import Change
from gonogo.store.faults import StaleEpoch, StoreUnreadable, UnknownRevision
from gonogo.store.head_file import HeadFile
from gonogo.store.log import Author, Log, Subject
from gonogo.store.metering import LogState, OutcomeRow, UsageRow
from gonogo.store.policy_view import PolicyView
from gonogo.store.records import KeptAnswer, Lease, OpenAction, Rejection
from gonogo.store.sqlite import SqliteBackend

LARGEST_PAGE = 10_000


class Store:
    """The deployment's memory. Safe to use from several threads and processes at once."""

    def __init__(self, backend: SqliteBackend, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._clock = clock
        self._head_file = HeadFile(backend.path.with_name(head_file.NAME))
        if self.head() == GENESIS:  # a chain with events had a file: that it is missing is a sign
            with backend.made():
                self._head_file.begin()

    @property
    def path(self) -> Path:
        return self._backend.path

    @contextmanager
    def change(
        self, *, epoch: int | None, actor: str, principal: str, request_id: str | None = None
    ) -> Iterator[Change]:
        """One transaction: all of it with its events, or, when the block raises, nothing.

        `epoch` is the lease's; None is for the CLI, which may write keys and removal requests without it.
        `principal`: the OS user or key id on whose behalf. Holds the write lock: do no work inside but writing.
        Raises `StaleEpoch`, `StoreFull`, `StoreBusy` (after 5 s), `StoreNotWritable`, `StoreUnreadable`.
        """
        with self._writing(Author(actor=actor, principal=principal, request_id=request_id)) as (connection, log):
            if epoch is not None:
                _refuse_stale(connection, epoch)
            yield Change(connection, log, epoch=epoch)

    def acquire_lease(self, holder: str, *, principal: str | None = None) -> int:
        """Take the lease: the new epoch. Whoever had it before is refused from now on.

        That two do not take it by turns is seen to elsewhere, by a lock of the operating system.
        """
        author = Author(actor="control", principal=principal or holder, request_id=None)
        with self._writing(author) as (connection, log):
            before = queries.lease(connection)
            epoch = 1 if before is None else before.epoch + 1
            row = {"epoch": epoch, "holder": holder, "since_at": log.now}
            if before is None:
                connection.execute(sa.insert(t.lease).values(only_row=1, **row))
            else:
                connection.execute(sa.update(t.lease).values(**row))
            log.append("LeaseAcquired", Subject(), {"epoch": epoch, "holder": holder})
        return epoch

    def lease(self) -> Lease | None:
        """Who holds the lease; None when nobody ever did."""
        with self._reading() as connection:
            return queries.lease(connection)

    def services(self) -> tuple[DesiredService, ...]:
        """Every service asked for and not yet forgotten, by name."""
        with self._reading() as connection:
            return queries.services(connection)

    def revision(self, service: str, number: int) -> Revision:
        """Raises `UnknownRevision`."""
        with self._reading() as connection:
            found = queries.revision(connection, service, number)
        if found is None:
            raise UnknownRevision(service, number)
        return found

    def revisions(self, service: str) -> tuple[Revision, ...]:
        """All revisions of a service, oldest first."""
        with self._reading() as connection:
            return queries.revisions(connection, service)

    def rejection(self, service: str, number: int) -> Rejection | None:
        """Why the revision was rejected; None when it was not."""
        with self._reading() as connection:
            return queries.rejection(connection, service, number)

    def events(
        self, after: int = 0, limit: int = 1000, *, kind: str | None = None, service: str | None = None
    ) -> tuple[Event, ...]:
        """Events after a sequence, oldest first, at most `limit` (and never more than 10,000)."""
        with self._reading() as connection:
            return queries.events(connection, after, min(limit, LARGEST_PAGE), kind, service)

    def latest_events(
        self, limit: int = 100, *, kind: str | None = None, service: str | None = None
    ) -> tuple[Event, ...]:
        """The last events, oldest of them first."""
        with self._reading() as connection:
            return queries.latest_events(connection, min(limit, LARGEST_PAGE), kind, service)

    def head(self) -> Head:
        """The end of the event chain."""
        with self._reading() as connection:
            return queries.head(connection)

    def answers(
        self, service: str, revision: int | None = None, stage: Stage | None = None, *, past: bool = False
    ) -> tuple[KeptAnswer, ...]:
        """What is known of a service now, in the order in which it was found; with `past` what was known before too."""
        with self._reading() as connection:
            return answers.kept(connection, service, revision, stage, past=past)

    def keys(self, service: str | None = None) -> tuple[KeyRow, ...]:
        """Every key, oldest first; with `service` those that open it, the ones for all services included."""
        with self._reading() as connection:
            return queries.keys(connection, service)

    def policy_view(self) -> PolicyView:
        """What a policy server sees."""
        with self._reading() as connection:
            return queries.view_for_policy(connection)

    def open_actions(self) -> tuple[OpenAction, ...]:
        """Actions that were started and neither finished nor failed."""
        with self._reading() as connection:
            return queries.open_actions(connection)

    def usage(self, span_s: int, since: float, until: float) -> tuple[UsageRow, ...]:
        """Usage by key, service and span (`metering.KEPT_S`, or `ALL_S` for the sum of all), oldest first."""
        with self._reading() as connection:
            return metering.rows(connection, span_s, since, until)

    def outcomes(self, span_s: int, since: float, until: float) -> tuple[OutcomeRow, ...]:
        """How requests ended, by key, service and span."""
        with self._reading() as connection:
            return metering.outcomes(connection, span_s, since, until)

    def logs(self) -> dict[str, LogState]:
        """How far metering has read each of the gateway's logs, by the log's name."""
        with self._reading() as connection:
            return metering.logs(connection)

    def close(self) -> None:
        self._backend.close()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._backend.reading() as connection:
                yield connection
        except queries.UnreadableSpec as error:
            raise StoreUnreadable(self.path, str(error)) from error

    @contextmanager
    def _writing(self, author: Author) -> Iterator[tuple[sa.Connection, Log]]:
        """A transaction, and after its commit the note of the chain's new end."""
        with self._backend.writing() as connection:
            log = Log(connection, author, self._clock())  # the time is read under the lock, so that events are in order
            yield connection, log
            remembered = self._head_file.read() if log.written else None
            goes_on = remembered is not None and queries.holds(connection, remembered)
        if log.written and goes_on:
            with suppress(OSError):  # the change is committed: this must not make it look as if it were not
                self._head_file.write(log.written)


def _refuse_stale(connection: sa.Connection, epoch: int) -> None:
    current = queries.lease(connection)
    current_epoch = 0 if current is None else current.epoch
    if epoch != current_epoch:
        raise StaleEpoch(epoch, current_epoch)
