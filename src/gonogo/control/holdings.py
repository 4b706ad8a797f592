"""What each replica holds of tokens and requests, as the policy servers count it together in Valkey. Reads only."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Iterable, Mapping

from gonogo.facts.part import COUNTERS_DB
from gonogo.gateway.policy.ledger import Held, MemoryLedger
from gonogo.gateway.policy.shared import SharedLedger, scripts
from gonogo.gateway.policy.valkey import Valkey

CONNECT_LIMIT_S = 0.5


def holdings(socket: Path, revisions: Iterable[str]) -> Mapping[str, Mapping[str, Held]] | None:
    """Revision (`service/number`) → replica (`ip:port`) → what it holds. None: Valkey did not say.

    Takes a loop of its own, so it is for a thread that has none.
    """
    return asyncio.run(_holdings(socket, tuple(revisions)))


async def _holdings(socket: Path, revisions: tuple[str, ...]) -> Mapping[str, Mapping[str, Held]] | None:
    valkey = Valkey(socket, COUNTERS_DB, scripts(), tell=lambda _: None)
    await valkey.start(CONNECT_LIMIT_S)
    ledger = SharedLedger(valkey, MemoryLedger(time.time), time.time)
    try:
        found = {revision: await ledger.held(revision) for revision in revisions}
        return found if valkey.there else None  # else it is this process's own ledger, which knows of nothing
    finally:
        await valkey.stop()
