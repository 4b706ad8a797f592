"""What counts for the limits of keys: a protocol, and counters of this process alone.

Several policy servers share one counter (`shared`); this process's own is the fallback. Not here: the arithmetic and
what a client is told (`limits`), how it is learned that a request has ended (`ends`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Mapping, Protocol, Sequence

from gonogo.gateway.policy.limits import (
    CONCURRENT,
    WINDOWS,
    Standings,
    Used,
    admits,
    admitted,
    amount_of,
    judged,
    kept,
    settled,
    taken,
)

HOLD_MS = 3_600_000
"""How long a request is known at most. One whose end nobody heard of holds its place so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """A request that wants in. `limits` as `KeyRow.limits`; `tokens`: prompt and expected answer, estimated."""

    request_id: str
    key_id: str
    limits: Mapping[str, int]
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Whether it is let in, and how its key stands: with it if so, without it if not."""

    admitted: bool
    standings: Standings


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What was heard of a request. `tokens`: it really used so many; None: not known.

    `over`: its answer has ended. `final`: that too, and nothing more will be heard: an estimate that was not set right
    stays. `first_s`: seconds until its first token, since it was sent to a replica; None: not a stream, or not known.
    `computed`: the part of its prompt that was not cached.
    """

    request_id: str
    tokens: int | None
    over: bool = True
    final: bool = True
    first_s: float | None = None
    computed: float = 1.0


class Counters(Protocol):
    """Each call is one step that nothing comes between."""

    async def take(self, taking: Taking) -> Taken:
        """Let the request in and count it, or do neither. One that was let in already is let in, and counted once:
        Envoy asks a second policy server when the first died with its answer.
        """
        ...

    async def finish(self, ends: Sequence[End]) -> None:
        """Free places and set tokens right. Unknown requests are no mistake: every policy server hears of every end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A request that was let in. `steps`: limit in tokens → the step in which they were taken."""

    key_id: str
    tokens: int
    steps: Mapping[str, int]
    expires_ms: int


class LocalCounters:
    """Counters of this process. `clock` gives milliseconds and never goes back."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._used: dict[tuple[str, str], Used] = {}
        self._holding: dict[str, set[str]] = {}
        # In the order in which they expire, as each is known equally long.
        self._known: dict[str, _Known] = {}

    async def take(self, taking: Taking) -> Taken:
        """As `Counters.take`."""
        now_ms = self._clock()
        self._expire(now_ms)
        used = {name: self._kept(taking.key_id, name, now_ms) for name in taking.limits if name in WINDOWS}
        at_once = len(self._holding.get(taking.key_id, ()))
        standings = judged(taking.limits, used, at_once, taking.tokens, now_ms)
        if taking.request_id in self._known:
            return Taken(admitted=True, standings=tuple(replace(one, wait_ms=None) for one in standings))
        if not admits(standings):
            return Taken(admitted=False, standings=standings)
        for name, before in used.items():
            amount = amount_of(name, taking.tokens)
            self._used[taking.key_id, name] = taken(before, WINDOWS[name], amount, now_ms)
        self._remember(taking, now_ms)
        return Taken(admitted=True, standings=admitted(standings, taking.tokens, now_ms))

    async def finish(self, ends: Sequence[End]) -> None:
        """As `Counters.finish`."""
        now_ms = self._clock()
        self._expire(now_ms)
        for end in ends:
            known = self._known.get(end.request_id)
            if known is not None:
                self._finish(end, known, now_ms)

    def _kept(self, key_id: str, name: str, now_ms: int) -> Used:
        return kept(self._used.get((key_id, name), ()), WINDOWS[name], now_ms)

    def _remember(self, taking: Taking, now_ms: int) -> None:
        steps = {
            name: now_ms // WINDOWS[name].step_ms
            for name in taking.limits
            if name in WINDOWS and WINDOWS[name].unit == "tokens"
        }
        at_once = CONCURRENT in taking.limits
        if not steps and not at_once:
            return
        if at_once:
            self._holding.setdefault(taking.key_id, set()).add(taking.request_id)
        self._known[taking.request_id] = _Known(
            key_id=taking.key_id, tokens=taking.tokens, steps=steps, expires_ms=now_ms + HOLD_MS
        )

    def _finish(self, end: End, known: _Known, now_ms: int) -> None:
        if end.over or end.final:
            self._free(known.key_id, end.request_id)
        if end.tokens is not None:
            for name, step in known.steps.items():
                used = self._kept(known.key_id, name, now_ms)
                now_step = now_ms // WINDOWS[name].step_ms
                self._used[known.key_id, name] = settled(used, step, known.tokens, end.tokens, now_step)
        if end.final:
            del self._known[end.request_id]
        elif end.tokens is not None:
            self._known[end.request_id] = replace(known, steps={})

    def _free(self, key_id: str, request_id: str) -> None:
        holding = self._holding.get(key_id)
        if holding is not None:
            holding.discard(request_id)
            if not holding:
                del self._holding[key_id]

    def _expire(self, now_ms: int) -> None:
        while self._known:
            request_id, known = next(iter(self._known.items()))
            if known.expires_ms > now_ms:
                return
            del self._known[request_id]
            self._free(known.key_id, request_id)
