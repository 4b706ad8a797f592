"""Admission: who goes on, who waits, who is refused, and that nothing that was held is held for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, Awaitable, Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.gateway.policy.admission import Admission
from gonogo.gateway.policy.counters import End
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.gate import Admitted
from gonogo.gateway.policy.ledger import ASKED_LATELY_S, Held, Hold, MemoryLedger, Room
from gonogo.gateway.policy.line import Bounds
from gonogo.gateway.policy.placing import HOLD_S, Clocks
from gonogo.gateway.policy.replicas import ReplicaSeen
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.rules import EXTERNAL, ServiceRules
from gonogo.plan.batching import TURN
from gonogo.security.keys import KeyRow

A, B = "127.0.0.1:9001", "127.0.0.1:9002"
RULES = ServiceRules(context_tokens=256, concurrent_requests=4, replicas=2)
"""Two slots of 256 tokens for each of two replicas of llama.cpp."""
PATIENT = Bounds(longest_wait_s=30.0)


def request(name: str, tokens: int = 100, prefix: tuple[int, ...] = (), tier: str | None = None) -> Request:
    return Request(
        path="/v1/chat/completions",
        method="POST",
        request_id=name,
        model="svc",
        stream=False,
        n=1,
        max_tokens=tokens // 2,
        prompt_tokens=tokens - tokens // 2,
        expected_tokens=tokens // 2,
        pictures=0,
        prefix=prefix,
        continuable=False,
        wants_usage=False,
        service_tier=tier,
    )


def key(name: str = "key", **more: Any) -> KeyRow:
    row = KeyRow(
        key_id=name,
        secret_hash="",
        name=name,
        service=None,
        revision=None,
        scopes=("inference",),
        created_at=0.0,
        expires_at=None,
        revoked_at=None,
    )
    return replace(row, **more)


class Shared(MemoryLedger):
    """A ledger that others may call while it is being asked, as one in another process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.stuck: asyncio.Event | None = None

    async def reserve(self, hold: Hold, endpoints: Sequence[str], room: Room) -> str | None:
        await (asyncio.sleep(0) if self.stuck is None else self.stuck.wait())
        chosen = await super().reserve(hold, endpoints, room)
        await asyncio.sleep(0)
        return chosen

    async def release(self, request_ids: Sequence[str]) -> int:
        await asyncio.sleep(0)
        return await super().release(request_ids)

    async def held(self, revision: str) -> Mapping[str, Held]:
        held = await super().held(revision)
        await asyncio.sleep(0)
        return held


