"""Metering: reads the gateway's logs and keeps what requests used. A crash anywhere loses nothing and doubles nothing.

Position and sums are written in one transaction; what is read after a crash begins where the last one ended.
Not here: how lines are joined (`facts.metered`) and counted (`facts.usage`), nor the tables (`store.metering`).
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Callable, Mapping

from gonogo.facts.metered import LogRead, Metered
from gonogo.facts.part import PARTS
from gonogo.facts.request_record import RELAY, RequestRecord, StreamRecord, parse_request, parse_stream
from gonogo.gateway.access_log import LogTail
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.tell import tell
from gonogo.store.change import Change
from gonogo.store.store import Store

LOOK_EVERY_S = 0.5
ACCESS = "access"


class Meter:
    """One per control process. `change` opens a fenced transaction of the store; `step` is for one thread at a time."""

    def __init__(self, paths: StatePaths, store: Store, change: Callable[[], AbstractContextManager[Change]]) -> None:
        self._paths = logs_of(paths)
        self._store = store
        self._change = change
        self._tails: dict[str, LogTail] | None = None
        self._gaps: dict[str, int] = {}
        self._waiting = True

    def step(self) -> bool:
        """Read once and keep it; True when there is more to read at once.

        Raises OSError and `StoreError`s; the next call begins where the last successful one ended.
        """
        try:
            return self._step()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget what is open; positions are the store's."""
        for tail in (self._tails or {}).values():
            tail.close()
        self._tails, self._waiting = None, True

    def _step(self) -> bool:
        read = self._read()
        if not read.logs and not self._waiting:
            return False
        with self._change() as change:
            waiting = change.keep_metered(read)
        self._waiting = waiting > 0
        return not read.drained

    def _read(self) -> Metered:
        logs: dict[str, LogRead] = {}
        requests: list[RequestRecord] = []
        streams: list[StreamRecord] = []
        for name, tail in self._opened().items():
            lines = tail.read()
            if not lines:
                continue
            found: list[RequestRecord | StreamRecord | None]
            if name == ACCESS:
                found = [parse_request(line) for line in lines]
            else:
                found = [parse_stream(line) for line in lines]
            requests += [one for one in found if isinstance(one, RequestRecord)]
            streams += [one for one in found if isinstance(one, StreamRecord)]
            logs[name] = self._noted(name, tail, lines=len(lines), malformed=found.count(None))
        drained = not any(tail.more for tail in self._opened().values())
        return Metered(logs=logs, requests=tuple(requests), streams=tuple(streams), drained=drained)

    def _noted(self, name: str, tail: LogTail, *, lines: int, malformed: int) -> LogRead:
        assert tail.position is not None
        new, self._gaps[name] = tail.gaps - self._gaps.get(name, 0), tail.gaps
        return LogRead(position=tail.position, lines=lines, malformed=malformed, gaps=new)

    def _opened(self) -> Mapping[str, LogTail]:
        if self._tails is None:
            known = self._store.logs()
            positions = {name: known[name].position if name in known else None for name in self._paths}
            self._tails = {name: LogTail(path, positions[name]) for name, path in self._paths.items()}
            self._gaps = {}
        return self._tails


def logs_of(paths: StatePaths) -> dict[str, Path]:
    """The logs that are metered, by name; the gateway's first, so that a relay's line of a request is there already."""
    relays = {f"{RELAY}-{index}": paths.relay_log(index) for index in range(PARTS.get(RELAY, 0))}
    return {ACCESS: paths.access_log, **relays}


async def meter_for_ever(meter: Meter) -> None:
    """Read each half second, at once while there is more. What fails is told when it begins, and tried again."""
    failing: str | None = None
    while True:
        try:
            more = await asyncio.to_thread(meter.step)
            failing = None
        except Exception as error:  # noqa: BLE001 (metering must not end control; nothing is lost, the logs keep it)
            more = False
            if repr(error) != failing:
                failing = repr(error)
                tell(f"usage was not metered: {failing}")
        if not more:
            await asyncio.sleep(LOOK_EVERY_S)
