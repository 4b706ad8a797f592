"""What would make a model fit: each remedy is planned again here, by what it says and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.engines.hardware import Hardware, card_named, parse_hardware
from gonogo.plan.answer import answer
from gonogo.plan.capacity import Ask, Fit
from gonogo.plan.choose import Demand, Way, barred, choose
from gonogo.plan.remedies import CONTEXT_STEP, SHORTEST_CONTEXT, Remedy, remedies
from gonogo.spec.recipes import recipes
from tests.core.test_choose import CARDS, NAMES, cards, context_of, ways

HOLDS = (Fit.FITS, Fit.TIGHT)
AUTOGLM = ("autoglm-phone-9b", "autoglm-phone-9b-multilingual")


def holds(way: Way, hardware: Hardware, demand: Demand, ask: Ask) -> bool:
    choice = choose((way,), hardware, demand, ask)
    return choice.holds_demand and choice.best is not None and choice.best.capacity.fit in HOLDS


def holds_when_followed(remedy: Remedy, asked: Sequence[Way], hardware: Hardware, demand: Demand, ask: Ask) -> bool:
    """Whether the demand is held when a user does what the remedy says."""
    first, values = asked[0], remedy.values
    if remedy.reason.startswith(("RemedyShare", "RemedySequences", "RemedyWithoutGraphs", "RemedyFewerSequences")):
        changed = replace(
            ask,
            share=float(values["share"]),
            sequences=int(values["sequences"]) or None,
            graphs="WithoutGraphs" not in remedy.reason,
        )
        return holds(first, hardware, demand, changed)
    if remedy.reason == "RemedyFp8Cache":
        return holds(first, hardware, demand, replace(ask, kv_bytes=1.0))
    if remedy.reason in ("RemedyOnline", "RemedyCheckpoint", "RemedyEngine"):
        other = [
            way
            for way in asked[1:]
            if (way.quantization, way.source, way.online)
            == (values["quantization"], values["source"], remedy.reason == "RemedyOnline")
        ]
        return any(holds(way, hardware, demand, ask) for way in other)
    if remedy.reason == "RemedyFewerRequests":
        return holds(first, hardware, replace(demand, concurrent_requests=int(values["requests"])), ask)
    if remedy.reason == "RemedyShorter":
        return holds(first, hardware, replace(demand, context_tokens=int(values["tokens"])), ask)
    assert remedy.reason.startswith(("RemedyMoreCards", "RemedyLargerCard")), remedy.reason
    card = card_named(str(values["card"]))
    assert card is not None
    offer = parse_hardware(f"{values['count']}x{card.name}")
    if not remedy.reason.endswith("OtherWay"):
        return holds(first, offer, demand, ask)
    free = replace(ask, share=None)
    named = [way for way in asked[1:] if (way.quantization, way.source) == (values["quantization"], values["source"])]
    return any(holds(way, offer, demand, ask) or holds(way, offer, demand, free) for way in named)


@pytest.mark.parametrize("name", AUTOGLM)
def test_autoglm_on_one_card_of_24_gb_is_told_what_the_user_can_do(name: str) -> None:
    recipe = recipes()[name]
    demand = Demand(concurrent_requests=1, context_tokens=recipe.context_tokens)
    found = answer(name, ways(name), parse_hardware("1xRTX4090"), demand, Ask())
    sixteen = [fallen for fallen in found.choice.fallen if fallen.way.quantization == "none"]
    assert {fallen.way.engine for fallen in sixteen} == {"vllm", "sglang"}
    told = [(one.reason, dict(one.values)) for one in found.remedies if one.cost < 3 or one.reason == "RemedyEngine"]
    share = {"flag": "--gpu-memory-utilization", "share": 0.95, "sequences": 0, "requests": 1}
    assert told[0] == ("RemedyShare", share)
    reason, values = told[1]
    assert (reason, values["engine"], values["quantization"]) == ("RemedyOnline", "vLLM", "fp8")
    assert int(values["requests"]) > 1
    assert all(values["engine"] == "llama.cpp" for _, values in told[2:]), "only a GGUF may come beside them"


def test_a_setting_costs_less_than_quality_and_quality_less_than_other_hardware() -> None:
    demand = Demand(concurrent_requests=1, context_tokens=25_480)
    found = remedies(ways("autoglm-phone-9b"), parse_hardware("1xRTX4090"), demand, Ask())
    costs = [one.cost for one in found]
    assert costs == sorted(costs)
    names = [one.reason for one in found]
    assert names.index("RemedyShare") < names.index("RemedyOnline") < names.index("RemedyShorter")
    assert names.index("RemedyShorter") < names.index("RemedyMoreCards") < names.index("RemedyLargerCard")


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    card=st.sampled_from(CARDS),
    count=st.sampled_from([1, 2, 4, 8]),
    requests=st.sampled_from([1, 4, 64]),
    tokens=st.sampled_from([2048, 32768, 131072]),
    share=st.sampled_from([None, 0.8, 0.95]),
)
def test_every_remedy_holds_what_was_asked_when_it_is_followed(
    name: str, card: str, count: int, requests: int, tokens: int, share: float | None
) -> None:
    asked, hardware = ways(name), cards(card, count)
    demand = Demand(concurrent_requests=requests, context_tokens=min(tokens, context_of(name)))
    ask = Ask(share=share)
    for remedy in remedies(asked, hardware, demand, ask):
        free = replace(ask, share=None) if remedy.reason == "RemedyEngine" else ask
        assert holds_when_followed(remedy, asked, hardware, demand, free), remedy.reason
        assert remedy.capacity.fit in HOLDS


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(recipes())),
    card=st.sampled_from(CARDS),
    count=st.sampled_from([1, 4]),
    requests=st.sampled_from([1, 16]),
)
def test_every_remedy_of_a_recipe_holds_what_was_asked_when_it_is_followed(
    name: str, card: str, count: int, requests: int
) -> None:
    if name.startswith("smollm2"):
        return
    asked, hardware = ways(name), cards(card, count)
    demand = Demand(concurrent_requests=requests, context_tokens=recipes()[name].context_tokens)
    for remedy in remedies(asked, hardware, demand, Ask()):
        assert holds_when_followed(remedy, asked, hardware, demand, Ask()), remedy.reason


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(NAMES), card=st.sampled_from(CARDS), count=st.sampled_from([1, 2, 8]))
def test_the_request_that_is_offered_is_the_longest(name: str, card: str, count: int) -> None:
    asked, hardware, demand = ways(name), cards(card, count), Demand(concurrent_requests=1, context_tokens=131_072)
    if context_of(name) < demand.context_tokens:
        return
    for remedy in remedies(asked, hardware, demand, Ask()):
        if remedy.reason == "RemedyShorter":
            tokens = int(remedy.values["tokens"])
            assert SHORTEST_CONTEXT <= tokens < demand.context_tokens and tokens % CONTEXT_STEP == 0
            longer = replace(demand, context_tokens=min(tokens + CONTEXT_STEP, demand.context_tokens))
            assert not holds(asked[0], hardware, longer, Ask())


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    card=st.sampled_from(CARDS),
    requests=st.sampled_from([1, 16]),
)
def test_no_remedy_is_named_for_a_card_that_cannot_take_it(name: str, card: str, requests: int) -> None:
    demand = Demand(concurrent_requests=requests, context_tokens=min(16_384, context_of(name)))
    asked, hardware = ways(name), cards(card, 1)
    for remedy in remedies(asked, hardware, demand, Ask()):
        where = parse_hardware(f"1x{remedy.capacity.device.name}")
        same = [way for way in asked if way.model is remedy.capacity.model]
        online = remedy.capacity.serving.scheme is not None
        assert any(
            barred(way, where, Ask(context_tokens=demand.context_tokens)) is None
            for way in same
            if way.engine == remedy.capacity.planner.name and way.online == online
        ), remedy.reason


def test_there_is_no_remedy_where_the_first_way_already_holds_the_demand() -> None:
    demand = Demand(concurrent_requests=1, context_tokens=4096)
    found = answer("x", ways("Qwen/Qwen3-8B"), parse_hardware("1xH100"), demand, Ask())
    assert not found.remedies and found.choice.best is not None
    assert found.choice.best.way is found.first


def test_there_is_no_remedy_where_the_first_way_holds_the_demand_and_another_goes_before_it() -> None:
    first, other = (replace(way, tensor=1) for way in ways("Qwen/Qwen3-8B")[:2])
    demand = Demand(concurrent_requests=1, context_tokens=4096)
    assert not remedies((other, first), parse_hardware("1xH100"), demand, Ask())


def test_a_request_beyond_what_the_model_was_made_for_is_shortened_to_it() -> None:
    demand = Demand(concurrent_requests=1, context_tokens=1 << 20)
    found = answer("x", ways("Qwen/Qwen3-8B"), parse_hardware("1xH100"), demand, Ask())
    assert {fallen.reason for fallen in found.choice.fallen} == {"ContextBeyondModel"}
    assert {one.reason for one in found.remedies} == {"RemedyShorter"}
    assert found.remedies[0].values["tokens"] == 40_960


def test_a_model_that_no_formula_covers_has_no_remedies() -> None:
    demand = Demand(concurrent_requests=1, context_tokens=4096)
    for on in ("1xT4", "8xH100"):
        assert not remedies(ways("deepseek-ai/DeepSeek-V4-Flash"), parse_hardware(on), demand, Ask())


def test_a_share_that_leaves_no_room_beside_it_is_lowered() -> None:
    demand, ask = Demand(concurrent_requests=1, context_tokens=4096), Ask(engine="sglang", share=0.97)
    sglang = next(one for one in ways("Qwen/Qwen3-8B") if one.engine == "sglang" and not one.online)
    found = remedies((sglang,), parse_hardware("1xRTX4090"), demand, ask)
    assert found[0].reason == "RemedyShare"
    assert float(found[0].values["share"]) < 0.97 and found[0].capacity.fit in HOLDS


def test_less_hardware_is_named_where_another_form_needs_less() -> None:
    demand = Demand(concurrent_requests=1, context_tokens=131_072)
    found = remedies(ways("zai-org/GLM-4.5-Air"), parse_hardware("1xH100"), demand, Ask())
    told = {one.reason: (one.values["count"], one.values["card"]) for one in found if "count" in one.values}
    assert told["RemedyMoreCards"] == (4, "H100 SXM 80GB")
    assert told["RemedyMoreCardsOtherWay"] == (2, "H100 SXM 80GB")
    (other,) = [one for one in found if one.reason == "RemedyMoreCardsOtherWay"]
    assert (other.values["engine"], other.values["quantization"]) == ("vLLM", "fp8")


def test_other_hardware_for_another_form_is_not_named_where_that_form_fits_already() -> None:
    demand = Demand(concurrent_requests=1, context_tokens=25_480)
    found = remedies(ways("autoglm-phone-9b"), parse_hardware("1xRTX4090"), demand, Ask())
    assert not [one.reason for one in found if one.reason.endswith("OtherWay")]
