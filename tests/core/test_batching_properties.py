"""What holds for the batch scheduler whatever arrives, in whatever order: 11,000 random histories."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.plan.batching import Batch, DynamicBatchScheduler, Priority, Waiting

BUDGET = 100

LENGTHS = st.one_of(st.none(), st.integers(0, 40), st.integers(0, 120))
REQUESTS = st.builds(
    lambda prompt, output, key, priority: Waiting(
        request_id="", prompt_tokens=prompt, output_tokens=output, key=key, priority=priority
    ),
    LENGTHS, LENGTHS, st.sampled_from("abc"), st.sampled_from(Priority),
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), REQUESTS),
        st.tuples(st.just("add"), REQUESTS),
        st.tuples(st.just("take"), st.tuples(st.one_of(st.none(), st.integers(-5, 120)), st.integers(0, 5))),
        st.tuples(st.just("batch"), st.none()),
        st.tuples(st.just("wait"), st.floats(0, 3)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
    ),
    max_size=25,
)
SCHEDULERS = st.builds(
    lambda smallest, wait, turn: DynamicBatchScheduler(
        BUDGET, smallest, longest_wait_s=wait, turn=turn, unknown_prompt_tokens=20, unknown_output_tokens=20
    ),
    st.integers(1, 4), st.sampled_from((0.0, 1.0, 5.0)), st.integers(1, 5),
)  # fmt: skip


@dataclass
class History:
    """Drives a scheduler through random steps and keeps its own account of who waits."""

    scheduler: DynamicBatchScheduler
    now: float = 0.0
    number: int = 0
    waiting: dict[str, Waiting] = field(default_factory=dict)
    deadlines: dict[str, int] = field(default_factory=dict)
    """Request → how many more batches may go without it."""

    def step(self, kind: str, value: object) -> None:
        if kind == "add":
            assert isinstance(value, Waiting)
            self.add(value)
        elif kind == "wait":
            assert isinstance(value, float)
            self.now += value
        elif kind == "remove":
            assert self.scheduler.remove(str(value)) == (self.waiting.pop(str(value), None) is not None)
            self.deadlines.pop(str(value), None)
        elif kind == "take":
            assert isinstance(value, tuple)
            self.take(*value)
        else:
            self.take(None, None)

    def add(self, given: Waiting) -> None:
        request = Waiting(
            request_id=str(self.number),
            prompt_tokens=given.prompt_tokens,
            output_tokens=given.output_tokens,
            key=given.key,
            priority=given.priority,
            since=self.now,
        )
        self.number += 1
        refusal = self.scheduler.add(request)
        assert (refusal is not None) == (self.scheduler.cost(request) > BUDGET)
        if refusal is None:
            self.deadlines[request.request_id] = self.scheduler._turn * (len(self.waiting) + 1)
            self.waiting[request.request_id] = request

    def take(self, tokens: int | None, most: int | None) -> Batch:
        count, oldest = len(self.waiting), min((each.since for each in self.waiting.values()), default=0.0)
        proposed = self.scheduler.propose(self.now, tokens=tokens, most=most)
        batch = self.scheduler.take(self.now, tokens=tokens, most=most)
        assert batch == proposed
        room = BUDGET if tokens is None else min(tokens, BUDGET)
        assert batch.tokens == sum(self.scheduler.cost(request) for request in batch.requests)
        assert batch.tokens <= max(0, room), "the budget is never exceeded"
        assert most is None or len(batch.requests) <= most
        for request in batch.requests:
            assert self.waiting.pop(request.request_id) == request, "each goes once, and only who waits"
            del self.deadlines[request.request_id]
        if batch.requests:
            self.deadlines = {name: left - 1 for name, left in self.deadlines.items()}
            assert all(left > 0 for left in self.deadlines.values()), "nobody is left behind"
        if batch.wait_s is not None:
            assert not batch.requests
            assert count < self.scheduler.min_batch, "only a small batch waits"
            assert 0 < batch.wait_s <= self.scheduler._longest_wait_s
            assert self.now - oldest < self.scheduler._longest_wait_s, "and no longer than allowed"
        elif count and tokens is None and most is None:
            assert batch.requests, "with the whole budget something goes"
        assert len(self.scheduler) == len(self.waiting)
        return batch


@given(scheduler=SCHEDULERS, steps=STEPS)
@settings(max_examples=6000, deadline=None)
def test_the_budget_is_never_exceeded_nobody_starves_or_goes_twice_and_waits_are_bounded(
    scheduler: DynamicBatchScheduler, steps: list[tuple[str, object]]
) -> None:
    history = History(scheduler)
    for kind, value in steps:
        history.step(kind, value)
    history.now += 5.0  # the longest wait of any scheduler here
    for _ in range(history.scheduler._turn * (len(history.waiting) + 1)):
        history.take(None, None)
        history.now += 5.0
    assert not history.waiting


@given(requests=st.lists(REQUESTS, max_size=30), turn=st.integers(1, 5))
@settings(max_examples=2000, deadline=None)
def test_a_list_ends_up_in_batches_or_refused_and_nothing_is_lost_or_doubled(
    requests: list[Waiting], turn: int
) -> None:
    scheduler = DynamicBatchScheduler(BUDGET, turn=turn)
    named = [
        Waiting(
            request_id=str(number),
            prompt_tokens=each.prompt_tokens,
            output_tokens=each.output_tokens,
            key=each.key,
            priority=each.priority,
        )
        for number, each in enumerate(requests)
    ]
    formed, refused = scheduler.batches(named)
    went = [request.request_id for batch in formed for request in batch.requests]
    assert sorted([*went, *(each.request_id for each in refused)]) == sorted(each.request_id for each in named)
    assert all(0 < batch.tokens <= BUDGET for batch in formed)
    assert all(each.tokens > BUDGET for each in refused)


COSTS = st.lists(st.integers(1, BUDGET), min_size=1, max_size=8)


@given(first=COSTS, second=COSTS, turn=st.integers(3, 6), rounds=st.integers(1, 25))
@settings(max_examples=1500, deadline=None)
def test_two_keys_that_always_wait_are_given_the_same_within_three_budgets(
    first: list[int], second: list[int], turn: int, rounds: int
) -> None:
    scheduler = DynamicBatchScheduler(BUDGET, turn=turn)
    given_to = {"first": 0, "second": 0}
    costs = {"first": first, "second": second}
    for number in range(rounds * 3):
        for key, sizes in costs.items():
            for more in range(4):
                cost = sizes[(number + more) % len(sizes)]
                scheduler.add(
                    Waiting(request_id=f"{key} {number} {more}", prompt_tokens=cost, output_tokens=0, key=key)
                )
    for _ in range(rounds):
        before = {key for _, key in scheduler._queues}
        if len(before) < 2:
            break
        for request in scheduler.take(0.0).requests:
            given_to[request.key] += scheduler.cost(request)
        if len({key for _, key in scheduler._queues}) == 2:
            assert abs(given_to["first"] - given_to["second"]) <= 3 * BUDGET


@given(requests=st.lists(REQUESTS, min_size=1, max_size=12))
@settings(max_examples=1000, deadline=None)
def test_in_a_fresh_batch_nothing_of_batch_priority_goes_while_something_interactive_that_fits_stays(
    requests: list[Waiting],
) -> None:
    history = History(DynamicBatchScheduler(BUDGET, turn=5))
    for request in requests:
        history.add(request)
    batch = history.take(None, None)
    if any(request.priority is Priority.BATCH for request in batch.requests):
        left = BUDGET - sum(
            history.scheduler.cost(each) for each in batch.requests if each.priority is Priority.INTERACTIVE
        )
        stayed = [each for each in history.waiting.values() if each.priority is Priority.INTERACTIVE]
        assert all(history.scheduler.cost(each) > left for each in stayed)


@given(lengths=st.lists(st.integers(0, 150), max_size=12), output=st.one_of(st.none(), st.integers(0, 60)))
@settings(max_examples=500, deadline=None)
def test_the_guides_call_never_takes_more_than_the_budget_and_stops_only_at_it(
    lengths: list[int], output: int | None
) -> None:
    scheduler = DynamicBatchScheduler(BUDGET, unknown_output_tokens=25)
    requests = [{"input_ids": [0] * length, "max_new_tokens": output} for length in lengths]
    costs = [length + (25 if output is None else output) for length in lengths]
    if costs and costs[0] > BUDGET:
        return
    taken = scheduler.schedule(requests)
    assert sum(costs[:taken]) <= BUDGET
    assert taken == len(costs) or sum(costs[: taken + 1]) > BUDGET
