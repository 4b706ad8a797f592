"""The arithmetic of a key's limits, and what its client is told. Pure: times are given.

A limit holds in *any* window, wherever it begins. A token bucket would not do: full, it lets twice its limit through
within one window. So time is cut into steps (a second of a minute, ten minutes of a day), and what was used counts as
long as any of its step may still lie in the window: `steps` whole steps and the one that has begun. What is kept of a
key is one number per step. This is the sliding window counter without its interpolation, which may let too much through
(https://blog.cloudflare.com/counting-things-a-lot-of-different-things/).

Tokens are taken as an estimate when the request is let in and set right when it has ended. Where a request really used
more, the window is over its limit until that is out of it; nothing more is let in meanwhile.

`lua/take.lua` and `lua/finish.lua` are the same arithmetic inside Valkey; a test holds both together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Mapping

from gonogo.gateway.policy.deny import Deny

NEVER_MS = -1
"""Wait of a request that is larger than the limit itself."""
SLACK_MS = 2000
"""A clock that moved by more than passed and this much was set, by somebody or something."""
CONCURRENT = "concurrent"
CONCURRENT_WAIT_MS = 1000
"""When an answer ends is not known: the client is told to ask again after a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The length of a window is `steps` times `step_ms`. `unit` is what is counted in it."""

    step_ms: int
    steps: int
    unit: str


WINDOWS: Mapping[str, Window] = {
    "requests_per_minute": Window(step_ms=1000, steps=60, unit="requests"),
    "tokens_per_minute": Window(step_ms=1000, steps=60, unit="tokens"),
    "tokens_per_day": Window(step_ms=600_000, steps=144, unit="tokens"),
}
"""The limits of `gonogo.security.keys.LIMITS` that are windows, in the order in which they are asked and told."""

Used = tuple[tuple[int, int], ...]
"""Step → amount, oldest first. A step is the time in ms divided by `step_ms`, rounded down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A clock that never goes back and never leaps, made of one that may: `wall_ms` was its last time.

    `ahead_ms` is by how much that one has leapt so far; less than 0, it was set back more than forward.
    """

    wall_ms: int
    ahead_ms: int = 0

    @property
    def now_ms(self) -> int:
        return self.wall_ms - self.ahead_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a key stands in one limit. `used` includes the request when it was let in.

    `reset_ms`: until nothing is used any more. `wait_ms`: until the request that was refused would fit; None: it fits,
    `NEVER_MS`: it never does.
    """

    name: str
    limit: int
    used: int
    reset_ms: int
    wait_ms: int | None = None


Standings = tuple[Standing, ...]


def tick(clock: Clock, wall_ms: int, passed_ms: int | None) -> Clock:
    """The clock, seen at `wall_ms`. `passed_ms`: no more time has passed since the last look; None: not known.

    Set back: time stands still for that one look. Set forward by more than passed: only what passed counts.
    """
    moved = wall_ms - clock.wall_ms
    leapt = 0
    if moved < 0:
        leapt = moved
    elif passed_ms is not None and moved > passed_ms + SLACK_MS:
        leapt = moved - passed_ms
    return Clock(wall_ms=wall_ms, ahead_ms=clock.ahead_ms + leapt)


def kept(used: Used, window: Window, now_ms: int) -> Used:
    """What still counts."""
    first = now_ms // window.step_ms - window.steps
    return tuple(one for one in used if one[0] >= first)


def taken(used: Used, window: Window, amount: int, now_ms: int) -> Used:
    """With so much more used now."""
    step = now_ms // window.step_ms
    if used and used[-1][0] == step:
        return (*used[:-1], (step, used[-1][1] + amount))
    return (*used, (step, amount)) if amount else used


def settled(used: Used, step: int, estimate: int, real: int, now_step: int) -> Used:
    """After a request that was let in at `step` for `estimate` really used `real`.

    What was too much is given back where it was taken, if that still counts; what was too little is used now.
    """
    if real <= estimate:
        back = estimate - real
        given = ((at, amount - back if at == step else amount) for at, amount in used)
        return tuple((at, amount) for at, amount in given if amount > 0)
    more = real - estimate
    if used and used[-1][0] >= now_step:
        return (*used[:-1], (used[-1][0], used[-1][1] + more))
    return (*used, (now_step, more))


def amount_of(name: str, tokens: int) -> int:
    """What a request of so many tokens takes of this limit."""
    return tokens if name in WINDOWS and WINDOWS[name].unit == "tokens" else 1


def judged(limits: Mapping[str, int], used: Mapping[str, Used], at_once: int, tokens: int, now_ms: int) -> Standings:
    """How a key with these limits stands before a request of so many tokens. It may come in if no limit makes it wait.

    `used` by limit, as `kept` gave it for the same time; `at_once`: its requests that are being answered.
    """
    found = [
        _standing(name, limits[name], used.get(name, ()), amount_of(name, tokens), now_ms)
        for name in WINDOWS
        if name in limits
    ]
    if CONCURRENT in limits:
        limit = limits[CONCURRENT]
        wait_ms = None if at_once < limit else CONCURRENT_WAIT_MS
        found.append(Standing(name=CONCURRENT, limit=limit, used=at_once, reset_ms=0, wait_ms=wait_ms))
    return tuple(found)


