"""How much of the prompts' cached beginnings each way of balancing reuses: `.venv/bin/python benchmarks/prefix.py`.

    .venv/bin/python benchmarks/prefix.py --traces DIR [--json] [--blocks 1000,2000,4000]

Replays the Mooncake conversation trace (DIR/mooncake/conversation_trace.jsonl; github.com/kvcache-ai/Mooncake,
FAST25-release/traces, Apache-2.0) against four *simulated* replicas: each has an LRU cache of so many 512-token blocks,
computes one prompt after the other at 15,000 tokens a second, then gives each answer 40 tokens a second. No network and
no clock: the same numbers each time. Beside round robin and least request stands our picker, with one policy server and
with two that each see every second request and share nothing but the ledger. Ideal: what *one* cache four times as
large would reuse, if every request could use it. Exit code 3: ours with two servers stays below 80 % of it.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import sys
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Sequence

from gonogo.gateway.policy.pick import Ask, PrefixMemory, ReplicaLoad, pick

REPLICAS, BLOCK_TOKENS = 4, 512
PROMPT_TOKENS_PER_S, ANSWER_TOKENS_PER_S = 15_000, 40
AIM = 0.80
BLOCKED = 3
TRACE = "mooncake/conversation_trace.jsonl"
NAMES = tuple(f"127.0.0.1:{9000 + number}" for number in range(REPLICAS))


@dataclass(frozen=True)
class Arrival:
    """One request of the trace: seconds since its beginning, tokens, and the ids of its prompt's blocks."""

    at_s: float
    prompt_tokens: int
    answer_tokens: int
    blocks: tuple[int, ...]


@dataclass
class Cache:
    """Least recently used blocks go; a prompt's later ones before its earlier ones."""

    size: int
    kept: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def serve(self, blocks: Sequence[int]) -> int:
        """How many of the first blocks are there; then all of them are."""
        there = sum(1 for _ in itertools.takewhile(self.kept.__contains__, blocks))
        for block in reversed(blocks):
            self.kept[block] = None
            self.kept.move_to_end(block)
        while len(self.kept) > self.size:
            self.kept.popitem(last=False)
        return there


@dataclass
class Replica:
    """A simulated replica, and what is in flight there."""

    cache: Cache
    free_at_s: float = 0.0
    tokens: int = 0
    requests: int = 0


@dataclass(frozen=True)
class Row:
    """One way of balancing. `reused`: share of all blocks; TTFT in seconds of the simulation."""

    name: str
    reused: float
    of_ideal: float
    ttft_p50_s: float
    ttft_p99_s: float
    most_requests: int


Choose = Callable[[int, Arrival, Sequence[Replica]], int]


def round_robin(number: int, _: Arrival, replicas: Sequence[Replica]) -> int:
    return number % len(replicas)


def least_request(number: int, _: Arrival, replicas: Sequence[Replica]) -> int:
    order = range(len(replicas))
    return min(order, key=lambda each: (replicas[each].requests, (each + number) % len(replicas)))


def ours(servers: int, blocks: int) -> Choose:
    """Our picker, in so many policy servers that take turns."""
    memories = [PrefixMemory(blocks) for _ in range(servers)]

    def choose(number: int, arrival: Arrival, replicas: Sequence[Replica]) -> int:
        memory = memories[number % servers]
        ask = Ask(prompt_tokens=arrival.prompt_tokens, prefix=arrival.blocks, block_tokens=BLOCK_TOKENS)
        loads = [
            ReplicaLoad(
                endpoint=name,
                healthy=True,
                held_tokens=each.tokens,
                computing_tokens=int(max(0.0, each.free_at_s - arrival.at_s) * PROMPT_TOKENS_PER_S),
                held_requests=each.requests,
            )
            for name, each in zip(NAMES, replicas, strict=True)
        ]
        best = pick(ask, loads, memory)[0]
        memory.enter(best, arrival.blocks)
        return NAMES.index(best)

    return choose


