"""Room for one request on one revision: which replicas there are, what they hold, which one gets it. One per revision.

Each replica holds at most what it was started for (`room`). Where it is, the ledger says, which all policy servers
share; which replica is tried first, the picker (`pick`). Where a first token was promised in time, a replica that holds
something takes no more than it gets done in that time. Not here: who may be next (`line`), and waiting (`admission`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Sequence

from gonogo.gateway.policy.gate import Admitted
from gonogo.gateway.policy.ledger import Held, Hold, Ledger, Room
from gonogo.gateway.policy.pace import Pace
from gonogo.gateway.policy.pick import ON_CARDS, ON_CPU, Ask, PrefixMemory, ReplicaLoad, pick
from gonogo.gateway.policy.replicas import ReplicaSeen
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.room import UNBOUNDED, room_of
from gonogo.gateway.policy.rules import LLAMACPP, TOKEN_AWARE, VLLM_CPU, ServiceRules

HOLD_S = 900.0
"""As long as a stream may be idle at most; a request whose end was never heard holds its room so long."""
HELD_FRESH_S = 0.05
"""So long what the ledger said is good enough to pick by, where prompts do not take longer: another server may have
begun one meanwhile. It is never what decides whether there is room."""
BLOCK_TOKENS = 64
FEWEST_BLOCKS, MOST_BLOCKS = 1024, 65_536
BESIDE_PARTS = 4
"""Beside others, what may take its time begins where a replica holds less than one of so many parts of its requests."""
ON_PROCESSORS = (LLAMACPP, VLLM_CPU)
ALL = "*"
"""Stands for all replicas of a revision whose balancing is Envoy's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """`monotonic` in seconds, and `wall` in Unix seconds: holds are shared with other processes."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the requests of a revision may go now: its replicas, at least one of them well, and what each may hold."""

    rules: ServiceRules
    seen: tuple[ReplicaSeen, ...]
    room: Room

    @property
    def picked(self) -> bool:
        """Whether policy picks the replica, and not Envoy."""
        return self.rules.balancing == TOKEN_AWARE

    @property
    def well(self) -> int:
        return sum(1 for each in self.seen if each.healthy)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What the ledger is asked about."""
        return tuple(each.endpoint for each in self.seen if each.healthy) if self.picked else (ALL,)

    @property
    def endpoint_room(self) -> Room:
        """Of each of `endpoints`."""
        if self.picked or self.room == UNBOUNDED:
            return self.room
        return Room(tokens=self.room.tokens * self.well, sequences=self.room.sequences * self.well)

    @property
    def beside_room(self) -> Room:
        """Of each of `endpoints`, for what begins beside others; of a server that nobody knows the room of, one."""
        room = self.endpoint_room
        unknown = 1 if self.picked else self.well
        parts = unknown if room == UNBOUNDED else max(1, room.sequences // BESIDE_PARTS)
        return Room(tokens=room.tokens, sequences=parts)

    def in_time(self, pace: Pace, waited_s: float = 0.0) -> int:
        """Tokens that one of `endpoints` may hold so that the first token of one who waited comes as promised."""
        most = self.endpoint_room.tokens
        if self.rules.ttft_ms is None:
            return most
        tokens = pace.tokens_in(max(0.0, self.rules.ttft_ms / 1000 - waited_s))
        return most if tokens is None else min(most, tokens * (1 if self.picked else self.well))


def place_of(rules: ServiceRules | None, seen: Sequence[ReplicaSeen] | None) -> Place | None:
    """None: nothing is known of the replicas, or none is well. Then Envoy says what happens."""
    if rules is None or not seen or not any(each.healthy for each in seen):
        return None
    return Place(rules=rules, seen=tuple(seen), room=room_of(rules, len(seen)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be held: a request, on whose behalf, how many tokens, and since when (monotonic seconds).

    `later`: it may take its time. `asks`: somebody waits for it.
    """

    request: Request
    key_id: str
    tokens: int
    since: float
    later: bool = False
    asks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """Room on `endpoint`, and what to say of it. `fresh_tokens`: of its prompt, that should not be cached there."""

    endpoint: str
    admitted: Admitted
    fresh_tokens: int


