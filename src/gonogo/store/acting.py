"""Keys that act for others: what must hold of one before it is kept (`gonogo.security.keys.acting`)."""

from __future__ import annotations

import sqlalchemy as sa

from gonogo.security.keys import KeyRow
from gonogo.store import tables as t


def check(connection: sa.Connection, row: KeyRow) -> None:
    """It ends, has no limits of its own, and opens nothing that the other does not. Raises ValueError."""
    k = t.keys
    owner = connection.execute(sa.select(k).where(k.c.key_id == row.acts_for)).one_or_none()
    if owner is None or owner.acts_for is not None:
        raise ValueError(f"a key acts for one that its owner made, and {row.acts_for} is none")
    if row.expires_at is None or row.revision is not None or row.limits:
        raise ValueError("a key that acts for another one expires, and has neither a revision nor limits of its own")
    if owner.service is not None and row.service != owner.service:
        raise ValueError(f"a key that acts for one of {owner.service} is for the same service")
