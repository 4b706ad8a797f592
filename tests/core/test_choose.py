"""Which way is chosen on given cards, and what is never said: that something fits which does not."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.engines.hardware import Hardware, card_named, parse_hardware
from gonogo.engines.planners import PLANNERS
from gonogo.facts.architecture import Scheme
from gonogo.facts.card_limits import CARD_LIMITS
from gonogo.facts.catalogue import known_model, known_models
from gonogo.plan.capacity import Ask, Fit, capacity, estimate_gpu_memory, model_of
from gonogo.plan.choose import Choice, Demand, Way, bits, choose, divisions
from gonogo.plan.ways import ways_of_config, ways_of_recipe
from gonogo.spec.recipes import recipes

CARDS = sorted(CARD_LIMITS)
NAMES = sorted(known_models())
ODD = [name for name in NAMES if model_of(name, known_models()[name].config).architecture.oddity is not None]
HOLDS = (Fit.FITS, Fit.TIGHT)


@cache
def ways(name: str) -> Sequence[Way]:
    if name in recipes():
        return ways_of_recipe(recipes()[name])
    known = known_model(name)
    assert known is not None, name
    return ways_of_config(known.name, known.config)


def chosen(name: str, on: str | Hardware, requests: int = 1, tokens: int = 8192, ask: Ask | None = None) -> Choice:
    hardware = parse_hardware(on) if isinstance(on, str) else on
    return choose(ways(name), hardware, Demand(concurrent_requests=requests, context_tokens=tokens), ask or Ask())


def cards(name: str, count: int) -> Hardware:
    card = card_named(name)
    assert card is not None
    return Hardware(count=count, card=card, limits=CARD_LIMITS[name])


def context_of(name: str) -> int:
    return ways(name)[0].model.architecture.context_tokens or 4096


def test_weights_as_trained_go_before_fewer_bits_where_both_hold_what_is_asked() -> None:
    best = chosen("Qwen/Qwen3-8B", "1xH100").best
    assert best is not None
    assert (best.way.quantization, bits(best.way)) == ("none", 16)


def test_fewer_bits_are_chosen_where_only_they_hold_what_is_asked() -> None:
    one, many = chosen("Qwen/Qwen3-32B", "1xH100", 1, 16384), chosen("Qwen/Qwen3-32B", "1xH100", 6, 16384)
    assert one.best is not None and many.best is not None
    assert (bits(one.best.way), bits(many.best.way)) == (16, 8)
    assert one.holds_demand and many.holds_demand


def test_where_nothing_holds_the_demand_the_one_that_holds_most_goes_first() -> None:
    choice = chosen("Qwen/Qwen3-32B", "1xH100", 10_000, 16384)
    assert not choice.holds_demand
    held = [option.requests for option in choice.options]
    assert held == sorted(held, reverse=True)


def test_one_of_two_equal_ways_that_is_not_tight_goes_first() -> None:
    choice = chosen("qwen3-32b", "1xH100", 1, 16384)
    sixteen = [option for option in choice.options if bits(option.way) == 16]
    assert [option.capacity.fit for option in sixteen] == sorted((one.capacity.fit for one in sixteen), key=HOLDS.index)


def test_the_fewest_cards_that_hold_the_demand_are_taken() -> None:
    few, more = chosen("Qwen/Qwen3-8B", "8xH100", 1), chosen("Qwen/Qwen3-8B", "8xH100", 300)
    assert few.best is not None and more.best is not None
    assert few.best.cards == 1
    serving = more.best.capacity.serving
    assert more.best.cards == serving.devices * math.ceil(300 / more.best.capacity.requests) > 1
    for tensor in (1, 2, 4, 8):
        seen = capacity(more.best.way.model, parse_hardware("8xH100"), Ask(context_tokens=8192, tensor=tensor))
        needed = math.ceil(300 / seen.requests)
        assert needed * tensor >= more.best.cards or needed > 8 // tensor


def test_replicas_use_every_card_that_they_can() -> None:
    best = chosen("Qwen/Qwen3-32B", "7xH100", 4, 8192).best
    assert best is not None
    assert best.replicas == 7 // best.capacity.serving.devices
    assert best.requests == best.replicas * best.capacity.requests


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), card=st.sampled_from(CARDS), count=st.sampled_from([2, 4, 8, 16]))
def test_stages_are_taken_only_where_nothing_else_fits(name: str, card: str, count: int) -> None:
    tokens = min(8192, context_of(name))
    hardware = cards(card, count)
    for option in chosen(name, hardware, tokens=tokens).options:
        if option.capacity.serving.pipeline == 1:
            continue
        for tensor, pipeline in divisions(count, option.way):
            if pipeline == 1:
                online = option.way.quantization if option.way.online else None
                ask = Ask(engine=option.way.engine, quantization=online, context_tokens=tokens, tensor=tensor)
                assert capacity(option.way.model, hardware, ask).fit is Fit.DOES_NOT_FIT


def test_each_way_is_told_once_as_possible_or_as_fallen() -> None:
    for on in ("1xT4", "1xRTX4090", "2xA100", "8xH100"):
        for name in ("Qwen/Qwen3-32B", "autoglm-phone-9b", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-120b"):
            choice = chosen(name, on)
            told = [option.way for option in choice.options] + [fallen.way for fallen in choice.fallen]
            assert sorted(map(id, told)) == sorted(map(id, ways(name)))


@pytest.mark.parametrize(
    ("name", "on", "reason"),
    [
        ("Qwen/Qwen3-8B", "1xT4", "NoRoomForWeights"),
        ("Qwen/Qwen3-32B-FP8", "1xT4", "CardTooOldForScheme"),
        ("openai/gpt-oss-20b", "1xT4", "CardTooOldForScheme"),
        ("autoglm-phone-9b", "1xRTX4090", "NoRoomForOneRequest"),
        ("Qwen/Qwen3-0.6B", "1xT4", "ContextBeyondModel"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct (GGUF Q4_1)", "1xT4", "ContextBeyondModel"),
    ],
)
def test_a_way_that_falls_says_why(name: str, on: str, reason: str) -> None:
    tokens = {"ContextBeyondModel": 1 << 20, "NoRoomForOneRequest": 25480}.get(reason, 8192)
    fallen = [one for one in chosen(name, on, tokens=tokens).fallen if one.way.engine == "vllm"]
    assert fallen[0].reason == reason


def test_a_fixed_number_of_cards_per_layer_that_does_not_divide_falls_by_its_reason() -> None:
    asked = [replace(way, tensor=5) for way in ways("Qwen/Qwen3-14B")]
    choice = choose(asked, parse_hardware("8xH100"), Demand(concurrent_requests=1, context_tokens=4096), Ask())
    assert not choice.options
    assert {fallen.reason for fallen in choice.fallen} == {"DoesNotDivide"}


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(ODD), card=st.sampled_from(CARDS), count=st.sampled_from([1, 8, 16]))
def test_a_model_that_no_formula_covers_never_fits(name: str, card: str, count: int) -> None:
    choice = chosen(name, cards(card, count), tokens=4096)
    assert all(option.capacity.fit is Fit.UNKNOWN for option in choice.options)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    card=st.sampled_from(CARDS),
    part=st.floats(0.3, 0.999),
    tensor=st.sampled_from([1, 2, 4, 8]),
    engine=st.sampled_from(["vllm", "sglang", "transformers"]),
    tokens=st.sampled_from([512, 4096, 32768, 131072]),
)
def test_a_smaller_card_never_holds_what_a_larger_one_does_not(
    name: str, card: str, part: float, tensor: int, engine: str, tokens: int
) -> None:
    large = cards(card, 1).device
    small = replace(large, total_bytes=int(large.total_bytes * part))
    model = ways(name)[0].model
    ask = Ask(engine=engine, context_tokens=tokens, tensor=tensor, share=0.9, sequences=256, batch_tokens=2048)
    if capacity(model, large, ask).fit is Fit.DOES_NOT_FIT:
        assert capacity(model, small, ask).fit is Fit.DOES_NOT_FIT


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    card=st.sampled_from(CARDS),
    tokens=st.integers(1, 200_000),
    more=st.integers(1, 100_000),
    tensor=st.sampled_from([1, 2, 4, 8]),
    engine=st.sampled_from(["vllm", "sglang", "transformers"]),
    version=st.sampled_from([None, (0, 7, 3), (0, 16, 0), (0, 19, 0)]),
)
def test_a_longer_request_never_fits_where_a_shorter_one_does_not(
    name: str, card: str, tokens: int, more: int, tensor: int, engine: str, version: tuple[int, ...] | None
) -> None:
    device, model = cards(card, 1).device, ways(name)[0].model
    version = version if engine == "vllm" else None
    short = capacity(model, device, Ask(engine=engine, version=version, context_tokens=tokens, tensor=tensor))
    long = capacity(model, device, Ask(engine=engine, version=version, context_tokens=tokens + more, tensor=tensor))
    if short.fit is Fit.DOES_NOT_FIT:
        assert long.fit is Fit.DOES_NOT_FIT
    assert long.requests <= short.requests


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    card=st.sampled_from(CARDS),
    count=st.sampled_from([1, 2, 8]),
    requests=st.integers(1, 200),
    more=st.integers(1, 200),
)
def test_more_requests_are_never_held_where_fewer_are_not(
    name: str, card: str, count: int, requests: int, more: int
) -> None:
    tokens = min(4096, context_of(name))
    few = chosen(name, cards(card, count), requests, tokens)
    many = chosen(name, cards(card, count), requests + more, tokens)
    if not few.holds_demand:
        assert not many.holds_demand
    assert {option.way.source for option in few.options} == {option.way.source for option in many.options}


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    card=st.sampled_from(CARDS),
    count=st.sampled_from([1, 2, 4, 8]),
    requests=st.sampled_from([1, 8, 64]),
)
def test_more_cards_hold_what_fewer_hold(name: str, card: str, count: int, requests: int) -> None:
    tokens = min(4096, context_of(name))
    few = chosen(name, cards(card, count), requests, tokens)
    more = chosen(name, cards(card, 2 * count), requests, tokens)
    if few.holds_demand:
        assert more.holds_demand


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), card=st.sampled_from(CARDS), count=st.sampled_from([1, 2, 8]))
def test_what_is_said_to_hold_is_held_by_its_cache(name: str, card: str, count: int) -> None:
    tokens = min(8192, context_of(name))
    for option in chosen(name, cards(card, count), tokens=tokens).options:
        memory = option.capacity.memory
        assert memory is not None and option.capacity.failed is None
        assert all(rank.cache_bytes > 0 and rank.free_bytes >= rank.budget_bytes for rank in memory.ranks)
        if memory.pool is not None:
            assert memory.pool.requests >= 1
            held = option.capacity.requests * memory.pool.request_bytes
            assert held <= memory.tightest.cache_bytes * 1.001
        assert option.replicas * option.capacity.serving.devices <= count


def test_a_margin_of_less_than_half_a_gib_is_tight() -> None:
    seen = chosen("zai-org/GLM-4.1V-9B-Thinking", "1xRTX4090", 1, 8192, Ask(share=0.95)).options
    tight = {option.capacity.fit is Fit.TIGHT: option.capacity.margin_bytes for option in seen}
    for small, margin in tight.items():
        assert margin is not None and (margin < 1 << 29) == small


def test_weights_that_the_engine_makes_smaller_need_a_card_that_can_read_them() -> None:
    fallen = {(one.way.engine, one.way.quantization): one.reason for one in chosen("Qwen/Qwen3-8B", "1xT4").fallen}
    assert fallen["vllm", "fp8"] == fallen["sglang", "fp8"] == "CardTooOldForScheme"
    on_a100 = chosen("Qwen/Qwen3-8B", "1xA100")
    assert ("vllm", "fp8") in {(one.way.engine, one.way.quantization) for one in on_a100.options}
    assert ("sglang", "fp8") in {(one.way.engine, one.way.quantization) for one in on_a100.fallen}


def test_a_scheme_of_the_way_is_what_the_engine_holds() -> None:
    for way in ways("Qwen/Qwen3-8B"):
        assert (way.scheme is None) == (way.quantization == "none")
        if way.online:
            assert way.scheme == Scheme(method="fp8", skipped=frozenset({"vision"}))


def test_estimate_gpu_memory_is_the_weights_in_fp16_and_nothing_else() -> None:
    assert estimate_gpu_memory(175) == pytest.approx(325.96, abs=0.005)
    assert estimate_gpu_memory(7) == pytest.approx(13.04, abs=0.005)
    assert type(estimate_gpu_memory(175)) is float
    documented = estimate_gpu_memory.__doc__ or ""
    assert "1629.81" in documented and "325.96" in documented and "gonogo fit" in documented


@pytest.mark.parametrize("billions", [0, -1, -0.0, math.nan, math.inf, -math.inf])
def test_estimate_gpu_memory_refuses_what_is_no_number_of_parameters(billions: float) -> None:
    with pytest.raises(ValueError, match="a positive number was expected"):
        estimate_gpu_memory(billions)


def test_an_engine_that_is_not_planned_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="tensorrt"):
        capacity(ways("Qwen/Qwen3-8B")[0].model, parse_hardware("1xH100"), Ask(engine="tensorrt"))


@pytest.mark.parametrize(
    "ask",
    [Ask(quantization="int3"), Ask(tensor=0), Ask(tensor=-2), Ask(pipeline=0), Ask(context_tokens=-1)],
)
def test_what_cannot_be_asked_is_a_value_error_and_not_a_crash(ask: Ask) -> None:
    with pytest.raises(ValueError, match=r"no plan for|one or more"):
        capacity(ways("Qwen/Qwen3-8B")[0].model, parse_hardware("1xH100"), ask)


def test_cards_that_were_seen_idle_hold_no_more_than_cards_that_are_only_named() -> None:
    model = ways("Qwen/Qwen3-14B")[0].model
    for on, tensor in (("1xRTX4090", 1), ("2xRTX4090", 2), ("2xH100", 2)):
        named = parse_hardware(on)
        seen = replace(named, free_bytes=named.limits.usable_bytes)
        for share in (0.9, 0.95, 0.97, 0.98):
            ask = Ask(tensor=tensor, share=share, context_tokens=8192)
            assert capacity(model, seen, ask).fit is capacity(model, named, ask).fit


def test_an_image_encoder_that_every_card_holds_whole_is_counted_on_each() -> None:
    (way, *_) = ways("autoglm-phone-9b")
    assert way.encoder_copied, "the recipe gives --mm-encoder-tp-mode data"
    vision = way.model.architecture.vision
    assert vision is not None
    hardware, ask = parse_hardware("2xRTX4090"), Ask(tensor=2, context_tokens=8192)
    divided, whole = (capacity(way.model, hardware, replace(ask, encoder_copied=copied)) for copied in (False, True))
    assert divided.memory is not None and whole.memory is not None
    more = whole.memory.ranks[0].term("weights") - divided.memory.ranks[0].term("weights")
    assert more == pytest.approx(vision.parameters * 2 / 2, rel=0.01), "half of it, of two bytes each"
    best = choose((replace(way, tensor=2),), hardware, Demand(concurrent_requests=1, context_tokens=8192), Ask()).best
    assert best is not None and best.capacity.memory is not None
    assert best.capacity.memory.ranks[0].term("weights") == whole.memory.ranks[0].term("weights")


def test_a_version_that_the_recipe_does_not_name_is_not_taken() -> None:
    asked = Ask(engine="vllm", version=(0, 11, 0))
    choice = chosen("autoglm-phone-9b", "1xH100", ask=asked)
    assert {fallen.reason for fallen in choice.fallen if fallen.way.engine == "vllm"} == {"VersionUnfit"}
    assert all(option.way.engine != "vllm" for option in choice.options)
    newer = chosen("autoglm-phone-9b", "1xH100", ask=replace(asked, version=(0, 12, 0)))
    assert newer.best is not None and newer.best.way.engine == "vllm"


def test_a_version_is_asked_of_one_engine_only() -> None:
    choice = chosen("Qwen/Qwen3-8B", "1xH100", ask=Ask(engine="vllm", version=(0, 19, 0)))
    versions = {option.way.engine: option.capacity.serving.version for option in choice.options}
    assert versions["vllm"] == (0, 19, 0) and versions["sglang"] == PLANNERS["sglang"].newest


def test_what_is_to_spare_is_what_the_demand_leaves() -> None:
    few = chosen("Qwen/Qwen3-8B", "1xH100")
    assert few.best is not None
    full = few.best.capacity.requests
    many = chosen("Qwen/Qwen3-8B", "1xH100", full)
    assert many.best is not None and few.best.capacity == many.best.capacity
    spare_few, spare_many = few.best.spare_bytes(few.demand), many.best.spare_bytes(many.demand)
    pool = many.best.capacity.memory.pool if many.best.capacity.memory is not None else None
    assert spare_few is not None and spare_many is not None and pool is not None
    assert 0 <= spare_many < spare_few
    assert many.best.capacity.memory is not None
    assert spare_many == many.best.capacity.memory.tightest.cache_bytes - full * pool.request_bytes
