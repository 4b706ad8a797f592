"""The replay on paper: bursts at simulated replicas, in a time of their own, with the real admission and picker."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from replaying import paper
from replaying.result import Outcome, Slo, row_of
from replaying.trace import KEYS, SCALES, Arrival, read

SLO = Slo(ttft_s=2.0, itl_s=0.2)


def bursts(seed: int, load: float) -> list[Arrival]:
    """A minute of bursts like those of azure code: few, short and steep; long prompts, short answers."""
    chance, arrivals, at_s = random.Random(seed), [], 0.0
    while at_s < 60:
        for _ in range(chance.choice((1, 1, 2, 8, 14))):
            prompt, answer = (
                min(930, int(chance.lognormvariate(5.1, 0.9))),
                min(160, int(chance.lognormvariate(2.7, 1))),
            )
            key = chance.choices(list(KEYS), list(KEYS.values()))[0]
            at_s += chance.expovariate(8)
            arrivals.append(Arrival(len(arrivals), at_s, key, "", max(4, prompt), max(1, answer)))
        at_s += chance.expovariate(1) * 8 / load
    return arrivals


BURSTS = bursts(2, 0.7)
ROUND_ROBIN = paper.on_paper(lambda: paper.round_robin(BURSTS))
OURS = paper.on_paper(lambda: paper.ours(BURSTS, SLO))


def test_goodput_is_half_as_much_again_as_round_robins_and_the_slowest_first_tokens_come_no_later() -> None:
    other, ours = row_of("round robin", ROUND_ROBIN, SLO), row_of("ours", OURS, SLO)
    assert 0.1 < other.good < 0.8, "neither idle nor hopeless"
    assert ours.goodput_per_s >= 1.5 * other.goodput_per_s
    assert (ours.interactive_ttft_p99_s or 9) <= (other.interactive_ttft_p99_s or 0)
    assert ours.worst_key_good >= other.worst_key_good


def test_every_request_is_answered_whole_or_refused_and_none_twice() -> None:
    row = row_of("ours", OURS, SLO)
    assert (row.lost, row.doubled) == (0, 0)
    assert sorted(outcome.arrival.number for outcome in OURS) == list(range(len(BURSTS)))
    assert row.refused + sum(outcome.done for outcome in OURS) == len(BURSTS)


def test_with_little_to_do_nothing_is_refused_and_nothing_comes_later() -> None:
    calm = [Arrival(number, number * 4.0, "alice", "", 100, 10) for number in range(12)]
    ours = paper.on_paper(lambda: paper.ours(calm, SLO))
    other = paper.on_paper(lambda: paper.round_robin(calm))
    assert [outcome.status for outcome in ours] == [200] * 12
    assert max(outcome.ttft_s or 9 for outcome in ours) <= max(outcome.ttft_s or 0 for outcome in other)


def test_the_same_replay_on_paper_gives_the_same_numbers() -> None:
    assert paper.on_paper(lambda: paper.ours(BURSTS, SLO)) == OURS


def outcome(**more: object) -> Outcome:
    given = {"arrival": BURSTS[0], "status": 200, "ttft_s": 1.0, "tokens": BURSTS[0].answer_tokens, "done": True}
    return Outcome(**{**given, **more})  # type: ignore[arg-type]


def test_what_was_cut_off_is_lost_and_what_was_refused_is_not_and_too_many_tokens_are_doubled() -> None:
    row = row_of(
        "some",
        [
            outcome(),
            outcome(status=0, done=False),
            outcome(status=200, done=False),
            outcome(status=429, done=False),
            outcome(tokens=BURSTS[0].answer_tokens + 1, done=False),
            outcome(ttft_s=2.1),
            outcome(gaps_s=(0.1, 0.5)),
        ],
        SLO,
    )
    assert (row.lost, row.refused, row.doubled) == (3, 1, 1)
    assert round(row.good * 7) == 1


def test_where_a_trace_is_not_there_it_is_said_where_it_comes_from(tmp_path: Path) -> None:
    for name, source in (("code", "AzurePublicDataset"), ("mooncake", "kvcache-ai/Mooncake")):
        try:
            read(tmp_path, name, SCALES[name])
        except FileNotFoundError as error:
            assert source in str(error)
        else:
            raise AssertionError("it is there")
