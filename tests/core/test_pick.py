"""The picker: who gets a request, and who never. The reuse that comes of it: `test_prefix_reuse.py`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.gateway.policy.pick import ON_CPU, SHARED_BY, Ask, PrefixMemory, ReplicaLoad, pick

A, B, C = (f"127.0.0.1:{port}" for port in (9001, 9002, 9003))
PROMPT = tuple(range(100, 110))


def replica(endpoint: str, tokens: int = 0, **more: object) -> ReplicaLoad:
    healthy = bool(more.pop("healthy", True))
    return ReplicaLoad(endpoint=endpoint, healthy=healthy, held_tokens=tokens, **more)  # type: ignore[arg-type]


def ask(prefix: tuple[int, ...] = (), prompt_tokens: int = 640) -> Ask:
    return Ask(prompt_tokens=prompt_tokens, prefix=prefix, block_tokens=64)


def test_the_replica_that_holds_least_goes_first() -> None:
    assert pick(ask(), [replica(A, 900), replica(B, 100), replica(C, 500)], PrefixMemory(100)) == (B, C, A)


def test_an_unhealthy_replica_is_never_picked() -> None:
    assert pick(ask(), [replica(A, healthy=False), replica(B, 10**6)], PrefixMemory(100)) == (B,)
    assert pick(ask(), [replica(A, healthy=False)], PrefixMemory(100)) == ()
    assert pick(ask(), [], PrefixMemory(100)) == ()


def test_a_conversation_stays_where_it_was() -> None:
    for home in (A, B, C):
        memory = PrefixMemory(100)
        memory.enter(home, PROMPT)
        assert pick(ask((*PROMPT, 1, 2)), [replica(A, 500), replica(B, 500), replica(C, 500)], memory)[0] == home


def test_but_not_once_that_replica_holds_more_than_staying_saves() -> None:
    memory = PrefixMemory(100)
    memory.enter(A, PROMPT)
    saved = len(PROMPT) * 64 - 1
    assert pick(ask(PROMPT), [replica(A, 10 * saved - 10), replica(B), replica(C)], memory)[0] == A
    assert pick(ask(PROMPT), [replica(A, 10 * saved + 10), replica(B), replica(C)], memory)[0] != A


def test_on_a_processor_what_is_held_weighs_more() -> None:
    memory = PrefixMemory(100)
    memory.enter(A, PROMPT)
    replicas = [replica(A, 2000), replica(B), replica(C)]
    assert pick(ask(PROMPT), replicas, memory)[0] == A
    assert pick(ask(PROMPT), replicas, memory, ON_CPU)[0] != A


def test_a_replica_that_computes_no_prompt_now_goes_before_one_that_does() -> None:
    busy, other = replica(A, 300, computing_tokens=200), replica(B, 500)
    assert pick(ask(), [busy, other], PrefixMemory(100)) == (B, A)
    assert pick(ask(), [busy, replica(B, 650)], PrefixMemory(100)) == (A, B), "while that does not hold much more"
    odd = replica(A, 300, computing_tokens=10**9)
    assert pick(ask(), [odd, replica(B, 800)], PrefixMemory(100)) == (A, B), "no more is computed than is held"
    assert pick(ask(), [busy, replica(B, 450)], PrefixMemory(100), ON_CPU) == (B, A)
    memory = PrefixMemory(100)
    memory.enter(A, PROMPT)
    assert pick(ask(PROMPT), [busy, other], memory) == (A, B), "what is cached there is worth the wait"


def test_on_a_processor_a_prompt_that_nobody_has_goes_where_none_is_computed_whatever_its_home() -> None:
    for block in range(20):
        found = Ask(prompt_tokens=64, prefix=(block,))
        for busy, other in ((A, B), (B, A)):
            replicas = [replica(busy, 90, computing_tokens=60), replica(other, 90)]
            assert pick(found, replicas, PrefixMemory(100), ON_CPU)[0] == other


def test_a_replica_that_says_that_it_is_full_comes_last() -> None:
    memory = PrefixMemory(100)
    memory.enter(A, PROMPT)
    assert pick(ask(PROMPT), [replica(A, waiting=1), replica(B, 5000)], memory) == (B, A)
    assert pick(ask(PROMPT), [replica(A, cache_used=0.96), replica(B, 5000)], memory) == (B, A)
    assert pick(ask(PROMPT), [replica(A, cache_used=0.5), replica(B, 5000)], memory) == (A, B)


def test_requests_that_envoy_has_on_a_replica_and_nobody_holds_count_too() -> None:
    assert pick(ask(), [replica(A, 640, held_requests=1, active=1), replica(B, active=3)], PrefixMemory(9)) == (A, B)


def test_two_servers_that_never_talked_send_a_conversation_to_the_same_replica() -> None:
    replicas = [replica(A), replica(B), replica(C)]
    for conversation in range(50):
        prefix = tuple(range(conversation * 100, conversation * 100 + 8))
        first, second = PrefixMemory(1000), PrefixMemory(1000)
        went = pick(ask(prefix[:4]), replicas, first)[0]
        assert pick(ask(prefix), replicas, second)[0] == went


def test_homes_are_spread_and_a_shared_beginning_is_nobodys_home() -> None:
    memory = PrefixMemory(1000)
    system = (1, 2, 3)
    for conversation in range(SHARED_BY):
        memory.enter(A, (*system, 1000 + conversation))
    assert memory.own((*system, 5000, 5001)) == 3
    replicas = [replica(A, 2000), replica(B), replica(C)]
    went = [pick(ask((*system, 9000 + each, 20000 + each)), replicas, memory)[0] for each in range(60)]
    assert {B, C} <= set(went)


def test_a_replica_that_goes_takes_its_conversations_homes_along_and_no_others() -> None:
    three = [replica(A), replica(B), replica(C)]
    homes = {each: pick(ask((each, each + 1)), three, PrefixMemory(9))[0] for each in range(0, 200, 2)}
    for each, home in homes.items():
        if home != C:
            assert pick(ask((each, each + 1)), three[:2], PrefixMemory(9))[0] == home


def test_the_memory_of_a_replica_is_bounded_and_keeps_beginnings_longest() -> None:
    memory = PrefixMemory(6)
    memory.enter(A, (1, 2, 3, 4))
    memory.enter(A, (11, 12, 13, 14))
    assert memory.reused(A, (11, 12, 13, 14)) == 4
    assert memory.reused(A, (1, 2, 3, 4)) == 2
    memory.keep([B])
    assert memory.reused(A, (11, 12)) == 0


def test_the_last_token_of_a_prompt_is_computed_always() -> None:
    memory = PrefixMemory(100)
    memory.enter(A, PROMPT)
    tiny = Ask(prompt_tokens=1, prefix=PROMPT, block_tokens=64)
    assert set(pick(tiny, [replica(A, 100), replica(B, 100)], memory)) == {A, B}


LOADS = st.lists(
    st.builds(
        ReplicaLoad,
        endpoint=st.sampled_from([f"127.0.0.1:{port}" for port in range(9000, 9008)]),
        healthy=st.booleans(),
        held_tokens=st.integers(0, 5000),
        held_requests=st.integers(0, 9),
        active=st.one_of(st.none(), st.integers(0, 9)),
        waiting=st.integers(0, 2),
        cache_used=st.one_of(st.none(), st.floats(0, 1)),
    ),
    max_size=8,
    unique_by=lambda each: each.endpoint,
)


@given(
    loads=LOADS,
    sent=st.lists(st.tuples(st.integers(9000, 9007), st.lists(st.integers(0, 9), max_size=6)), max_size=10),
    prefix=st.lists(st.integers(0, 9), max_size=6),
    prompt_tokens=st.integers(0, 2000),
)
@settings(max_examples=500, deadline=None)
def test_every_healthy_replica_is_named_once_and_no_other_and_the_order_is_always_the_same(
    loads: list[ReplicaLoad], sent: list[tuple[int, list[int]]], prefix: list[int], prompt_tokens: int
) -> None:
    memory = PrefixMemory(20)
    for port, blocks in sent:
        memory.enter(f"127.0.0.1:{port}", blocks)
    asked = Ask(prompt_tokens=prompt_tokens, prefix=prefix)
    order = pick(asked, loads, memory)
    assert sorted(order) == sorted(each.endpoint for each in loads if each.healthy)
    assert pick(asked, list(reversed(loads)), memory) == order
    full = [next(each for each in loads if each.endpoint == endpoint).full for endpoint in order]
    assert full == sorted(full)