def replay(name: str, arrivals: Sequence[Arrival], blocks: int, choose: Choose, ideal: float) -> Row:
    """Send every request where `choose` says, at the time of the trace."""
    replicas = [Replica(cache=Cache(blocks)) for _ in range(REPLICAS)]
    ends: list[tuple[float, int, int]] = []
    counts = [0] * REPLICAS
    ttfts, reused = [], 0
    for number, arrival in enumerate(arrivals):
        while ends and ends[0][0] <= arrival.at_s:
            _, index, tokens = heapq.heappop(ends)
            replicas[index].tokens -= tokens
            replicas[index].requests -= 1
        index = choose(number, arrival, replicas)
        replica = replicas[index]
        there = replica.cache.serve(arrival.blocks)
        work_s = max(1, arrival.prompt_tokens - there * BLOCK_TOKENS) / PROMPT_TOKENS_PER_S
        replica.free_at_s = max(replica.free_at_s, arrival.at_s) + work_s
        tokens = arrival.prompt_tokens + arrival.answer_tokens
        replica.tokens += tokens
        replica.requests += 1
        heapq.heappush(ends, (replica.free_at_s + arrival.answer_tokens / ANSWER_TOKENS_PER_S, index, tokens))
        ttfts.append(replica.free_at_s - arrival.at_s)
        reused += there
        counts[index] += 1
    share = reused / _blocks(arrivals)
    ttfts.sort()
    return Row(
        name=name,
        reused=round(share, 4),
        of_ideal=round(share / ideal, 4) if ideal else 0.0,
        ttft_p50_s=round(ttfts[len(ttfts) // 2], 3),
        ttft_p99_s=round(ttfts[len(ttfts) * 99 // 100], 3),
        most_requests=max(counts),
    )


def ideal_reuse(arrivals: Sequence[Arrival], blocks: int) -> float:
    """The share that one cache as large as all replicas' together reuses."""
    cache = Cache(blocks * REPLICAS)
    return sum(cache.serve(arrival.blocks) for arrival in arrivals) / _blocks(arrivals)


def compare(arrivals: Sequence[Arrival], blocks: int) -> tuple[float, tuple[Row, ...]]:
    """The ideal, and every way of balancing beside it."""
    ideal = ideal_reuse(arrivals, blocks)
    ways: tuple[tuple[str, Choose], ...] = (
        ("round robin", round_robin),
        ("least request", least_request),
        ("ours, one policy server", ours(1, blocks)),
        ("ours, two policy servers", ours(2, blocks)),
    )
    return ideal, tuple(replay(name, arrivals, blocks, choose, ideal) for name, choose in ways)


def read_trace(text: str) -> list[Arrival]:
    """One JSON object a line, as Mooncake publishes them."""
    rows = (json.loads(line) for line in text.splitlines() if line)
    return [
        Arrival(row["timestamp"] / 1000, row["input_length"], row["output_length"], tuple(row["hash_ids"]))
        for row in rows
    ]


def main() -> int:
    """Replay, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=Path, required=True, help=f"folder that holds {TRACE}")
    parser.add_argument("--blocks", default="1000,2000,4000", help="512-token blocks of each replica's cache")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    given = parser.parse_args()
    trace = given.traces / TRACE
    if not trace.is_file():
        parser.error(f"{trace} is not there: it comes from github.com/kvcache-ai/Mooncake, FAST25-release/traces")
    arrivals = read_trace(trace.read_text())
    sizes = [int(size) for size in given.blocks.split(",")]
    results = [(size, *compare(arrivals, size)) for size in sizes]
    if given.json:
        print(json.dumps([_as_json(*result) for result in results], indent=2))
    else:
        for result in results:
            _show(*result)
    return 0 if all(rows[-1].of_ideal >= AIM for _, _, rows in results) else BLOCKED


def _blocks(arrivals: Sequence[Arrival]) -> int:
    return sum(len(arrival.blocks) for arrival in arrivals)


def _as_json(size: int, ideal: float, rows: Sequence[Row]) -> dict[str, Any]:
    return {"blocks_per_replica": size, "ideal": round(ideal, 4), "rows": [asdict(row) for row in rows]}


def _show(size: int, ideal: float, rows: Sequence[Row]) -> None:
    print(
        f"\n{REPLICAS} replicas with {size:,} blocks of {BLOCK_TOKENS} tokens each; "
        f"ideal, one cache of {size * REPLICAS:,}: {ideal:.1%}"
    )
    print(f"{'':26}{'reused':>8}{'of ideal':>10}{'TTFT p50':>10}{'p99':>8}{'most requests':>15}")
    for row in rows:
        print(
            f"{row.name:26}{row.reused:8.1%}{row.of_ideal:10.1%}{row.ttft_p50_s:8.2f} s{row.ttft_p99_s:6.1f} s"
            f"{row.most_requests:15,}"
        )


if __name__ == "__main__":
    sys.exit(main())
