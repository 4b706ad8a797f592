"""Makes an API key and keeps it in the store: the one place of the command line that draws random bytes."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Sequence

from gonogo.cli.deploy import principal

if TYPE_CHECKING:
    from gonogo.security.keys import KeyRow
    from gonogo.store.store import Store


def add_key(
    store: Store, *, name: str, service: str | None, scopes: Sequence[str], expires_at: float | None, **limits: Any
) -> tuple[str, KeyRow]:
    """A new key: its text, which is kept nowhere, and its row. `expires_at` in Unix seconds. Raises `StoreError`.

    `limits`: the fields of `KeyRow` that limit it, and `priority`.
    """
    from gonogo.security.keys import RANDOM_BYTES, KeyRow, mint

    minted = mint(secrets.token_bytes(RANDOM_BYTES))
    row = KeyRow(
        key_id=minted.key_id,
        secret_hash=minted.secret_hash,
        name=name,
        service=service,
        revision=None,
        scopes=tuple(scopes),
        created_at=time.time(),
        expires_at=expires_at,
        revoked_at=None,
        **limits,
    )
    with store.change(epoch=None, actor="cli", principal=principal()) as change:
        change.add_key(row)
    return minted.text, row