class Placing:
    """Reserves room for requests of one revision (`service/number`)."""

    def __init__(self, revision: str, ledger: Ledger, clocks: Clocks) -> None:
        self.revision = revision
        self._ledger = ledger
        self._clocks = clocks
        self._memory = PrefixMemory(FEWEST_BLOCKS)
        self.pace = Pace()
        self._held: dict[str, Held] = {}
        self._held_at = float("-inf")

    def outdated(self) -> None:
        """What is known of the ledger is not true any more."""
        self._held_at = float("-inf")

    def together(self, endpoint: str) -> int:
        """How many requests this replica was last known to hold."""
        return self._held.get(endpoint, _NOTHING).sequences

    async def free_tokens(self, place: Place) -> int:
        """The largest request that a replica has room for."""
        await self._look()
        room, in_time = place.endpoint_room, place.in_time(self.pace)
        held = [self._held.get(endpoint, _NOTHING) for endpoint in place.endpoints]
        return max(
            (
                (in_time if each.sequences else room.tokens) - each.tokens
                for each in held
                if each.sequences < room.sequences
            ),
            default=0,
        )

    async def reserve(self, place: Place, wanted: Wanted, beside: bool = False) -> Reserved | None:
        """Room on the best replica that has it, in one step of the ledger; None: none has.

        `beside`: most of each replica is kept for others, who ask from time to time.
        """
        if beside or self.pace.prompt_s(wanted.request.prompt_tokens) > HELD_FRESH_S:
            self.outdated()
        order = await self.order(place, wanted.request)
        may_go = self._can_begin(place, order or (ALL,)) if beside else order or (ALL,)
        fresh_tokens = self._fresh_tokens(wanted.request, order)
        hold = self._hold(wanted, self.pace.prompt_s(fresh_tokens))
        # What is larger than can be done in time gets a replica to itself.
        waited_s = self._clocks.monotonic() - wanted.since
        tokens = max(wanted.tokens, place.in_time(self.pace, waited_s))
        room = place.beside_room if beside else place.endpoint_room
        chosen = await self._ledger.reserve(hold, may_go, replace(room, tokens=tokens)) if may_go else None
        if chosen is None:
            self.outdated()
            return None
        before = self._held.get(chosen, _NOTHING)
        self._held[chosen] = Held(
            tokens=before.tokens + wanted.tokens,
            sequences=before.sequences + 1,
            prompts_s=before.prompts_s + hold.prompt_s,
        )
        if order:
            self._memory.enter(chosen, wanted.request.prefix)
        others = tuple(each for each in order if each != chosen)
        admitted = Admitted(endpoints=(chosen, *others) if order else ())
        return Reserved(endpoint=chosen, admitted=admitted, fresh_tokens=fresh_tokens)

    async def order(self, place: Place, request: Request) -> tuple[str, ...]:
        """The replicas that are well, best first; () where Envoy balances."""
        if not place.picked:
            return ()
        await self._look()
        self._memory.most_blocks = max(FEWEST_BLOCKS, min(MOST_BLOCKS, place.room.tokens // BLOCK_TOKENS))
        self._memory.keep([each.endpoint for each in place.seen])
        ask = Ask(prompt_tokens=request.prompt_tokens, prefix=request.prefix, block_tokens=BLOCK_TOKENS)
        loads = [self._load(each) for each in place.seen]
        return pick(ask, loads, self._memory, ON_CPU if place.rules.engine in ON_PROCESSORS else ON_CARDS)

    def _fresh_tokens(self, request: Request, order: Sequence[str]) -> int:
        cached = self._memory.reused(order[0], request.prefix) * BLOCK_TOKENS if order else 0
        return max(0, request.prompt_tokens - cached)

    def _hold(self, wanted: Wanted, prompt_s: float) -> Hold:
        return Hold(
            request_id=wanted.request.request_id,
            revision=self.revision,
            key_id=wanted.key_id,
            tokens=wanted.tokens,
            expires_at=self._clocks.wall() + HOLD_S,
            prompt_s=prompt_s,
            asks=wanted.asks,
        )

    def _can_begin(self, place: Place, endpoints: Sequence[str]) -> Sequence[str]:
        """Those of them that compute no prompt now and are not full; none, where there are several replicas and only
        one such is left: whoever asks next must find one that can begin with its prompt at once.
        """
        room = place.endpoint_room.sequences
        held = {each: self._held.get(each, _NOTHING) for each in endpoints}
        free = [each for each in endpoints if held[each].prompts_s <= 0 and held[each].sequences < room]
        return free if len(free) > 1 or place.well == 1 or not place.picked else ()

    def _load(self, seen: ReplicaSeen) -> ReplicaLoad:
        held = self._held.get(seen.endpoint, _NOTHING)
        return ReplicaLoad(
            endpoint=seen.endpoint,
            healthy=seen.healthy,
            held_tokens=held.tokens,
            computing_tokens=self.pace.prompt_tokens_in(held.prompts_s),
            held_requests=held.sequences,
            active=seen.active,
            waiting=seen.waiting,
            cache_used=seen.cache_used,
        )

    async def _look(self) -> None:
        now = self._clocks.monotonic()
        if now - self._held_at >= HELD_FRESH_S:
            self._held_at = now
            self._held = dict(await self._ledger.held(self.revision))


_NOTHING = Held()
