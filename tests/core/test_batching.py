"""The batch scheduler: examples of each rule. What holds for every input: `test_batching_properties.py`."""

from __future__ import annotations

import pytest

from gonogo.plan.batching import Batch, DynamicBatchScheduler, Priority, RequestTooLarge, TooLarge, Waiting


def waiting(name: str, prompt: int | None = 10, output: int | None = 0, **more: object) -> Waiting:
    return Waiting(request_id=name, prompt_tokens=prompt, output_tokens=output, **more)  # type: ignore[arg-type]


def names(batch: Batch) -> list[str]:
    return [request.request_id for request in batch.requests]


def filled(scheduler: DynamicBatchScheduler, *requests: Waiting) -> DynamicBatchScheduler:
    assert [scheduler.add(request) for request in requests] == [None] * len(requests)
    return scheduler


def test_an_answer_counts_as_well_as_a_prompt() -> None:
    scheduler = filled(DynamicBatchScheduler(100), waiting("a", 40, 20), waiting("b", 30, 10), waiting("c", 1, 0))
    batch = scheduler.take(0.0)
    assert (names(batch), batch.tokens) == (["a", "b"], 100)
    assert names(scheduler.take(0.0)) == ["c"]


def test_nothing_waiting_gives_an_empty_batch_and_nothing_to_wait_for() -> None:
    assert DynamicBatchScheduler().take(0.0) == Batch()
    assert DynamicBatchScheduler().batches([]) == ((), ())


def test_what_is_larger_than_the_budget_is_refused_by_name_and_holds_nobody_up() -> None:
    scheduler = DynamicBatchScheduler(100)
    formed, refused = scheduler.batches([waiting("a", 60), waiting("huge", 90, 11), waiting("b", 40)])
    assert refused == (TooLarge(request_id="huge", tokens=101, max_tokens=100),)
    assert [names(batch) for batch in formed] == [["a", "b"]]
    assert "huge" in str(refused[0])
    assert "101" in str(refused[0])


def test_unknown_lengths_count_as_assumed() -> None:
    scheduler = DynamicBatchScheduler(100, unknown_prompt_tokens=30, unknown_output_tokens=20)
    assert scheduler.cost(waiting("a", None, None)) == 50
    assert scheduler.cost(waiting("a", 5, None)) == 25
    assert scheduler.cost(waiting("a", 0, 0)) == 1


def test_interactive_requests_go_before_batch_ones() -> None:
    scheduler = filled(
        DynamicBatchScheduler(20),
        waiting("night", priority=Priority.BATCH),
        waiting("a"),
        waiting("b"),
    )
    assert names(scheduler.take(0.0)) == ["a", "b"]
    assert names(scheduler.take(0.0)) == ["night"]


def test_a_batch_request_gets_its_turn_though_interactive_ones_never_end() -> None:
    scheduler = filled(DynamicBatchScheduler(10, turn=3), waiting("night", priority=Priority.BATCH))
    for number in range(9):
        scheduler.add(waiting(f"day {number}"))
    assert [names(scheduler.take(0.0)) for _ in range(3)] == [["day 0"], ["day 1"], ["night"]]


def test_after_a_turn_the_next_one_waits_for_its_own() -> None:
    scheduler = DynamicBatchScheduler(10, turn=3)
    for number in range(2):
        scheduler.add(waiting(f"night {number}", priority=Priority.BATCH))
    for number in range(9):
        scheduler.add(waiting(f"day {number}"))
    went = [names(scheduler.take(0.0))[0] for _ in range(6)]
    assert went == ["day 0", "day 1", "night 0", "day 2", "day 3", "night 1"]


def test_a_batch_request_that_nobody_passed_by_has_no_turn_before_an_interactive_one() -> None:
    scheduler = filled(
        DynamicBatchScheduler(10, turn=3), *(waiting(f"line {number}", priority=Priority.BATCH) for number in range(5))
    )
    assert [names(scheduler.take(0.0)) for _ in range(2)] == [["line 0"], ["line 1"]]
    scheduler.add(waiting("day"))
    assert names(scheduler.take(0.0)) == ["day"], "though it is the third batch"


def test_the_key_that_was_given_least_goes_first() -> None:
    scheduler = filled(
        DynamicBatchScheduler(20, turn=100),
        *(waiting(f"loud {number}", key="loud") for number in range(6)),
        *(waiting(f"quiet {number}", key="quiet") for number in range(2)),
    )
    assert names(scheduler.take(0.0)) == ["loud 0", "quiet 0"]
    assert names(scheduler.take(0.0)) == ["loud 1", "quiet 1"]