@dataclass
class Gate:
    """An admission whose replicas, rules and time are set by hand."""

    bounds: Bounds = PATIENT
    seen: tuple[ReplicaSeen, ...] | None = tuple(
        ReplicaSeen(endpoint=endpoint, healthy=True, active=0) for endpoint in (A, B)
    )
    rules: ServiceRules | None = RULES
    now: float = 1000.0
    ledger: Shared = field(init=False)
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Shared(lambda: self.now)
        clocks = Clocks(monotonic=lambda: self.now, wall=lambda: self.now)
        self.admission = Admission(self.ledger, lambda _: self.seen, lambda _: self.rules, clocks, self.bounds)

    async def admit(self, name: str, tokens: int = 100, by: KeyRow | None = None, **more: Any) -> Admitted | Deny:
        return await self.admission.admit(request(name, tokens, **more), by or key(), "svc/1")

    async def end(self, *names: str) -> None:
        await self.admission.heard([ended(name) for name in names])
        await settled()

    async def held(self) -> dict[str, Held]:
        self.now += 1.0  # what was looked at before is too old now
        return dict(await self.ledger.held("svc/1"))

    async def fill(self) -> None:
        """Both slots of both replicas."""
        for name in ("one", "two", "three", "four"):
            assert isinstance(await self.admit(name), Admitted)

    async def waits(self, name: str, tokens: int = 100, by: KeyRow | None = None, **more: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(self.admit(name, tokens, by, **more))
        await settled()
        assert not task.done()
        return task


def ended(name: str) -> End:
    return End(request_id=name, tokens=None)


async def settled() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


def story(told: Callable[[Gate], Awaitable[None]], **given: Any) -> None:
    async def run() -> None:
        await told(Gate(**given))

    asyncio.run(run())


def test_each_replica_is_named_first_by_turns_and_the_other_one_for_a_retry() -> None:
    async def told(gate: Gate) -> None:
        first, second = await gate.admit("one"), await gate.admit("two")
        assert isinstance(first, Admitted)
        assert isinstance(second, Admitted)
        assert sorted(first.endpoints) == [A, B]
        assert second.endpoints == first.endpoints[::-1]
        assert await gate.held() == {A: Held(tokens=100, sequences=1), B: Held(tokens=100, sequences=1)}

    story(told)


def test_who_finds_no_room_waits_for_the_first_end() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        later, last = await gate.waits("five"), await gate.waits("six")
        await gate.end("two")
        assert isinstance(later.result(), Admitted)
        assert not last.done()
        await gate.end("three", "three", "unknown")
        assert isinstance(last.result(), Admitted)
        assert sum(held.sequences for held in (await gate.held()).values()) == 4

    story(told)


def test_small_requests_pass_a_large_one_that_has_no_room_yet_but_not_for_ever() -> None:
    async def told(gate: Gate) -> None:
        for name in ("one", "two"):
            await gate.admit(name, 400)
        large = await gate.waits("large", 200)
        for number in range(TURN - 1):
            assert isinstance(await gate.admit(f"small {number}", 50), Admitted)
            await gate.end(f"small {number}")
        small = await gate.waits("small", 50)
        await gate.end("one")
        assert large.done()
        assert small.done()

    story(told)


def test_interactive_requests_go_first_and_a_tier_that_may_wait_counts_as_batch() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        night = await gate.waits("night", by=key("reports", priority="batch"))
        flex = await gate.waits("flex", tier="flex")
        day = await gate.waits("day", by=key("alice"))
        await gate.end("one")
        assert (day.done(), night.done(), flex.done()) == (True, False, False)
        await gate.end("two", "three", "four")
        assert (night.done(), flex.done()) == (True, False), "an idle replica, and one that day has"
        gate.now += ASKED_LATELY_S
        gate.admission.tick()
        await settled()
        assert flex.done()

    story(told)


def test_beside_others_a_batch_begins_only_where_a_replica_is_idle_and_for_a_while_after() -> None:
    async def run() -> None:
        gate, night = Gate(), key("night", priority="batch")
        assert isinstance(await gate.admit("talk"), Admitted)
        assert isinstance(await gate.admit("line 1", by=night), Admitted), "the other replica is idle"
        waiting = [asyncio.create_task(gate.admit(f"line {n}", by=night)) for n in (2, 3)]
        await settled()
        assert not any(one.done() for one in waiting), "though each replica has a slot"
        assert isinstance(await gate.admit("talk on"), Admitted), "which is there for whoever does not want to wait"
        await gate.end("talk", "talk on")
        assert [one.done() for one in waiting] == [True, False]
        gate.now += ASKED_LATELY_S
        gate.admission.tick()
        await settled()
        assert all(one.done() for one in waiting), "nobody has asked for long"

    asyncio.run(run())


def test_whoever_asks_one_policy_server_is_known_to_the_other_and_a_probe_asks_nothing() -> None:
    async def run() -> None:
        gate, night = Gate(), key("night", priority="batch")
        clocks = Clocks(monotonic=lambda: gate.now, wall=lambda: gate.now)
        other = Admission(gate.ledger, lambda _: gate.seen, lambda _: gate.rules, clocks, PATIENT)
        await gate.admit("probe", by=key("probe", revision="svc/1"))
        for number in range(3):
            assert isinstance(await gate.admit(f"line {number}", by=night), Admitted), "up to the last slot"
        await gate.end("probe", "line 0", "line 1")
        assert isinstance(await other.admit(request("talk"), key(), "svc/1"), Admitted)
        await gate.waits("line 3", by=night)
        gate.now += ASKED_LATELY_S
        gate.admission.tick()
        await settled()
        assert gate.admission.waiting() == {"svc/1": 0}

    asyncio.run(run())


def computing(**given: Any) -> Gate:
    """One whose replicas take a second for the prompt of 100 tokens: a stream told so."""
    gate = Gate(**given)

    async def told() -> None:
        await gate.admit("stream", 200)
        gate.now += 2.0
        await gate.admission.heard([End(request_id="stream", tokens=None, first_s=1.0)])

    asyncio.run(told())
    return gate


def test_beside_others_a_batch_begins_one_prompt_after_the_other_so_that_one_replica_can_begin_at_once() -> None:
    async def run() -> None:
        both, gate.seen = gate.seen, (gate.seen or ())[1:]
        assert isinstance(await gate.admit("line 1", 200, by=night), Admitted)
        gate.seen = both
        second = await gate.waits("line 2", 200, by=night)
        gate.now += 0.95
        gate.admission.tick()
        await settled()
        assert not second.done(), "the other replica is idle, and stays so"
        gate.now += 0.1
        gate.admission.tick()
        await settled()
        assert second.done()
        talk = await gate.admit("talk", 20)
        assert isinstance(talk, Admitted)
        assert talk.endpoints == (B, A), "where line 1 is, whose prompt is computed"

    gate, night = computing(), key("night", priority="batch")
    asyncio.run(run())


def test_beside_others_a_full_replica_is_none_where_the_next_one_could_begin() -> None:
    async def run() -> None:
        both, gate.seen = gate.seen, (gate.seen or ())[:1]
        for name in ("talk 1", "talk 2"):
            assert isinstance(await gate.admit(name, 200), Admitted)
        gate.seen, gate.now = both, gate.now + 10.0
        line = await gate.waits("line", 200, by=key("night", priority="batch"))
        await gate.end("talk 1")
        assert line.done() and line.result().endpoints[0] == B

    gate = computing()
    asyncio.run(run())


def test_where_prompts_take_long_a_replica_is_picked_by_what_the_ledger_says_now() -> None:
    async def run() -> None:
        assert isinstance(first := await gate.admit("first"), Admitted)
        clocks = Clocks(monotonic=lambda: gate.now, wall=lambda: gate.now)
        other = Admission(gate.ledger, lambda _: gate.seen, lambda _: gate.rules, clocks, PATIENT)
        assert isinstance(elsewhere := await other.admit(request("elsewhere", 200), key(), "svc/1"), Admitted)
        assert isinstance(third := await gate.admit("third"), Admitted)
        assert [each.endpoints[0] for each in (first, elsewhere, third)] == [A, B, A], "it knows of the other server's"

    gate = computing()
    asyncio.run(run())


def test_where_there_is_one_replica_a_batch_begins_there_once_no_prompt_is_computed() -> None:
    async def run() -> None:
        assert isinstance(await gate.admit("talk", 200), Admitted)
        line = await gate.waits("line", 200, by=key("night", priority="batch"))
        await gate.end("talk")
        assert line.done(), "what is not held is not computed either"

    gate = computing(seen=(ReplicaSeen(endpoint=A, healthy=True, active=0),))
    asyncio.run(run())


@pytest.mark.parametrize("balancing", ["token_aware", "round_robin"])
def test_beside_others_servers_of_others_get_one_request_of_a_batch_each(balancing: str) -> None:
    async def run() -> None:
        night = key("night", priority="batch")
        assert isinstance(await gate.admit("talk", 2), Admitted)
        await gate.end("talk")
        went = []
        for number in range(2):
            gate.now += 1.0
            went.append(await gate.admit(f"line {number}", 2, by=night))
        assert all(isinstance(each, Admitted) for each in went)
        gate.now += 1.0
        third = await gate.waits("line 3", 2, by=night)
        assert isinstance(await gate.admit("talk on", 2), Admitted)
        gate.now += ASKED_LATELY_S
        gate.admission.tick()
        await settled()
        assert third.done()

    gate = Gate(rules=replace(RULES, engine=EXTERNAL, balancing=balancing))
    asyncio.run(run())


def test_how_fast_prompts_are_computed_is_learned_once_a_stream_is_told_of_by_envoy_and_by_the_relay_in_any_order() -> (
    None
):
    async def learned(*ends: End) -> float:
        gate = Gate()
        await gate.admit("one", 200)
        gate.now += 4.0
        for end in ends:
            await gate.admission.heard([end])
        return gate.admission._services["svc/1"].placing.pace.prompt_s(100)

    envoy, relay = End(request_id="one", tokens=9), End(request_id="one", tokens=9, first_s=1.0)
    assert asyncio.run(learned(envoy, relay)) == asyncio.run(learned(relay, envoy)) == 1.0
    assert asyncio.run(learned(envoy)) == 2.0, "half of what it took in all, by tokens"
    cached = replace(relay, computed=0.1)
    assert asyncio.run(learned(cached, envoy)) == 2.0, "it came early since most was cached"


def test_a_promised_first_token_does_not_hurry_what_may_take_its_time() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        line = await gate.waits("line", by=key("night", priority="batch"))
        refused = await gate.admit("talk")
        assert isinstance(refused, Deny)
        assert not line.done()
        line.cancel()

    story(told, rules=replace(RULES, ttft_ms=20))


def test_a_batch_that_has_its_turn_before_others_who_wait_does_not_stand_in_their_way() -> None:
    async def run() -> None:
        gate, night = Gate(), key("night", priority="batch")
        await gate.fill()
        waiting = [await gate.waits("line", by=night)]
        waiting += [asyncio.create_task(gate.admit(f"talk {n}")) for n in range(2 * TURN)]
        await settled()
        for number, name in enumerate(("one", "two", "three", "four", "talk 0", "talk 1"), start=1):
            await gate.end(name)
            assert sum(one.done() for one in waiting) == number, "one for each end, whoever it is"
        assert waiting[0].done(), "the batch had its turn"
        for one in waiting:
            one.cancel()

    asyncio.run(run())


def test_a_key_that_asks_much_does_not_push_back_one_that_asks_little() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        loud = [await gate.waits(f"loud {number}", by=key("loud")) for number in range(5)]
        quiet = await gate.waits("quiet", by=key("quiet"))
        await gate.end("one")
        await gate.end("two")
        assert quiet.done()
        assert [task.done() for task in loud] == [True, False, False, False, False]
        for task in loud:
            task.cancel()

    story(told)


def test_who_has_waited_as_long_as_allowed_is_told_when_to_come_back() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        refused = await gate.admit("five")
        assert isinstance(refused, Deny)
        assert (refused.status, refused.code, refused.type) == (429, "overloaded", "rate_limit_error")
        assert "this one waited 0.01 s, the longest allowed" in refused.message
        assert dict(refused.headers)["retry-after"] == "1"
        assert gate.admission.waiting() == {"svc/1": 0}

    story(told, bounds=Bounds(longest_wait_s=0.01))


def test_one_whose_time_is_up_while_room_is_made_for_it_holds_nothing() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        late = await gate.waits("five")
        gate.ledger.stuck = asyncio.Event()
        await gate.end("one")
        assert isinstance(await late, Deny)
        gate.ledger.stuck.set()
        await settled()
        assert sum(held.sequences for held in (await gate.held()).values()) == 3

    story(told, bounds=Bounds(longest_wait_s=0.05))


def test_where_too_many_wait_the_next_is_refused_at_once() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        waiting = [await gate.waits(name) for name in ("five", "six")]
        refused = await gate.admit("seven")
        assert isinstance(refused, Deny)
        assert "The 2 replicas are full and 2 requests wait (200 tokens): no more may wait." in refused.message
        for task in waiting:
            task.cancel()

    story(told, bounds=replace(PATIENT, most_waiting=2))


def test_a_client_that_goes_away_leaves_the_line_and_holds_nothing() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        gone, stays = await gate.waits("five"), await gate.waits("six")
        gone.cancel()
        await settled()
        assert gate.admission.waiting() == {"svc/1": 1}
        await gate.end("one")
        assert isinstance(stays.result(), Admitted)
        assert sum(held.sequences for held in (await gate.held()).values()) == 4

    story(told)


@pytest.mark.parametrize("steps", range(12))
def test_a_client_that_goes_away_while_room_is_made_for_it_holds_nothing(steps: int) -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        gone = await gate.waits("five")
        hearing = asyncio.create_task(gate.admission.heard([ended("one")]))
        for _ in range(steps):
            await asyncio.sleep(0)
        gone.cancel()
        await hearing
        await settled()
        assert sum(held.sequences for held in (await gate.held()).values()) == (3 if gone.cancelled() else 4)
        assert gate.admission.waiting() == {"svc/1": 0}

    story(told)


@pytest.mark.parametrize("steps", range(6))
def test_a_client_that_goes_away_as_soon_as_it_came_holds_nothing(steps: int) -> None:
    async def told(gate: Gate) -> None:
        gone = asyncio.create_task(gate.admit("one"))
        for _ in range(steps):
            await asyncio.sleep(0)
        gone.cancel()
        await settled()
        assert sum(held.sequences for held in (await gate.held()).values()) == (0 if gone.cancelled() else 1)

    story(told)


def test_an_end_that_is_never_heard_frees_its_room_after_a_while() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        waiting = await gate.waits("five")
        gate.now += HOLD_S + 1
        gate.admission.tick()
        await settled()
        assert isinstance(waiting.result(), Admitted)

    story(told)


def test_a_replica_that_is_not_well_gets_nothing_and_its_room_does_not_count() -> None:
    async def told(gate: Gate) -> None:
        assert gate.seen is not None
        gate.seen = (gate.seen[0], replace(gate.seen[1], healthy=False))
        for name in ("one", "two"):
            admitted = await gate.admit(name)
            assert isinstance(admitted, Admitted)
            assert admitted.endpoints == (A,)
        waiting = await gate.waits("three")
        gate.seen = (gate.seen[0], replace(gate.seen[1], healthy=True))
        gate.admission.tick()
        await settled()
        assert waiting.result().endpoints[0] == B

    story(told)


def test_where_nothing_is_known_or_nobody_is_well_envoy_decides_also_for_those_who_wait() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        waiting = await gate.waits("five")
        assert gate.seen is not None
        gate.seen = tuple(replace(each, healthy=False) for each in gate.seen)
        gate.admission.tick()
        await settled()
        assert waiting.result() == Admitted()
        for seen in (gate.seen, (), None):
            gate.seen = seen
            assert await gate.admit("six") == Admitted()
        gate.rules = None
        assert await gate.admit("seven") == Admitted()

    story(told)


def test_a_probe_never_waits() -> None:
    async def told(gate: Gate) -> None:
        await gate.fill()
        waiting = await gate.waits("five")
        probed = await gate.admit("probe", by=key("probe", revision=1))
        assert isinstance(probed, Admitted)
        assert sorted(probed.endpoints) == [A, B]
        waiting.cancel()

    story(told)


@pytest.mark.parametrize("home", [0, 1])
def test_a_conversation_stays_on_the_replica_where_it_began_while_that_has_room(home: int) -> None:
    async def told(gate: Gate) -> None:
        assert gate.seen is not None
        both, gate.seen = gate.seen, gate.seen[home : home + 1]
        await gate.admit("one", prefix=(1, 2))
        gate.seen = both
        for turn in range(5):
            gate.now += 1.0
            await gate.end("one", f"turn {turn - 1}")
            next_turn = await gate.admit(f"turn {turn}", prefix=(1, 2, 3 + turn))
            assert isinstance(next_turn, Admitted)
            assert next_turn.endpoints[0] == both[home].endpoint

    story(told)


def test_where_envoy_balances_all_replicas_are_one_pool() -> None:
    async def told(gate: Gate) -> None:
        for name in ("one", "two", "three", "four"):
            assert await gate.admit(name) == Admitted()
        waiting = await gate.waits("five")
        await gate.end("one")
        assert waiting.result() == Admitted()

    story(told, rules=replace(RULES, balancing="round_robin"))


def test_servers_of_others_are_picked_by_what_they_hold_and_nobody_waits() -> None:
    async def told(gate: Gate) -> None:
        went = [await gate.admit(str(number)) for number in range(50)]
        first = [each.endpoints[0] for each in went if isinstance(each, Admitted)]
        assert abs(first.count(A) - first.count(B)) <= 2

    story(told, rules=replace(RULES, engine=EXTERNAL))


def test_what_is_larger_than_a_replica_holds_takes_all_of_it_and_no_more() -> None:
    async def told(gate: Gate) -> None:
        assert isinstance(await gate.admit("huge", 10**6), Admitted)
        assert sorted(held.tokens for held in (await gate.held()).values()) == [512]

    story(told)


def test_where_a_first_token_is_promised_a_replica_takes_no_more_than_it_gets_done_in_that_time() -> None:
    async def told(gate: Gate) -> None:
        gate.seen = (gate.seen or ())[:1]
        await gate.admit("one", 100)
        gate.now += 1.0
        await gate.end("one")  # 100 tokens in a second: 200 in the two that are promised
        assert isinstance(await gate.admit("two", 100), Admitted)
        assert isinstance(await gate.admit("three", 100), Admitted)
        await gate.end("two", "three")
        gate.now += 0.1
        assert isinstance(await gate.admit("four", 150), Admitted)
        fifth = await gate.waits("five", 100)
        gate.now += 0.1
        await gate.end("four")
        assert isinstance(fifth.result(), Admitted)

    story(told, rules=replace(RULES, ttft_ms=2000))


def test_what_cannot_be_done_in_the_promised_time_gets_a_replica_to_itself() -> None:
    async def told(gate: Gate) -> None:
        gate.seen = (gate.seen or ())[:1]
        await gate.admit("one", 100)
        gate.now += 1.0
        await gate.end("one")
        assert isinstance(await gate.admit("large", 250), Admitted)
        small = await gate.waits("small", 10)
        gate.now += 0.1
        await gate.end("large")
        assert isinstance(small.result(), Admitted)

    story(told, rules=replace(RULES, ttft_ms=2000))


def test_two_policy_servers_that_share_a_ledger_never_hold_more_than_there_is() -> None:
    async def told(gate: Gate) -> None:
        other = Gate()
        other.ledger = gate.ledger
        clocks = Clocks(monotonic=lambda: gate.now, wall=lambda: gate.now)
        other.admission = Admission(gate.ledger, lambda _: gate.seen, lambda _: gate.rules, clocks, PATIENT)
        tasks = [asyncio.create_task((gate, other)[n % 2].admit(str(n))) for n in range(10)]
        await settled()
        assert sum(task.done() for task in tasks) == 4
        gone: set[str | None] = set()
        for _ in range(20):
            going = next((str(n) for n, task in enumerate(tasks) if task.done() and str(n) not in gone), None)
            gone.add(going)
            await gate.end(str(going))
            gate.now += 0.1
            await other.end(str(going))
            assert sum(held.sequences for held in (await gate.ledger.held("svc/1")).values()) <= 4
        assert all(isinstance(task.result(), Admitted) for task in tasks)
        assert await gate.held() == {}

    story(told)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 300)),
        st.tuples(st.just("ask"), st.integers(1, 300)),
        st.tuples(st.just("end"), st.integers(0, 20)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("turn"), st.integers(0, 6)),
        st.tuples(st.just("sick"), st.integers(0, 1)),
        st.tuples(st.just("well"), st.integers(0, 1)),
    ),
    max_size=30,
)


