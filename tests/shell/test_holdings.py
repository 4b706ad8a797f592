"""What replicas hold, read for the metrics from the real Valkey in which policy servers count it."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from gonogo.control.holdings import holdings
from gonogo.facts.part import COUNTERS_DB
from gonogo.gateway.policy.ledger import Held, Hold, MemoryLedger, Room
from gonogo.gateway.policy.shared import SharedLedger, scripts
from gonogo.gateway.policy.valkey import Valkey
from tests.shell.valkey_parts import Valkey as Server

ROOM = Room(tokens=1000, sequences=4)


async def reserve(server: Server, *holds: tuple[str, str, int]) -> None:
    """As a policy server does it: request, replica, tokens."""
    valkey = Valkey(server.socket, COUNTERS_DB, scripts(), tell=lambda _: None)
    await valkey.start()
    ledger = SharedLedger(valkey, MemoryLedger(time.time), time.time)
    for request_id, endpoint, tokens in holds:
        hold = Hold(request_id=request_id, revision="svc/1", key_id="k", tokens=tokens, expires_at=time.time() + 600)
        assert await ledger.reserve(hold, [endpoint], ROOM) == endpoint
    assert valkey.there
    await valkey.stop()


def test_what_policy_servers_reserved_is_told_by_replica_and_nothing_is_told_without_valkey(tmp_path: Path) -> None:
    first, second = "127.0.0.1:9001", "127.0.0.1:9002"
    with Server() as server:
        asyncio.run(reserve(server, ("r1", first, 300), ("r2", first, 50), ("r3", second, 7)))
        assert holdings(server.socket, ["svc/1", "svc/2"]) == {
            "svc/1": {first: Held(tokens=350, sequences=2), second: Held(tokens=7, sequences=1)},
            "svc/2": {},
        }
        server.end(signal.SIGKILL)
        assert holdings(server.socket, ["svc/1"]) is None
    assert holdings(tmp_path / "nothing.sock", ["svc/1"]) is None
