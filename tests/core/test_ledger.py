"""The ledger in memory: no replica holds more than its room, and all that was neither released nor expired is held."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.gateway.policy.ledger import Held, Hold, MemoryLedger, Room

A, B = "127.0.0.1:9001", "127.0.0.1:9002"
ROOM = Room(tokens=100, sequences=3)


@dataclass
class Ledgered:
    """A ledger whose time is set by hand."""

    now: float = 1000.0
    ledger: MemoryLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = MemoryLedger(lambda: self.now)

    def reserve(
        self, name: str, tokens: int, *endpoints: str, lives_s: float = 900.0, prompt_s: float = 0.0
    ) -> str | None:
        hold = Hold(
            request_id=name,
            revision="svc/1",
            key_id="key",
            tokens=tokens,
            expires_at=self.now + lives_s,
            prompt_s=prompt_s,
        )
        return asyncio.run(self.ledger.reserve(hold, endpoints or (A, B), ROOM))

    def release(self, *names: str) -> int:
        return asyncio.run(self.ledger.release(names))

    def held(self, revision: str = "svc/1") -> dict[str, Held]:
        return dict(asyncio.run(self.ledger.held(revision)))


def test_the_first_replica_with_room_gets_the_hold() -> None:
    kept = Ledgered()
    assert kept.reserve("one", 60) == A
    assert kept.reserve("two", 60) == B
    assert kept.reserve("three", 60) is None
    assert kept.held() == {A: Held(tokens=60, sequences=1), B: Held(tokens=60, sequences=1)}


def test_requests_count_as_well_as_tokens() -> None:
    kept = Ledgered()
    assert [kept.reserve(str(number), 1, A) for number in range(4)] == [A, A, A, None]


def test_a_release_gives_the_room_back_once() -> None:
    kept = Ledgered()
    kept.reserve("one", 100, A)
    assert kept.release("one", "unknown") == 1
    assert kept.release("one") == 0
    assert kept.held() == {}


def test_the_same_request_again_replaces_its_hold() -> None:
    kept = Ledgered()
    kept.reserve("one", 90, A)
    assert kept.reserve("one", 80, B) == B
    assert kept.held() == {B: Held(tokens=80, sequences=1)}
    assert kept.reserve("one", 200, A) is None
    assert kept.held() == {}


def test_a_hold_whose_end_was_never_seen_expires() -> None:
    kept = Ledgered()
    kept.reserve("lost", 100, A, lives_s=10.0)
    kept.now += 9.9
    assert kept.reserve("early", 100, A) is None
    kept.now += 0.2
    assert kept.reserve("late", 100, A) == A


def test_prompts_of_one_replica_are_computed_one_after_the_other() -> None:
    kept = Ledgered()
    kept.reserve("one", 30, A, prompt_s=2.0)
    kept.now += 0.5
    kept.reserve("two", 30, A, prompt_s=1.0)
    kept.reserve("three", 30, B)
    assert kept.held() == {A: Held(tokens=60, sequences=2, prompts_s=2.5), B: Held(tokens=30, sequences=1)}
    kept.now += 3.0
    assert kept.held()[A].prompts_s == 0.0
    kept.reserve("four", 30, A, prompt_s=1.0)
    assert kept.held()[A].prompts_s == 1.0
    kept.release("one", "two", "four")
    kept.reserve("five", 30, A)
    assert kept.held()[A].prompts_s == 0.0, "it holds none of them any more"


def test_a_renewed_hold_does_not_expire_with_its_first_one() -> None:
    kept = Ledgered()
    kept.reserve("one", 50, A, lives_s=10.0)
    kept.reserve("one", 50, A, lives_s=100.0)
    kept.now += 50.0
    assert kept.held() == {A: Held(tokens=50, sequences=1)}


def test_revisions_do_not_share_room() -> None:
    kept = Ledgered()
    kept.reserve("one", 100, A)
    other = Hold(request_id="two", revision="svc/2", key_id="key", tokens=100, expires_at=2000.0)
    assert asyncio.run(kept.ledger.reserve(other, (A,), ROOM)) == A


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 9), st.integers(1, 60), st.floats(1, 20)),
        st.tuples(st.just("release"), st.integers(0, 9), st.just(0), st.just(0.0)),
        st.tuples(st.just("wait"), st.just(0), st.just(0), st.floats(0, 15)),
    ),
    max_size=40,
)


@given(steps=STEPS)
@settings(max_examples=300, deadline=None)
def test_no_order_of_calls_makes_a_replica_hold_more_than_its_room_or_forget_what_it_holds(
    steps: list[tuple[str, int, int, float]],
) -> None:
    kept = Ledgered()
    alive: dict[str, tuple[str, int, float]] = {}
    for kind, number, tokens, seconds in steps:
        name = str(number)
        if kind == "wait":
            kept.now += seconds
        alive = {each: hold for each, hold in alive.items() if hold[2] > kept.now}
        if kind == "release":
            assert kept.release(name) == (1 if alive.pop(name, None) else 0)
        if kind == "reserve":
            alive.pop(name, None)
            endpoint = kept.reserve(name, tokens, lives_s=seconds)
            if endpoint is not None:
                alive[name] = (endpoint, tokens, kept.now + seconds)
        held = kept.held()
        for endpoint in (A, B):
            mine = [hold for hold in alive.values() if hold[0] == endpoint]
            seen = held.get(endpoint, Held())
            assert (seen.tokens, seen.sequences) == (sum(hold[1] for hold in mine), len(mine))
            assert seen.tokens <= ROOM.tokens
            assert seen.sequences <= ROOM.sequences
