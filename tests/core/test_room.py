"""How much a replica may hold: what its engine was started for, by the engine's own arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.engines import llamacpp
from gonogo.engines.asked import serving_of
from gonogo.gateway.policy.room import UNBOUNDED, room_of
from gonogo.gateway.policy.rules import rules_of
from gonogo.spec import Spec
from gonogo.spec.engine import EngineChoice
from gonogo.spec.model import Expect


def spec(engine: EngineChoice | None = None, concurrent: int = 4, context: int = 2048, **more: object) -> Spec:
    expect = Expect(concurrent_requests=concurrent, context_tokens=context)
    return Spec(service="svc", model="m", engine=engine, expect=expect, **more)  # type: ignore[arg-type]


@given(concurrent=st.integers(1, 4096), context=st.integers(128, 200_000), replicas=st.integers(1, 64))
def test_llamacpp_may_hold_its_slots_and_their_contexts(concurrent: int, context: int, replicas: int) -> None:
    asked = spec(concurrent=concurrent, context=context, replicas=replicas)
    room = room_of(rules_of(asked.model_dump(mode="json")), replicas)
    assert room.sequences == llamacpp.slots(asked, replicas)
    assert room.tokens == llamacpp.slots(asked, replicas) * llamacpp.context_tokens(asked)


def test_as_many_replicas_as_were_asked_for_share_the_load_also_while_one_is_away() -> None:
    rules = rules_of(spec(concurrent=8, replicas=4).model_dump(mode="json"))
    assert room_of(rules, 3) == room_of(rules, 4)
    unasked = rules_of(spec(concurrent=8).model_dump(mode="json"))
    assert room_of(unasked, 2).sequences == 4


def test_vllm_on_the_processor_may_hold_the_pages_it_was_given() -> None:
    choice = EngineChoice(name="vllm-cpu")
    for concurrent in (3, 100):
        asked = spec(choice, concurrent=concurrent, replicas=1)
        room = room_of(rules_of(asked.model_dump(mode="json")), 1)
        assert room.sequences == serving_of(asked).sequences
        assert room.tokens == room.sequences * 2048


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_an_engine_on_cards_may_hold_the_tokens_of_the_load_that_was_planned(name: str) -> None:
    rules = rules_of(spec(EngineChoice(name=name), concurrent=12, replicas=2).model_dump(mode="json"))
    assert room_of(rules, 2).tokens == 6 * 2048
    assert room_of(rules, 2).sequences == 256
    bounded = rules_of(spec(EngineChoice(name=name, sequences=32), replicas=2).model_dump(mode="json"))
    assert room_of(bounded, 2).sequences == 32


def test_servers_of_others_are_not_bounded() -> None:
    asked = spec(replicas={"external": ["http://127.0.0.1:9101"]})
    assert room_of(rules_of(asked.model_dump(mode="json")), 1) == UNBOUNDED


def test_the_whole_context_fits_whatever_the_spec_says() -> None:
    for context in (128, 1000, 131_072):
        rules = rules_of(spec(concurrent=1, context=context, replicas=64).model_dump(mode="json"))
        assert room_of(rules, 64).tokens >= context