def admits(standings: Standings) -> bool:
    """Whether no limit refuses."""
    return all(one.wait_ms is None for one in standings)


def admitted(standings: Standings, tokens: int, now_ms: int) -> Standings:
    """How the key stands once the request was let in."""
    return tuple(_admitted(one, amount_of(one.name, tokens), now_ms) for one in standings)


def _standing(name: str, limit: int, used: Used, amount: int, now_ms: int) -> Standing:
    window = WINDOWS[name]
    total = sum(one[1] for one in used)
    reset_ms = _gone_ms(used[-1][0], window, now_ms) if total else 0
    wait_ms = None if total + amount <= limit else _wait_ms(used, window, total + amount - limit, now_ms)
    return Standing(name=name, limit=limit, used=total, reset_ms=reset_ms, wait_ms=wait_ms)


def _admitted(before: Standing, amount: int, now_ms: int) -> Standing:
    used = before.used + amount
    if before.name not in WINDOWS or not amount:
        return replace(before, used=used)
    window = WINDOWS[before.name]
    return replace(before, used=used, reset_ms=_gone_ms(now_ms // window.step_ms, window, now_ms))


def reply_headers(standings: Standings) -> dict[str, str]:
    """OpenAI's `x-ratelimit-*`. Of several limits of one unit the one that has least left; none for `concurrent`."""
    found: dict[str, str] = {}
    for unit in ("requests", "tokens"):
        mine = [one for one in standings if one.name in WINDOWS and WINDOWS[one.name].unit == unit]
        if mine:
            tightest = min(mine, key=_left)
            found[f"x-ratelimit-limit-{unit}"] = str(tightest.limit)
            found[f"x-ratelimit-remaining-{unit}"] = str(_left(tightest))
            found[f"x-ratelimit-reset-{unit}"] = span(tightest.reset_ms)
    return found


def refusal(standings: Standings, tokens: int) -> Deny:
    """The 429 for the limit that holds longest. Raises ValueError where none refuses."""
    refusing = [one for one in standings if one.wait_ms is not None]
    worst = max(refusing, key=lambda one: float("inf") if one.wait_ms == NEVER_MS else one.wait_ms or 0)
    headers = reply_headers(standings)
    if worst.wait_ms == NEVER_MS:
        headers["x-should-retry"] = "false"  # OpenAI's SDK asks a 429 again by itself unless it is told this
    else:
        headers["retry-after"] = str(max(1, -(-(worst.wait_ms or 0) // 1000)))
    unit = "requests" if worst.name == CONCURRENT else WINDOWS[worst.name].unit
    return Deny(
        status=429,
        code="rate_limit_exceeded",
        message=_message(worst, tokens, headers.get("retry-after")),
        type=unit,
        headers=tuple(headers.items()),
    )


def span(milliseconds: int) -> str:
    """A time as OpenAI's headers write it: `20ms`, `1s`, `6m0s`, `23h59m0s`; seconds are rounded up."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = -(-max(0, milliseconds) // 1000)
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


_WORDS: Mapping[str, str] = {
    "requests_per_minute": "{limit:,} requests within 60 seconds",
    "tokens_per_minute": "{limit:,} tokens within 60 seconds, prompt and answer together",
    "tokens_per_day": "{limit:,} tokens within 24 hours, prompt and answer together",
    CONCURRENT: "{limit:,} requests being answered at the same time",
}


def _message(worst: Standing, tokens: int, wait_s: str | None) -> str:
    limit = _WORDS[worst.name].format(limit=worst.limit)
    if wait_s is None:
        return (
            f"This request is too large for the API key's limit {worst.name}: {limit}. It counts as {tokens:,} tokens "
            "(its prompt by estimate, and max_tokens or a usual answer). Send less, or ask for a smaller max_tokens."
        )
    takes = f", and this request takes {tokens:,}" if worst.name.startswith("tokens") else ""
    return (
        f"The API key's limit {worst.name} is reached: {limit}. {worst.used:,} are used{takes}. "
        f"Try again in {wait_s} s."
    )


def _left(one: Standing) -> int:
    return max(0, one.limit - one.used)


def _gone_ms(step: int, window: Window, now_ms: int) -> int:
    """Until what was used in this step counts no more."""
    return max(0, (step + window.steps + 1) * window.step_ms - now_ms)


def _wait_ms(used: Used, window: Window, too_much: int, now_ms: int) -> int:
    for step, amount in used:
        too_much -= amount
        if too_much <= 0:
            return _gone_ms(step, window, now_ms)
    return NEVER_MS
