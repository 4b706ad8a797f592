"""The prefix benchmark on conversations made up here: the picker reuses most of what one large cache would."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import prefix

SYSTEM = (0, 1)
BLOCKS = 400


def conversations(count: int, turns: int) -> list[prefix.Arrival]:
    """Interleaved conversations with a shared beginning, each turn longer than the last by some blocks of its own."""
    chance = random.Random(5)
    fresh = iter(range(1000, 10**6))
    arrivals = []
    for _ in range(count):
        at_s, blocks = chance.uniform(0, 4 * count), SYSTEM
        for _ in range(chance.randint(1, turns)):
            blocks = (*blocks, *(next(fresh) for _ in range(chance.randint(1, 12))))
            arrivals.append(prefix.Arrival(at_s, len(blocks) * prefix.BLOCK_TOKENS, chance.randint(20, 600), blocks))
            at_s += chance.uniform(15, 120)
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


ARRIVALS = conversations(250, 6)
IDEAL, ROWS = prefix.compare(ARRIVALS, BLOCKS)
BY_NAME = {row.name: row for row in ROWS}


def test_one_policy_server_and_two_that_never_talk_reach_four_fifths_of_the_ideal() -> None:
    assert IDEAL > 0.3
    assert BY_NAME["ours, one policy server"].of_ideal >= prefix.AIM
    assert BY_NAME["ours, two policy servers"].of_ideal >= prefix.AIM


def test_others_do_not_and_answer_later() -> None:
    ours = BY_NAME["ours, two policy servers"]
    for name in ("round robin", "least request"):
        assert BY_NAME[name].of_ideal < prefix.AIM
        assert BY_NAME[name].ttft_p50_s > ours.ttft_p50_s


def test_no_replica_gets_more_than_a_third_of_the_requests() -> None:
    assert BY_NAME["ours, two policy servers"].most_requests < len(ARRIVALS) / 3


def test_a_trace_is_read_as_it_is_published() -> None:
    line = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'
    assert prefix.read_trace(line) == [prefix.Arrival(27.482, 6955, 52, (46, 47))]
