"""Which replica a request should go to, best first: by what each one holds, and by who has its beginning cached. Pure.

The rule. A replica's cost is the work before the request's first token, in tokens of prompts: the prompt without the
part that is cached there, a share of what the replica holds already, and a share of the prompts that it computes now
(`Weights`). The least cost goes first. So a conversation stays where it was until that replica holds so much more than
another that the prompt saved is not worth it: affinity is bounded by what it saves. A replica that says itself that it
is full comes last, whatever it has cached.

Every policy server remembers by itself what it sent where. So that two agree without talking, each conversation has a
*home*, by rendezvous hashing of its first block that is not shared by many: while no replica is known to have more
than what is shared, it counts as if half of the prompt were cached at home. `benchmarks/prefix.py`: without a home two
servers reach 71 % of the ideal reuse, with it 85 %.

Not here: who may hold how much (`ledger`, `admission`), how it is known who is well (`replicas`). No clock, no chance.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Mapping, Sequence

FULL = 0.95
"""Of the engine's cache: above it an engine throws out or makes wait."""
SHARED_BY = 8
"""A block that so many different ones follow is no conversation's own: a system prompt, a template."""
HOME_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The parts that stand before a new request's first token: of all tokens that a replica holds, and beside that of
    those of prompts which it computes now.
    """

    held: float
    computing: float


ON_CARDS = Weights(held=0.1, computing=0.15)
"""A prompt takes about a tenth of a request's time. One being computed stands before the next as a whole, but to count
it so costs more reuse than it saves time (`benchmarks/prefix.py`, two servers, 2,000 blocks: with 0 87 % of the ideal
reuse and a first token after 1.28 s, with 0.15 84 % and 1.06 s, with 0.9 71 % and 0.93 s)."""
ON_CPU = Weights(held=0.5, computing=1.0)
"""A prompt takes half of a request's time, and nothing interrupts it; answers beside it cost it little (llama.cpp, a
prompt of 73 tokens: 0.36 s beside nothing, 0.44 s beside an answer, 0.36 s more behind a prompt)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """What is known of one replica. `endpoint`: `ip:port`.

    `held_tokens`, `held_requests`: of admitted requests (`ledger`), `computing_tokens` of them of prompts that it still
    computes, as far as that is known. `active`: requests that Envoy has on it, None: not
    looked at. `waiting`: in the engine's own queue. `cache_used`: share of its KV cache, None: not known.
    """

    endpoint: str
    healthy: bool
    held_tokens: int = 0
    computing_tokens: int = 0
    held_requests: int = 0
    active: int | None = None
    waiting: int = 0
    cache_used: float | None = None

    @property
    def full(self) -> bool:
        """It says itself that the next request would wait."""
        return self.waiting > 0 or (self.cache_used is not None and self.cache_used >= FULL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is known of a request: tokens of its prompt, the hash of each whole block from its beginning, their size.

    A block's hash stands for all of the prompt up to its end.
    """

    prompt_tokens: int
    prefix: Sequence[int] = ()
    block_tokens: int = 64


class PrefixMemory:
    """Which blocks each replica was sent, the last `most_blocks` of each: about as many as its cache can hold."""

    def __init__(self, most_blocks: int) -> None:
        self.most_blocks = most_blocks
        self._sent: dict[str, OrderedDict[int, None]] = {}
        self._followers: OrderedDict[int, set[int]] = OrderedDict()

    def reused(self, endpoint: str, prefix: Sequence[int]) -> int:
        """How many of the first blocks this replica should still have."""
        sent = self._sent.get(endpoint)
        if not sent:
            return 0
        # Whoever has a block has all before it: the later ones are forgotten first.
        low, high = 0, len(prefix)
        while low < high:
            middle = (low + high) // 2
            if prefix[middle] in sent:
                low = middle + 1
            else:
                high = middle
        return low

    def enter(self, endpoint: str, prefix: Sequence[int]) -> None:
        """This prompt was sent there."""
        sent = self._sent.setdefault(endpoint, OrderedDict())
        for block in reversed(prefix):
            sent[block] = None
            sent.move_to_end(block)
        while len(sent) > self.most_blocks:
            sent.popitem(last=False)
        self._note_followers(prefix)

    def own(self, prefix: Sequence[int]) -> int:
        """Where the conversation's own blocks begin: after the last one that many different ones follow."""
        for position in range(len(prefix) - 1, 0, -1):
            if len(self._followers.get(prefix[position - 1], ())) >= SHARED_BY:
                return position
        return 0

    def keep(self, endpoints: Sequence[str]) -> None:
        """Forget replicas that are gone: their successors begin with an empty cache."""
        for endpoint in self._sent.keys() - set(endpoints):
            del self._sent[endpoint]

    def _note_followers(self, prefix: Sequence[int]) -> None:
        for block, following in zip(prefix, islice(prefix, 1, None), strict=False):
            followers = self._followers.get(block)
            if followers is None:
                self._followers[block] = followers = set()
            self._followers.move_to_end(block)
            if len(followers) < SHARED_BY:
                followers.add(following)
        while len(self._followers) > self.most_blocks:
            self._followers.popitem(last=False)


def pick(
    ask: Ask, replicas: Sequence[ReplicaLoad], memory: PrefixMemory, before: Weights = ON_CARDS
) -> tuple[str, ...]:
    """The healthy replicas, best first; () when none is. The same input gives the same order."""
    healthy = [replica for replica in replicas if replica.healthy]
    reused = {each.endpoint: memory.reused(each.endpoint, ask.prefix) for each in healthy}
    weights, home = _rendezvous(ask, reused, memory)

    def cost(each: ReplicaLoad) -> float:
        # Requests that nobody holds: another policy server's while the ledger is not shared.
        unseen = max(0, (each.active or 0) - each.held_requests) * ask.prompt_tokens
        # The last token of a prompt is computed always.
        saved = min(reused[each.endpoint] * ask.block_tokens, ask.prompt_tokens - 1)
        if each.endpoint == home:
            saved = max(saved, int(ask.prompt_tokens * HOME_SHARE))
        computing = before.computing * min(each.computing_tokens, each.held_tokens)
        return computing + before.held * (each.held_tokens + unseen) - saved

    order = sorted(healthy, key=lambda each: (each.full, cost(each), -weights.get(each.endpoint, 0), each.endpoint))
    return tuple(each.endpoint for each in order)


def _rendezvous(ask: Ask, reused: Mapping[str, int], memory: PrefixMemory) -> tuple[Mapping[str, int], str | None]:
    """Each replica's weight for the conversation, and its home, None: some replica is known to have its own blocks."""
    if not ask.prefix or not reused:
        return {}, None
    own = memory.own(ask.prefix)
    weights = {endpoint: _weight(ask.prefix[own], endpoint) for endpoint in reused}
    known = max(reused.values()) > own
    return weights, None if known else max(weights, key=lambda each: weights[each])


def _weight(block: int, endpoint: str) -> int:
    digest = blake2b(f"{block}/{endpoint}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
