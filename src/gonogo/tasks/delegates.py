"""The keys with which workers call the gateway: one for each owner, short-lived, made here, and acting for the owner's.

The owner's own key is never known here, only its id. What is done with such a key counts for the owner's limits, at the
priority of a batch, and ends when the owner's key does (`gonogo.security.keys.acting`).
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import Callable

from gonogo.security.keys import BATCH, RANDOM_BYTES, KeyRow, mint
from gonogo.store.store import Store
from gonogo.tasks.bodies import Bodies
from gonogo.tasks.database import Database

KEPT_S = 3600.0
RENEWED_BEFORE_S = 600.0
SEEN_AFTER_S = 2.0
"""A policy server looks for new keys ten times a second; one that it does not know after so long is none."""


class OwnerGone(Exception):
    """The key that asked for the task is there no more, or counts no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """A key's text, and when it was made and expires (Unix seconds)."""

    text: str = field(repr=False)
    made_at: float
    expires_at: float


class Delegates:
    """The keys of this deployment's owners, shared by its workers through the ledger, sealed. For several threads."""

    def __init__(self, open_store: Callable[[], Store], database: Database, bodies: Bodies, wall: Callable[[], float]):
        self._open_store, self._database, self._bodies, self._wall = open_store, database, bodies, wall
        self._store: Store | None = None
        self._guard = threading.Lock()
        self._known: dict[str, Delegate] = {}

    def of(self, owner: str) -> Delegate:
        """A key that acts for the owner's. Raises `OwnerGone`, `StoreError`s."""
        with self._guard:
            known = self._known.get(owner)
            if known is None or self._stale(known):
                known = self._kept(owner) or self._made(owner)
                self._known[owner] = known
            return known

    def _stale(self, one: Delegate) -> bool:
        now = self._wall()
        return not one.made_at - SEEN_AFTER_S <= now < one.expires_at - RENEWED_BEFORE_S

    def _kept(self, owner: str) -> Delegate | None:
        with self._database.reading() as c:
            row = c.execute("SELECT * FROM delegates WHERE owner = ?", (owner,)).fetchone()
        if row is None:
            return None
        kept = Delegate(
            text=self._bodies.open(owner, "delegate", row["key"]), made_at=row["made_at"], expires_at=row["expires_at"]
        )
        return None if self._stale(kept) else kept

    def _made(self, owner: str) -> Delegate:
        made = self._minted(owner)
        sealed = self._bodies.seal(owner, "delegate", made.text)
        with self._database.writing() as c:
            c.execute("REPLACE INTO delegates VALUES (?, ?, ?, ?)", (owner, sealed, made.made_at, made.expires_at))
        return made

    def _minted(self, owner: str) -> Delegate:
        store, now = self._opened(), self._wall()
        row = next((key for key in store.keys() if key.key_id == owner), None)  # noqa: SIM118 (not a dict)
        if row is None or row.acts_for is not None:
            raise OwnerGone(owner)
        minted = mint(secrets.token_bytes(RANDOM_BYTES))
        acting = KeyRow(
            key_id=minted.key_id,
            secret_hash=minted.secret_hash,
            name=f"queue for {row.name}",
            service=row.service,
            revision=None,
            scopes=row.scopes,
            created_at=now,
            expires_at=now + KEPT_S,
            revoked_at=None,
            priority=BATCH,
            acts_for=owner,
        )
        with store.change(epoch=None, actor="tasks", principal=owner) as change:
            change.add_key(acting)
        return Delegate(text=minted.text, made_at=now, expires_at=now + KEPT_S)

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open_store()
        return self._store
