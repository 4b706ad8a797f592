"""One transaction that changes something, and tells of it in the same breath.

Every method is an "ensure": what is already so is left so, and no event tells of it.
"""

from __future__ import annotations

import json
from typing import Mapping, NamedTuple, Sequence

import sqlalchemy as sa

from gonogo.actions.model import Action
from gonogo.checks.finding import Answer, Stage
from gonogo.facts.metered import Metered
from gonogo.security.chain import Event, canonical
from gonogo.security.keys import LIMITS, SCOPES, KeyRow, check_limits
from gonogo.spec import Revision, Spec
from gonogo.store import acting, journal, metering, queries
from gonogo.store import answers as kept_answers
from gonogo.store import tables as t
from gonogo.store.faults import LeaseNeeded, UnknownKey, UnknownRevision
from gonogo.store.log import Log, Subject
from gonogo.store.plain import plain
from gonogo.store.records import OpenAction

PROBE_KEY_KEPT_S = 3600.0
"""How long a pinned key is kept after it expired."""


class Change:
    """What may be changed inside `with store.change(...)`. Raises `LeaseNeeded` where there is no epoch."""

    def __init__(self, connection: sa.Connection, log: Log, *, epoch: int | None) -> None:
        self._connection = connection
        self._log = log
        self._epoch = epoch
        self._now = log.now

    def event(self, kind: str, service: str | None = None, revision: int | None = None, **detail: object) -> Event:
        """Tell of something that is no change of the store. Raises ValueError for an unknown kind."""
        self._needs_lease(f"event {kind}")
        return self._told(kind, service, revision, detail)

    def add_revision(self, spec: Spec, in_place: bool = False) -> Revision:
        """Ask for `spec`. The desired or the serving revision is taken when its spec is equal; otherwise a new one.

        Asking again for a rejected or removed one makes it wanted again. Numbers go on after a service was forgotten.
        `in_place`: the serving revision ends before this one starts, because both have no room.
        """
        self._needs_lease("a revision")
        known = self._service_row(spec.service)
        for number in () if known is None else (known.desired, known.serving):
            if number is not None and self._digest_of(spec.service, number) == spec.digest():
                return self._ask_again(spec, number, in_place)
        r = t.revisions
        in_place_at = self._now if in_place else None
        last = self._connection.execute(
            sa.select(sa.func.max(r.c.number)).where(r.c.service == spec.service)
        ).scalar_one()
        revision = Revision(number=(last or 0) + 1, spec=spec)
        text = spec.model_dump_json()
        row = {"service": spec.service, "number": revision.number, "digest": spec.digest(), "spec": text}
        self._connection.execute(sa.insert(r).values(**row, made_at=self._now))
        if known is None:
            fresh = {"name": spec.service, "desired": revision.number, "removed": 0, "in_place_at": in_place_at}
            self._connection.execute(sa.insert(t.services).values(**fresh))
        else:
            self._update_service(spec.service, desired=revision.number, removed=0, in_place_at=in_place_at)
            self._policy_changed()
        detail = {"digest": spec.digest(), "spec": json.loads(text), "in_place": in_place}
        self._told("RevisionAdded", spec.service, revision.number, detail)
        return revision

    def set_serving(self, service: str, number: int) -> None:
        """From now on policy sends the service's requests to this revision. Raises `UnknownRevision`."""
        self._needs_lease("promotion")
        self._digest_of(service, number)
        known = self._service_row(service)
        if known is None:
            raise UnknownRevision(service, number)
        if known.serving == number:
            return
        self._update_service(service, serving=number, serving_since_at=self._now)
        self._policy_changed()
        self._told("RevisionPromoted", service, number, {"before": known.serving})

    def reject(self, service: str, number: int, reason: str, detail: str | Mapping[str, object]) -> None:
        """This revision is not going to serve. The first reason stays. Raises `UnknownRevision`."""
        self._needs_lease("rejection")
        self._digest_of(service, number)
        if queries.rejection(self._connection, service, number) is not None:
            return
        told = plain(detail)
        values = {"rejected_reason": reason, "rejected_detail": canonical(told).decode("utf-8")}
        self._update_revision(service, number, **values)
        self._told("RevisionRejected", service, number, {"reason": reason, "detail": told})

    def remove_service(self, name: str) -> bool:
        """Ask for the service to be taken down; policy refuses its requests at once. False: there is no such service.

        Needs no lease: `down` works without a control process.
        """
        known = self._service_row(name)
        if known is None:
            return False
        if not known.removed:
            # From now on it drains: what policy servers let in a moment ago is answered first.
            self._update_service(name, removed=1, serving_since_at=self._now)
            self._policy_changed()
            self._told("RemovalRequested", name, None, {})
        return True

    def forget_service(self, name: str) -> None:
        """Nothing of the service runs any more. Its revisions, findings and keys are kept; keys for probes are not."""
        self._needs_lease("forgetting a service")
        if self._service_row(name) is None:
            return
        self._connection.execute(sa.delete(t.services).where(t.services.c.name == name))
        k = t.keys
        self._connection.execute(sa.delete(k).where(k.c.service == name, k.c.revision.is_not(None)))
        self._policy_changed()
        self._told("ServiceForgotten", name, None, {})

    def add_key(self, row: KeyRow) -> None:
        """Keep a key. Needs no lease. Raises ValueError for a scope, a pin or a limit that cannot be.

        Pinned keys and those that act for others are dropped on the way, an hour after they expired.
        """
        unknown = [scope for scope in row.scopes if scope not in SCOPES]
        if unknown or not row.scopes:
            raise ValueError(f"scopes {list(row.scopes)}: at least one of {', '.join(SCOPES)}")
        if row.revision is not None and (row.service is None or row.expires_at is None):
            raise ValueError("a key pinned to a revision names its service and expires")
        check_limits({name: getattr(row, name) for name in (*LIMITS, "priority")})
        if row.acts_for is not None:
            acting.check(self._connection, row)
        k = t.keys
        passing = sa.or_(k.c.revision.is_not(None), k.c.acts_for.is_not(None))
        stale = sa.and_(passing, k.c.expires_at < self._now - PROBE_KEY_KEPT_S)
        self._connection.execute(sa.delete(k).where(stale))
        columns = {name: getattr(row, name) for name in k.c.keys() if name != "scopes"}  # noqa: SIM118 (not a dict)
        self._connection.execute(sa.insert(k).values(**columns, scopes=json.dumps(row.scopes)))
        self._policy_changed()
        shown = {"key_id": row.key_id, "name": row.name, "scopes": row.scopes, "expires_at": row.expires_at}
        limited = {"limits": row.limits, "priority": row.priority}
        acts = {} if row.acts_for is None else {"acts_for": row.acts_for}
        self._told("KeyAdded", row.service, row.revision, {**shown, **limited, **acts})

    def change_key(self, key_id: str, values: Mapping[str, int | str | None]) -> None:
        """Set limits (`gonogo.security.keys.LIMITS`; None: unlimited) and `priority` of a key. Needs no lease.

        Raises `UnknownKey`, and ValueError for what cannot be set.
        """
        check_limits(values)
        k = t.keys
        row = self._connection.execute(sa.select(k).where(k.c.key_id == key_id)).mappings().one_or_none()
        if row is None:
            raise UnknownKey(key_id)
        changed = {name: value for name, value in values.items() if row[name] != value}
        if not changed:
            return
        self._connection.execute(sa.update(k).where(k.c.key_id == key_id).values(**changed))
        self._policy_changed()
        detail = {"key_id": key_id, "name": row["name"], "changed": changed}
        self._told("KeyChanged", row["service"], row["revision"], detail)

    def revoke_key(self, key_id: str) -> None:
        """The key counts no more. Needs no lease. Raises `UnknownKey`."""
        k = t.keys
        row = self._connection.execute(sa.select(k).where(k.c.key_id == key_id)).one_or_none()
        if row is None:
            raise UnknownKey(key_id)
        if row.revoked_at is not None:
            return
        self._connection.execute(sa.update(k).where(k.c.key_id == key_id).values(revoked_at=self._now))
        self._policy_changed()
        self._told("KeyRevoked", row.service, row.revision, {"key_id": key_id, "name": row.name})

    def add_answers(
        self, stage: Stage, service: str, revision: int, observation: int, answers: Sequence[Answer]
    ) -> None:
        """`answers` are all that this stage of this revision says now. Only changes are kept; see `answers.py`."""
        self._needs_lease("findings")
        asking = kept_answers.Asking(stage, service, revision)
        changes = kept_answers.keep(self._connection, asking, observation, answers, self._now)
        if changes:
            detail = {"stage": stage, "observation": observation, "changes": changes}
            self._told("FindingsChanged", service, revision, detail)

    def journal_started(self, action: Action) -> None:
        """The action begins; it is open until it is finished or failed."""
        epoch = self._needs_lease("an action")
        journal.started(self._connection, self._log, action, epoch=epoch, now=self._now)

    def journal_finished(self, action: Action) -> None:
        """The action is done."""
        self._needs_lease("an action")
        journal.finished(self._connection, self._log, action)

    def journal_failed(self, action: Action, error: BaseException | str) -> None:
        """The action could not be done."""
        self._needs_lease("an action")
        journal.failed(self._connection, self._log, action, error)

    def journal_abandoned(self) -> tuple[OpenAction, ...]:
        """A new holder's first word: what earlier ones left open is open no more, each with an event. Returns it."""
        return journal.abandon(self._connection, self._log, epoch=self._needs_lease("an action"))

    def keep_metered(self, read: Metered) -> int:
        """Count what was read of the gateway's logs, and note how far; returns how many lines wait for another one."""
        self._needs_lease("usage")
        return metering.keep(self._connection, self._log, read)

    def _needs_lease(self, what: str) -> int:
        if self._epoch is None:
            raise LeaseNeeded(what)
        return self._epoch

    def _told(self, kind: str, service: str | None, revision: int | None, detail: Mapping[str, object]) -> Event:
        return self._log.append(kind, Subject(service=service, revision=revision), detail)

    def _ask_again(self, spec: Spec, number: int, in_place: bool) -> Revision:
        known = self._service_row(spec.service)
        rejected = queries.rejection(self._connection, spec.service, number)
        if known is not None and (known.desired != number or known.removed or rejected is not None):
            self._update_revision(spec.service, number, rejected_reason=None, rejected_detail=None)
            in_place_at = self._now if in_place else None
            self._update_service(spec.service, desired=number, removed=0, in_place_at=in_place_at)
            self._policy_changed()
            self._told("RevisionAskedAgain", spec.service, number, {"digest": spec.digest(), "in_place": in_place})
        return Revision(number=number, spec=spec)

    def _service_row(self, name: str) -> _Known | None:
        s = t.services
        query = sa.select(s.c.desired, s.c.serving, s.c.removed).where(s.c.name == name)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _Known(row.desired, row.serving, bool(row.removed))

    def _digest_of(self, service: str, number: int) -> str:
        r = t.revisions
        query = sa.select(r.c.digest).where(r.c.service == service, r.c.number == number)
        digest = self._connection.execute(query).scalar_one_or_none()
        if digest is None:
            raise UnknownRevision(service, number)
        return str(digest)

    def _update_service(self, name: str, **values: object) -> None:
        self._connection.execute(sa.update(t.services).where(t.services.c.name == name).values(**values))

    def _update_revision(self, service: str, number: int, **values: object) -> None:
        r = t.revisions
        this = sa.and_(r.c.service == service, r.c.number == number)
        self._connection.execute(sa.update(r).where(this).values(**values))

    def _policy_changed(self) -> None:
        version = t.policy_version
        self._connection.execute(sa.update(version).values(version=version.c.version + 1))


class _Known(NamedTuple):
    """A service's row."""

    desired: int
    serving: int | None
    removed: bool
