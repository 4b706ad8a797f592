"""Admission: a request goes on when a replica has room for it, waits while none has, and is refused when too many wait.

Whoever waits is ordered by the batch scheduler (`line`). A request's end is heard from the gateway's logs (`heard`), so
that nothing of a running answer depends on this process; an end that is never heard expires (`placing.HOLD_S`).

Where nothing is known of the replicas, or none is well, Envoy decides alone. A key that is pinned to a revision is a
probe's: it never waits. Not here: where there is room (`placing`), limits of keys, whether a request is right.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Callable, Mapping, Sequence

from gonogo.gateway.policy.counters import End
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.gate import Admitted, may_wait
from gonogo.gateway.policy.ledger import Ledger
from gonogo.gateway.policy.line import Bounds, Claim, Line
from gonogo.gateway.policy.placing import Clocks, Place, Placing, Wanted, place_of
from gonogo.gateway.policy.replicas import ReplicaSeen
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.rules import ServiceRules
from gonogo.plan.batching import Priority, Waiting
from gonogo.security.keys import KeyRow

TICK_S, TICK_WAITING_S = 0.1, 0.02
"""How often it is looked whether somebody can go on; the second one while somebody waits."""
MOST_KNOWN = 10_000
LEAST_COMPUTED = 0.5
"""Of what was not thought to be cached: a first token that came early since more was, tells nothing of the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiter:
    wanted: Wanted
    admitted: asyncio.Future[Admitted]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What was let in here: its end tells how long requests take. `noted`: it has told so."""

    revision: str
    endpoint: str
    tokens: int
    prompt_tokens: int
    fresh_tokens: int
    since: float
    together: int
    noted: bool = False


class _Service:
    """One revision: who waits, and for what room."""

    def __init__(self, line: Line, placing: Placing) -> None:
        self.line = line
        self.placing = placing
        self.waiters: dict[str, _Waiter] = {}
        self.serving: asyncio.Task[None] | None = None
        self.again = False

    def patient(self) -> bool:
        """Whether only those wait here that may take their time."""
        return all(waiter.wanted.later or waiter.admitted.done() for waiter in self.waiters.values())


class Admission:
    """The gate (`gate.Gate`) of one policy server.

    `replicas` gives what Envoy says of a revision's replicas, None: it says nothing; `rules` a revision's rules, None:
    there is no such revision any more.
    """

    def __init__(
        self,
        ledger: Ledger,
        replicas: Callable[[str], Sequence[ReplicaSeen] | None],
        rules: Callable[[str], ServiceRules | None],
        clocks: Clocks,
        bounds: Bounds | None = None,
    ) -> None:
        self._ledger = ledger
        self._replicas = replicas
        self._rules = rules
        self._clocks = clocks
        self._bounds = bounds or Bounds()
        self._services: dict[str, _Service] = {}
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._numbers = itertools.count()
        self._releasing: set[asyncio.Future[int]] = set()

    async def admit(self, request: Request, key: KeyRow, revision: str) -> Admitted | Deny:
        """As `Gate.admit`: at once, or after at most the longest wait. Cancelled, the request has left the line."""
        place = self._place(revision)
        if place is None:
            return Admitted()
        service = self._service(revision)
        tokens = min(max(1, request.prompt_tokens + request.expected_tokens), place.room.tokens)
        now = self._clocks.monotonic()
        later = may_wait(request, key)
        asks = not later and key.revision is None
        wanted = Wanted(request=request, key_id=key.key_id, tokens=tokens, since=now, later=later, asks=asks)
        try:
            return await self._admit(service, place, wanted, key)
        except asyncio.CancelledError:
            # Room may have been made for it at this very moment, and nobody would ever hear of its end.
            self._release(request.request_id)
            raise

    async def heard(self, ends: Sequence[End]) -> None:
        """These requests have ended: what they held is free. Told twice, or of unknown ones, does no harm."""
        await self._ledger.release([end.request_id for end in ends if end.over])
        for end in ends:
            self._learn(end)
        for revision, service in self._services.items():
            service.placing.outdated()
            self._serve(service, revision)

    async def run(self) -> None:
        """Until cancelled: room also comes from ends that only another server hears of, expired holds, new replicas."""
        while True:
            await asyncio.sleep(TICK_WAITING_S if any(self.waiting().values()) else TICK_S)
            self.tick()

    def tick(self) -> None:
        """Look whether somebody who waits can go on; forget revisions that are gone."""
        for revision, service in list(self._services.items()):
            if len(service.line):
                self._serve(service, revision)
            elif self._rules(revision) is None:
                del self._services[revision]

    def waiting(self) -> Mapping[str, int]:
        """How many wait, by revision."""
        return {revision: len(service.line) for revision, service in self._services.items()}

    def _place(self, revision: str) -> Place | None:
        return place_of(self._rules(revision), self._replicas(revision))

    def _service(self, revision: str) -> _Service:
        service = self._services.get(revision)
        if service is None:
            placing = Placing(revision, self._ledger, self._clocks)
            service = _Service(Line(self._bounds, placing.pace), placing)
            self._services[revision] = service
        return service

    async def _admit(self, service: _Service, place: Place, wanted: Wanted, key: KeyRow) -> Admitted | Deny:
        probe = key.revision is not None
        if probe or not len(service.line):
            admitted = await self._reserve(service, place, wanted)
            if admitted is not None:
                return admitted
        if probe:
            return Admitted(endpoints=await service.placing.order(place, wanted.request))
        refusal = service.line.refusal(_claim(place, wanted), place.room, place.well)
        return await self._wait(service, place, wanted, key) if refusal is None else refusal

    async def _wait(self, service: _Service, place: Place, wanted: Wanted, key: KeyRow) -> Admitted | Deny:
        name = str(next(self._numbers))
        waiting = Waiting(
            request_id=name,
            key=key.key_id,
            priority=Priority.BATCH if wanted.later else Priority.INTERACTIVE,
            prompt_tokens=wanted.tokens,
            output_tokens=0,
            since=wanted.since,
        )
        waiter = _Waiter(wanted=wanted, admitted=asyncio.get_running_loop().create_future())
        longest_s = service.line.longest_wait_s(_claim(place, wanted))
        service.line.join(waiting, wanted.tokens, place.room)
        service.waiters[name] = waiter
        self._serve(service, service.placing.revision)
        try:
            await asyncio.wait((waiter.admitted,), timeout=longest_s)
            if waiter.admitted.done():
                return waiter.admitted.result()
            return service.line.too_long(_claim(place, wanted), place.well)
        finally:
            service.line.leave(name)
            del service.waiters[name]
            # Whoever is making room for it right now sees that nobody waits any more.
            waiter.admitted.cancel()

    def _serve(self, service: _Service, revision: str) -> None:
        """Let those go on that can, in a task that does not end when one client goes away."""
        service.again = True
        if len(service.line) and (service.serving is None or service.serving.done()):
            service.serving = asyncio.create_task(self._serving(service, revision))

    async def _serving(self, service: _Service, revision: str) -> None:
        while service.again:
            service.again = False
            while await self._next(service, self._place(revision)):
                pass

    async def _next(self, service: _Service, place: Place | None) -> bool:
        """Let the next one go on; whether one did."""
        if place is None:
            for waiter in service.waiters.values():
                _tell(waiter, Admitted())
            return False
        free_tokens = await service.placing.free_tokens(place)
        batch = service.line.next(self._clocks.monotonic(), free_tokens)
        if not batch.requests:
            return False
        waiter = service.waiters[batch.requests[0].request_id]
        admitted = await self._reserve(service, place, waiter.wanted)
        if admitted is None:  # another policy server was faster
            return False
        service.line.went(batch)
        if not _tell(waiter, admitted):
            self._release(waiter.wanted.request.request_id)
        return True

    async def _reserve(self, service: _Service, place: Place, wanted: Wanted) -> Admitted | None:
        # Most of each replica is kept for others who ask; not while some of them wait: then it had its turn.
        revision = service.placing.revision
        beside = wanted.later and service.patient() and await self._ledger.asked(revision)
        reserved = await service.placing.reserve(place, wanted, beside)
        if reserved is None:
            return None
        self._known[wanted.request.request_id] = _Known(
            revision=revision,
            endpoint=reserved.endpoint,
            tokens=wanted.tokens,
            prompt_tokens=wanted.request.prompt_tokens,
            fresh_tokens=reserved.fresh_tokens,
            since=self._clocks.monotonic(),
            together=service.placing.together(reserved.endpoint),
        )
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return reserved.admitted

    def _learn(self, end: End) -> None:
        """How fast replicas are, from what is heard of a request that was let in here. Of a stream that is told twice,
        by Envoy and by a relay, in any order: what is known of it is kept until much else is.
        """
        known = self._known.get(end.request_id)
        service = None if known is None else self._services.get(known.revision)
        if known is None or service is None:
            return
        pace = service.placing.pace
        fresh = known.fresh_tokens / max(1, known.prompt_tokens)
        if end.first_s is not None and end.computed >= fresh * LEAST_COMPUTED:
            pace.note_first(known.fresh_tokens, end.first_s)
        if end.over and not known.noted:
            together = (known.together + service.placing.together(known.endpoint)) / 2
            pace.note(known.tokens, self._clocks.monotonic() - known.since, together)
            self._known[end.request_id] = replace(known, noted=True)

    def _release(self, request_id: str) -> None:
        self._known.pop(request_id, None)
        task = asyncio.ensure_future(self._ledger.release([request_id]))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)


def _claim(place: Place, wanted: Wanted) -> Claim:
    promised = place.rules.ttft_ms
    ttft_s = None if promised is None or wanted.later else promised / 1000
    prompt_tokens = wanted.request.prompt_tokens
    return Claim(tokens=wanted.tokens, prompt_tokens=prompt_tokens, ttft_s=ttft_s, later=wanted.later)


def _tell(waiter: _Waiter, admitted: Admitted) -> bool:
    """Whether it still waited."""
    if waiter.admitted.done():
        return False
    waiter.admitted.set_result(admitted)
    return True
