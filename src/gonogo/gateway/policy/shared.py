"""What several policy servers count together, in Valkey: the limits of keys, and what each replica holds.

One round trip each, in which nothing comes between (Lua). Times are Valkey's own. While Valkey is away each policy
server counts by itself, with the same arithmetic: limits hold per server then, and requests go on. When it is there
again counting goes on there, with what it had.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from itertools import islice
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from gonogo.gateway.policy.counters import HOLD_MS, Counters, End, Taken, Taking
from gonogo.gateway.policy.ledger import ASKED_LATELY_S, Held, Hold, Ledger, Room
from gonogo.gateway.policy.limits import CONCURRENT, CONCURRENT_WAIT_MS, WINDOWS, Standing, amount_of
from gonogo.gateway.policy.valkey import Away, Valkey

CLOCK, HOLDS, EXPIRY = "clock", "holds", "holds:expiry"
KNOWN = "known:"
MOST_AT_ONCE = 200
"""Requests in one call of a script: nobody else is answered while it runs."""
_FITS = -2


@lru_cache(maxsize=1)
def scripts() -> Mapping[str, str]:
    """The scripts by name, whole."""
    return scripts_with(_lua("now"))


def scripts_with(now: str) -> Mapping[str, str]:
    """The scripts with another `wall_now_ms`, for tests that move the time."""
    parts = {
        "take": ("take",),
        "finish": ("finish",),
        "reserve": ("holds", "reserve"),
        "release": ("holds", "release"),
        "held": ("holds", "held"),
    }
    return {name: "\n".join((now, _lua("clock"), *map(_lua, part))) for name, part in parts.items()}


class SharedCounters:
    """`Counters` in Valkey; `local` counts while it is away."""

    def __init__(self, valkey: Valkey, local: Counters) -> None:
        self._valkey = valkey
        self._local = local

    async def take(self, taking: Taking) -> Taken:
        """As `Counters.take`."""
        names = [name for name in WINDOWS if name in taking.limits]
        keys = [CLOCK, f"{KNOWN}{taking.request_id}", f"at_once:{taking.key_id}"]
        words: list[str | int] = [taking.request_id, HOLD_MS, taking.limits.get(CONCURRENT, 0)]
        for name in names:
            window = WINDOWS[name]
            keys.append(f"{name}:{taking.key_id}")
            counts_tokens = int(window.unit == "tokens")
            words += taking.limits[name], amount_of(name, taking.tokens), window.step_ms, window.steps, counts_tokens
        try:
            answer = await self._valkey.run("take", keys, words)
        except Away:
            return await self._local.take(taking)
        return _taken(taking, names, answer)

    async def finish(self, ends: Sequence[End]) -> None:
        """As `Counters.finish`. Requests that were let in while Valkey was away are finished here."""
        await self._local.finish(ends)
        for some in _batches(ends):
            keys = [CLOCK, *(f"{KNOWN}{end.request_id}" for end in some)]
            words: list[str | int] = []
            for end in some:
                words += -1 if end.tokens is None else end.tokens, int(end.over), int(end.final)
            try:
                await self._valkey.run("finish", keys, words)
            except Away:
                return  # whoever reads the log begins again where Valkey last heard of it


class SharedLedger:
    """`Ledger` in Valkey; `local` keeps it while that is away. `clock` gives Unix seconds, as `Hold.expires_at` is."""

    def __init__(self, valkey: Valkey, local: Ledger, clock: Callable[[], float]) -> None:
        self._valkey = valkey
        self._local = local
        self._clock = clock

    async def reserve(self, hold: Hold, endpoints: Sequence[str], room: Room) -> str | None:
        """As `Ledger.reserve`."""
        lifetime_ms = max(0, int((hold.expires_at - self._clock()) * 1000))
        keys = [CLOCK, HOLDS, EXPIRY, _held_key(hold.revision), _asked_key(hold.revision)]
        words: list[str | int] = [hold.request_id, hold.tokens, lifetime_ms, room.tokens, room.sequences]
        words += round(hold.prompt_s * 1000), round(ASKED_LATELY_S * 1000) if hold.asks else 0, *endpoints
        try:
            answer = await self._valkey.run("reserve", keys, words)
        except Away:
            return await self._local.reserve(hold, endpoints, room)
        return None if answer is None else str(answer, "utf-8")

    async def release(self, request_ids: Sequence[str]) -> int:
        """As `Ledger.release`."""
        count = await self._local.release(request_ids)
        for some in _batches(request_ids):
            try:
                count += int(await self._valkey.run("release", [CLOCK, HOLDS, EXPIRY], some))
            except Away:
                break
        return count

    async def held(self, revision: str) -> Mapping[str, Held]:
        """As `Ledger.held`."""
        try:
            answer = await self._valkey.run("held", [CLOCK, HOLDS, EXPIRY, _held_key(revision)], [])
        except Away:
            return await self._local.held(revision)
        now_ms, pairs = answer
        found: dict[str, dict[str, int]] = {}
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            what, _, endpoint = str(name, "utf-8").partition(" ")
            found.setdefault(endpoint, {})[what] = int(value)
        # Of what holds nothing more a server of another version may have left a word behind.
        return {endpoint: _held(each, now_ms) for endpoint, each in found.items() if "sequences" in each}

    async def asked(self, revision: str) -> bool:
        """As `Ledger.asked`."""
        try:
            return bool(await self._valkey.call("EXISTS", _asked_key(revision)))
        except Away:
            return await self._local.asked(revision)


def _taken(taking: Taking, names: Sequence[str], answer: Sequence[int]) -> Taken:
    admitted, at_once = answer[0] == 1, answer[1]
    standings = [
        Standing(
            name=name,
            limit=taking.limits[name],
            used=answer[at],
            reset_ms=answer[at + 1],
            wait_ms=None if answer[at + 2] == _FITS else answer[at + 2],
        )
        for at, name in zip(range(2, len(answer), 3), names, strict=True)
    ]
    if CONCURRENT in taking.limits:
        limit = taking.limits[CONCURRENT]
        wait_ms = CONCURRENT_WAIT_MS if not admitted and at_once >= limit else None
        standings.append(Standing(name=CONCURRENT, limit=limit, used=at_once, reset_ms=0, wait_ms=wait_ms))
    return Taken(admitted=admitted, standings=tuple(standings))


def _held(found: Mapping[str, int], now_ms: int) -> Held:
    prompts_s = max(0, found.get("computed", 0) - now_ms) / 1000
    return Held(tokens=found["tokens"], sequences=found["sequences"], prompts_s=prompts_s)


def _held_key(revision: str) -> str:
    return f"held:{revision}"


def _asked_key(revision: str) -> str:
    return f"asked:{revision}"


def _batches(things: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(things)
    while some := list(islice(left, MOST_AT_ONCE)):
        yield some


def _lua(name: str) -> str:
    return (files("gonogo.gateway.policy") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