@given(steps=STEPS)
@settings(max_examples=400, deadline=None)
def test_no_order_of_events_makes_a_replica_hold_more_than_its_room_or_loses_or_doubles_a_request(
    steps: list[tuple[str, int]],
) -> None:
    async def told(gate: Gate) -> None:
        tasks: list[asyncio.Task[Any]] = []
        for kind, number in steps:
            if kind == "ask":
                tasks.append(asyncio.create_task(gate.admit(str(len(tasks)), number, key("abc"[len(tasks) % 3]))))
            elif kind == "end" and number < len(tasks) and tasks[number].done() and not tasks[number].cancelled():
                await gate.admission.heard([ended(str(number))])
            elif kind == "leave" and number < len(tasks):
                tasks[number].cancel()
                if tasks[number].done():
                    await gate.admission.heard([ended(str(number))])
            elif kind == "turn":
                gate.now += 0.1
                for _ in range(number):
                    await asyncio.sleep(0)
            elif kind in ("sick", "well"):
                assert gate.seen is not None
                seen = list(gate.seen)
                seen[number] = replace(seen[number], healthy=kind == "well")
                gate.seen = tuple(seen)
            for held in (await gate.ledger.held("svc/1")).values():
                assert held.tokens <= 512
                assert held.sequences <= 2
        assert gate.seen is not None
        gate.seen = tuple(replace(each, healthy=True) for each in gate.seen)
        for _ in range(3 * len(tasks)):
            await gate.end(*(str(n) for n, task in enumerate(tasks) if task.done()))
            gate.now += 0.1
            gate.admission.tick()
            await settled()
        assert all(task.cancelled() or isinstance(task.result(), (Admitted, Deny)) for task in tasks)
        await gate.end(*(str(n) for n in range(len(tasks))))
        assert await gate.held() == {}
        assert sum(gate.admission.waiting().values()) == 0

    story(told)
