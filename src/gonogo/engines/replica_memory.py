"""What one replica takes of its accelerators, and what its cache holds: the answer of every engine's memory plan. Pure.

The addition per rank: budget − (weights + activation + …) = cache. The pool is the tightest rank's: all ranks of a
replica hold the same blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.engines.memory import Term


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """One accelerator of stage `stage`. Bytes.

    `budget_bytes`: what the engine may take. `cache_bytes`: what its terms leave for the cache, negative when they do
    not fit. `free_bytes`: free before it starts. `outside`: what is taken beside the budget, `reserve_bytes` what must
    still be free then. `loading_bytes`: held at once while weights load, 0: no more than is left of them.
    """

    stage: int
    budget_bytes: int
    free_bytes: int
    terms: tuple[Term, ...]
    cache_bytes: int
    outside: tuple[Term, ...] = ()
    reserve_bytes: int = 0
    loading_bytes: int = 0

    @property
    def slack_bytes(self) -> int:
        """Free beside the budget and what is taken outside it."""
        return self.free_bytes - self.budget_bytes - sum(term.size_bytes for term in self.outside)

    def term(self, name: str) -> int:
        """Bytes of the named term, inside the budget or outside, 0 when there is none."""
        return sum(term.size_bytes for term in (*self.terms, *self.outside) if term.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What the cache of one replica holds. `blocks` is None for engines that count tokens.

    `tokens`: as the engine prints it. `requests`: of the asked length at once, a fraction below 1 when not even one.
    `request_bytes`: what one request of the asked length takes on the tightest rank.
    """

    tokens: int
    requests: float
    request_bytes: int
    blocks: int | None = None
    block_tokens: int | None = None
    block_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaMemory:
    """All ranks of one replica, one of each stage, and its cache. `pool` None: nothing with a size is remembered.

    `sequences`: the most that the engine takes into one step; None: as many as the cache holds. `strained`: less is
    left beside the cache than the engine leaves by itself, and nobody measured whether that is enough; or
    a prompt of the asked length cannot be read in one step, though its cache fits. `prompt_tokens`: the longest prompt
    that can, of an engine that reads it so; None: the engine reads prompts in pieces.
    """

    ranks: tuple[RankMemory, ...]
    pool: Pool | None
    sequences: int | None = None
    strained: bool = False
    prompt_tokens: int | None = None

    @property
    def tightest(self) -> RankMemory:
        """The rank with the least left for its cache."""
        return min(self.ranks, key=lambda rank: rank.cache_bytes)
