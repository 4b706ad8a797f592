"""Whose a task is that this user leaves without the HTTP interface: the key in $GONOGO_API_KEY, or one made for it.

Whoever may read the state directory may do all of it; the key is there so that limits, metering and lists know whose
the tasks are.
"""

from __future__ import annotations

import os
import secrets
import time

from gonogo.security.keys import RANDOM_BYTES, KeyRow, ParsedKey, matches, mint, parse, usable
from gonogo.store.store import Store

LOCAL_NAME = "tasks of this machine"
API_KEY = "GONOGO_API_KEY"


class NoSuchKey(Exception):
    """What stands in $GONOGO_API_KEY is no usable key of this deployment."""


def local_owner(store: Store) -> str:
    """A key's id. Raises `NoSuchKey`, `StoreError`s."""
    given, now = os.environ.get(API_KEY), time.time()
    if given:
        parsed = parse(given)
        found = [row for row in store.keys() if isinstance(parsed, ParsedKey) and row.key_id == parsed.key_id]  # noqa: SIM118 (not a dict)
        if not found or not isinstance(parsed, ParsedKey) or not matches(parsed, found[0].secret_hash):
            raise NoSuchKey(f"${API_KEY} is no key of this deployment: take one of `gonogo keys create`, or unset it")
        if not usable(found[0], now):
            raise NoSuchKey(f"${API_KEY} was revoked or has expired: take one of `gonogo keys create`, or unset it")
        return found[0].key_id
    for row in store.keys():  # noqa: SIM118 (not a dict)
        if row.name == LOCAL_NAME and row.acts_for is None and usable(row, now):
            return row.key_id
    minted = mint(secrets.token_bytes(RANDOM_BYTES))  # its text is kept nowhere: only workers act for it
    row = KeyRow(
        key_id=minted.key_id,
        secret_hash=minted.secret_hash,
        name=LOCAL_NAME,
        service=None,
        revision=None,
        scopes=("inference",),
        created_at=now,
        expires_at=None,
        revoked_at=None,
    )
    with store.change(epoch=None, actor="tasks", principal="local") as change:
        change.add_key(row)
    return row.key_id
