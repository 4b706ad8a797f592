"""Where the queue's things lie in a state directory, and how they are opened together."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gonogo.runtimes.paths import StatePaths
from gonogo.security import keyring
from gonogo.security.keyring import Keyring
from gonogo.tasks import database
from gonogo.tasks.bodies import Bodies
from gonogo.tasks.database import Database
from gonogo.tasks.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The ledger, what seals its bodies, and the files of clients."""

    paths: StatePaths
    database: Database
    bodies: Bodies
    vault: Vault


def open_queue(paths: StatePaths) -> Queue:
    """The queue of this state directory, made where there is none. Raises `StoreError`s, OSError, UnsafeDirectory."""
    paths.make()
    ring = Keyring(paths.root / keyring.NAME, clock=time.time)
    return Queue(
        paths=paths,
        database=Database.open(paths.root / "tasks" / database.NAME),
        bodies=Bodies(ring),
        vault=Vault(paths.root / "tasks" / "files", ring),
    )