def test_who_was_away_has_saved_nothing_up() -> None:
    scheduler = DynamicBatchScheduler(10, turn=100)
    filled(scheduler, *(waiting(f"loud {number}", key="loud") for number in range(50)))
    for _ in range(40):
        scheduler.take(0.0)
    filled(scheduler, *(waiting(f"new {number}", key="new") for number in range(10)))
    keys = [scheduler.take(0.0).requests[0].key for _ in range(8)]
    assert keys.count("loud") == 4


def test_a_small_one_fills_what_a_larger_one_before_it_leaves() -> None:
    scheduler = filled(DynamicBatchScheduler(100), waiting("a", 70), waiting("b", 50), waiting("c", 30))
    assert names(scheduler.take(0.0)) == ["a", "c"]


def test_fewer_than_the_smallest_batch_wait_but_no_longer_than_the_longest_wait() -> None:
    scheduler = filled(DynamicBatchScheduler(100, 3, longest_wait_s=2.0), waiting("a", since=10.0))
    assert scheduler.take(10.5) == Batch(wait_s=1.5)
    assert names(scheduler.take(12.0)) == ["a"]


def test_as_many_as_the_smallest_batch_go_at_once_and_the_budget_wins_over_it() -> None:
    scheduler = DynamicBatchScheduler(20, 3, longest_wait_s=60.0)
    filled(scheduler, waiting("a"), waiting("b"), waiting("c"))
    assert names(scheduler.take(0.0)) == ["a", "b"]


def test_the_oldest_one_keeps_the_room_when_it_is_its_turn() -> None:
    scheduler = filled(DynamicBatchScheduler(100, turn=1), waiting("large", 80), waiting("small", 10))
    assert names(scheduler.take(0.0, tokens=50)) == []
    assert names(scheduler.take(0.0, tokens=90)) == ["large", "small"]


def test_no_more_requests_than_allowed() -> None:
    scheduler = filled(DynamicBatchScheduler(100), waiting("a"), waiting("b"), waiting("c"))
    assert names(scheduler.take(0.0, most=2)) == ["a", "b"]
    assert names(scheduler.take(0.0, most=0)) == []
    assert names(scheduler.take(0.0, tokens=0)) == []


def test_one_that_went_away_is_not_taken() -> None:
    scheduler = filled(DynamicBatchScheduler(100), waiting("a"), waiting("b"))
    assert (scheduler.remove("a"), scheduler.remove("a")) == (True, False)
    assert (len(scheduler), scheduler.tokens) == (1, 10)
    assert names(scheduler.take(0.0)) == ["b"]


def test_what_is_proposed_waits_on_until_it_is_said_to_have_gone() -> None:
    scheduler = filled(DynamicBatchScheduler(20), *(waiting(name) for name in "abc"))
    proposed = scheduler.propose(0.0)
    assert names(proposed) == names(scheduler.propose(0.0)) == ["a", "b"]
    assert len(scheduler) == 3
    scheduler.remove("a")
    scheduler.went(proposed)
    assert names(scheduler.take(0.0)) == ["c"]


def test_the_same_id_does_not_wait_twice() -> None:
    scheduler = filled(DynamicBatchScheduler(100), waiting("a"))
    with pytest.raises(ValueError, match="request a waits already"):
        scheduler.add(waiting("a"))


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"min_batch": 0}, {"turn": 0}, {"longest_wait_s": -1.0}])
def test_numbers_that_cannot_be_meant_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="one or more"):
        DynamicBatchScheduler(**wrong)  # type: ignore[arg-type]


def test_the_guides_call_counts_the_first_requests_that_fit_together() -> None:
    scheduler = DynamicBatchScheduler(max_tokens=4096, unknown_output_tokens=100)
    assert scheduler.schedule([]) == 0
    assert scheduler.schedule([{"input_ids": [1] * 1600}] * 5) == 2
    assert scheduler.schedule([{"input_ids": [1] * 1600, "max_new_tokens": 500}] * 5) == 1
    assert scheduler.schedule([{"input_ids": [1]}, {"input_ids": [1] * 5000}]) == 1
    with pytest.raises(RequestTooLarge, match="request 0 needs 5100 tokens"):
        scheduler.schedule([{"input_ids": [1] * 5000}])
