"""The key of one run: made for it, for one service, to ask the model and nothing else; it ends with the run.

It acts for the key of whoever left the run: that one's limits, metering and end hold (`gonogo.security.keys.acting`).
With that one's priority, too: the agent has a device in its hands and gives up after two refusals.
"""

from __future__ import annotations

import secrets
import time
from typing import Callable

import httpx

from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.unix_http import over
from gonogo.security.keys import RANDOM_BYTES, KeyRow, MintedKey, mint
from gonogo.store import open_store
from gonogo.store.faults import UnknownKey
from gonogo.store.store import Store
from gonogo.tasks.agents.tools import Missing

INFERENCE = "inference"
LIVES_LONGER_S = 120.0
"""Than the run's time limit: its process is gone before the key expires by itself."""
KNOWN_TIMES, KNOWN_WITHIN_S, LOOK_EVERY_S = 6, 10.0, 0.05
"""There are two policy servers, which look for new keys ten times a second: so many answers in a row come from both."""


class NotNow(Exception):
    """The gateway does not answer: no fault of the run's."""


def mint_one() -> MintedKey:
    return mint(secrets.token_bytes(RANDOM_BYTES))


class RunKeys:
    """Makes and revokes the keys of runs. For several threads."""

    def __init__(self, paths: StatePaths, wall: Callable[[], float] = time.time) -> None:
        self._paths, self._wall = paths, wall

    def store(self) -> Store:
        """The deployment's store. Close it."""
        return open_store(self._paths.database, clock=self._wall)

    def make(self, minted: MintedKey, owner: str, service: str, limit_s: float) -> None:
        """Let this key count. Raises `Missing` where the owner's does not, or is for another service; `StoreError`s."""
        store, now = self.store(), self._wall()
        try:
            row = next((key for key in store.keys() if key.key_id == owner), None)  # noqa: SIM118 (not a dict)
            if row is None or row.acts_for is not None or row.revoked_at is not None or INFERENCE not in row.scopes:
                raise Missing("owner_gone", "The key that left the run counts no more, or may not ask the model.")
            if row.service not in (None, service):
                raise Missing("model_not_found", f"The key that left the run is for {row.service}, not for {service}.")
            acting = KeyRow(
                key_id=minted.key_id,
                secret_hash=minted.secret_hash,
                name=f"agent's run for {row.name}",
                service=service,
                revision=None,
                scopes=(INFERENCE,),
                created_at=now,
                expires_at=now + limit_s + LIVES_LONGER_S,
                revoked_at=None,
                priority=row.priority,
                acts_for=owner,
            )
            with store.change(epoch=None, actor="tasks", principal=owner) as change:
                change.add_key(acting)
        finally:
            store.close()

    def wait_until_known(self, minted: MintedKey, stop: Callable[[], bool]) -> None:
        """Until every policy server knows it. Raises `NotNow`, and `Missing` where it is refused for good."""
        ends, good, refused = time.monotonic() + KNOWN_WITHIN_S, 0, 0
        transport = over(self._paths.front_socket)
        headers = {"authorization": f"Bearer {minted.text}"}
        with httpx.Client(transport=transport, headers=headers, timeout=2.0) as client:
            while good < KNOWN_TIMES:
                try:
                    status = client.get("http://gateway/v1/models").status_code
                except httpx.HTTPError:
                    status = 0
                good = good + 1 if status == 200 else 0
                refused = refused + 1 if status in (401, 403) else 0
                if stop() or time.monotonic() > ends:
                    if refused:
                        raise Missing("owner_gone", "The gateway refuses a key that acts for the run's owner.")
                    raise NotNow
                time.sleep(LOOK_EVERY_S)

    def revoke(self, key_id: str) -> None:
        """It counts no more; a key that was never made is none. Raises `StoreError`s."""
        store = self.store()
        try:
            with store.change(epoch=None, actor="tasks", principal="tasks") as change:
                change.revoke_key(key_id)
        except UnknownKey:
            pass
        finally:
            store.close()
