"""The rules of `gonogo.plan.speed`: what makes a deployment faster or slower, whatever the numbers that were fitted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.facts.architecture import Architecture, Scheme
from gonogo.facts.catalogue import known_models
from gonogo.facts.parse_config import parse_config
from gonogo.facts.weights import Part, groups_of
from gonogo.plan.calibration import calibration
from gonogo.plan.efficiency import CONSTANTS, Calibration, Spread, efficiency, levels, parse_calibration, spread
from gonogo.plan.roofline import Batch, Card, Kind, Layout, Stored, operations, touched_experts
from gonogo.plan.speed import Deployment, Load, estimate, middles

NAMES = (
    "meta-llama/Meta-Llama-3.1-8B",
    "Qwen/Qwen3-30B-A3B",
    "deepseek-ai/DeepSeek-R1",
    "openai/gpt-oss-120b",
    "google/gemma-3-27b-it",
    "Qwen/Qwen3.5-35B-A3B",
)
H100 = Card(
    name="H100 SXM 80GB",
    generation="hopper",
    memory_bytes_per_s=3.35e12,
    flops_fp16=989e12,
    link_bytes_per_s=450e9,
    capability=(9, 0),
)


def model(name: str) -> Architecture:
    return parse_config(known_models()[name].config)


def deployment(name: str = NAMES[0], engine: str = "vllm", card: Card = H100, **changed: object) -> Deployment:
    made = Deployment(model=model(name), engine=engine, card=card, layout=Layout(), stored=Stored())
    return replace(made, **changed)  # type: ignore[arg-type]


def load(prompt: float = 1000, answer: float = 500, concurrent: float = 8) -> Load:
    return Load(prompt_tokens=prompt, answer_tokens=answer, concurrent=concurrent)


def batch(tokens: float, context: float = 1000) -> Batch:
    return Batch(tokens=tokens, sequences=tokens, context_tokens=context, cached_tokens=context, decode=True)


def bare(**constants: float) -> Calibration:
    """Peaks are reached and nothing else costs anything, but for what is given."""
    none = dict.fromkeys(CONSTANTS, 0.0)
    peaks = dict.fromkeys(CONSTANTS[: CONSTANTS.index("message_s")], 1.0)
    one = {"all": Spread(low=0.0, high=0.0, rows=1)}
    return Calibration(
        constants={**none, **peaks, **constants},
        effects={},
        spreads=dict.fromkeys(("itl", "ttft", "throughput"), one),
        source="test",
    )


def test_a_step_at_peak_takes_the_bytes_of_the_weights_over_the_bandwidth() -> None:
    found = estimate(deployment(), load(prompt=1, answer=1, concurrent=1), bare())
    read = sum(group.elements for group in groups_of(model(NAMES[0])) if group.part not in (Part.EMBEDDING, Part.NORM))
    assert found.itl_ms.middle == pytest.approx(2 * read / 3.35e12 * 1e3, rel=1e-3)  # milliseconds, 2 bytes a weight


def test_half_the_efficiency_takes_twice_the_time() -> None:
    alone = load(prompt=1, answer=1, concurrent=1)
    half = bare(weights=0.5, head=0.5, cache=0.5)
    whole, halved = (estimate(deployment(), alone, made).step_ms for made in (bare(), half))
    assert halved == pytest.approx(2 * whole)


def test_tokens_per_second_are_requests_over_the_time_that_one_takes() -> None:
    found = middles(deployment(), load(), efficiency(calibration(), "vllm", H100, "16"))
    assert found.ttft_s is not None
    assert found.output_tokens_per_s == pytest.approx(8 * 500 / (found.ttft_s + 500 * found.itl_s))


def test_only_running_requests_make_tokens() -> None:
    asked = deployment(cache_tokens=10_000.0)
    found = middles(asked, load(concurrent=64), efficiency(calibration(), "vllm", H100, "16"))
    alone = middles(asked, load(concurrent=found.running), efficiency(calibration(), "vllm", H100, "16"))
    assert found.running == pytest.approx(8)
    assert found.output_tokens_per_s == pytest.approx(alone.output_tokens_per_s)


def test_an_all_reduce_over_four_cards_sends_three_halves_of_its_message() -> None:
    found = estimate(deployment(layout=Layout(tensor=4)), load(concurrent=8), bare())
    sent = 2 * 32 * 3 / 2 * 8 * 4096 * 2  # two a layer; 8 tokens of 4096 elements of 2 bytes
    assert next(term.ms for term in found.step if term.kind is Kind.MESSAGES) == pytest.approx(sent / 450e9 * 1e3)


@pytest.mark.parametrize("name", NAMES)
def test_the_terms_of_a_step_add_up_to_it(name: str) -> None:
    found = estimate(deployment(name), load(), calibration())
    assert sum(term.ms for term in found.step) == pytest.approx(found.step_ms)
    assert found.itl_ms.middle == pytest.approx(found.step_ms + found.interference_ms)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    engine=st.sampled_from(("vllm", "sglang", "tensorrt-llm", "llama.cpp", "unheard-of")),
    concurrent=st.integers(1, 512),
    prompt=st.integers(1, 60_000),
    faster=st.floats(1.0, 8.0),
)
def test_a_card_with_more_bandwidth_arithmetic_or_link_is_never_slower(
    name: str, engine: str, concurrent: int, prompt: int, faster: float
) -> None:
    asked = deployment(name, engine, layout=Layout(tensor=2))
    before = estimate(asked, load(prompt, 500, concurrent), calibration())
    for field in ("memory_bytes_per_s", "flops_fp16", "link_bytes_per_s"):
        card = replace(H100, **{field: getattr(H100, field) * faster})  # type: ignore[arg-type]
        after = estimate(replace(asked, card=card), load(prompt, 500, concurrent), calibration())
        assert after.itl_ms.middle <= before.itl_ms.middle * (1 + 1e-9)
        assert after.ttft_ms is not None
        assert before.ttft_ms is not None
        assert after.step_ms <= before.step_ms * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), concurrent=st.integers(1, 1000), prompt=st.integers(1, 30_000))
def test_more_requests_at_once_make_each_slower_and_all_together_faster(
    name: str, concurrent: int, prompt: int
) -> None:
    fewer = estimate(deployment(name), load(prompt, 500, concurrent), calibration())
    more = estimate(deployment(name), load(prompt, 500, concurrent + 1), calibration())
    assert more.itl_ms.middle >= fewer.itl_ms.middle
    assert more.output_tokens_per_s.middle >= fewer.output_tokens_per_s.middle * 0.999


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), concurrent=st.integers(1, 200), prompt=st.integers(1, 60_000))
def test_a_longer_prompt_is_never_faster(name: str, concurrent: int, prompt: int) -> None:
    short = estimate(deployment(name), load(prompt, 500, concurrent), calibration())
    long = estimate(deployment(name), load(prompt * 2, 500, concurrent), calibration())
    assert long.itl_ms.middle >= short.itl_ms.middle
    assert short.ttft_ms is not None
    assert long.ttft_ms is not None
    assert long.ttft_ms.middle >= short.ttft_ms.middle


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    engine=st.sampled_from(("vllm", "sglang", "tensorrt-llm", "unheard-of")),
    concurrent=st.integers(1, 512),
)
def test_a_range_holds_its_middle(name: str, engine: str, concurrent: int) -> None:
    found = estimate(deployment(name, engine), load(concurrent=concurrent), calibration())
    for one in (found.itl_ms, found.output_tokens_per_s, found.ttft_ms):
        assert one is not None
        assert 0 < one.low <= one.middle <= one.high


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), concurrent=st.integers(1, 256))
def test_no_range_reaches_beyond_what_the_card_can_move(name: str, concurrent: int) -> None:
    found = estimate(deployment(name), load(concurrent=concurrent), calibration())
    batch_ = batch(concurrent, 1250)
    read = sum(
        one.bytes for one in operations(model(name), Layout(), Stored(), batch_) if one.kind is not Kind.MESSAGES
    )
    assert found.itl_ms.low >= min(found.itl_ms.middle, read / 3.35e12 * 1e3) * (1 - 1e-9)
    assert found.output_tokens_per_s.high <= max(
        found.output_tokens_per_s.middle, concurrent / (read / 3.35e12) * 1.001
    )


@pytest.mark.parametrize("name", NAMES)
def test_more_cards_per_layer_read_fewer_bytes_of_weights_each(name: str) -> None:
    def weights(tensor: int) -> float:
        found = operations(model(name), Layout(tensor=tensor), Stored(), batch(8))
        return sum(
            one.bytes for one in found if one.kind in (Kind.ATTENTION_WEIGHTS, Kind.DENSE, Kind.EXPERTS, Kind.HEAD)
        )

    assert weights(1) > weights(2) > weights(4) >= weights(1) / 4 * (1 - 1e-9)


def test_one_card_sends_no_messages_and_two_send_two_for_each_layer() -> None:
    counts = [
        sum(
            one.count
            for one in operations(model(NAMES[0]), Layout(tensor=ways), Stored(), batch(1))
            if one.kind is Kind.MESSAGES
        )
        for ways in (1, 2)
    ]
    assert counts == [0, 64]


def test_one_token_touches_its_own_experts_and_many_touch_all() -> None:
    assert touched_experts(128, 8, 1) == pytest.approx(8)
    assert touched_experts(128, 8, 2) == pytest.approx(128 * (1 - (120 / 128) ** 2))
    assert touched_experts(128, 8, 10_000) == pytest.approx(128)


def test_a_window_bounds_what_is_read_of_the_cache() -> None:
    def cached(name: str, context: float) -> float:
        found = operations(model(name), Layout(), Stored(), batch(1, context))
        return sum(one.bytes for one in found if one.kind is Kind.CACHE)

    full, windowed = "meta-llama/Meta-Llama-3.1-8B", "openai/gpt-oss-120b"
    assert cached(full, 64_000) == pytest.approx(2 * cached(full, 32_000))
    assert cached(windowed, 64_000) < 2 * cached(windowed, 32_000)


def test_weights_of_half_the_size_are_read_in_half_the_time() -> None:
    sixteen, eight = (
        estimate(deployment(stored=stored), load(prompt=1, answer=1, concurrent=1), bare())
        for stored in (Stored(), Stored(scheme=Scheme(method="fp8")))
    )
    head = next(term.ms for term in sixteen.step if term.kind is Kind.HEAD)
    assert eight.step_ms - head == pytest.approx((sixteen.step_ms - head) / 2, rel=1e-3)


def test_what_the_cache_cannot_hold_waits() -> None:
    roomy = estimate(deployment(), load(concurrent=64), calibration())
    tight = estimate(deployment(cache_tokens=10_000.0), load(concurrent=64), calibration())
    assert roomy.running == 64
    assert tight.running == pytest.approx(8)
    assert tight.itl_ms.middle < roomy.itl_ms.middle
    assert tight.ttft_ms is not None
    assert roomy.ttft_ms is not None
    assert tight.ttft_ms.middle > 5 * roomy.ttft_ms.middle


def test_prompts_of_others_come_between_the_tokens_of_an_answer_unless_other_cards_read_them() -> None:
    shared = estimate(deployment(), load(concurrent=32), calibration())
    apart = estimate(deployment(separate_prefill=True), load(concurrent=32), calibration())
    assert shared.interference_ms > 0
    assert apart.interference_ms == 0
    assert apart.step_ms == shared.step_ms


def test_a_card_whose_arithmetic_nobody_could_source_has_no_time_to_the_first_token() -> None:
    found = estimate(deployment(card=replace(H100, flops_fp16=None)), load(), calibration())
    assert found.ttft_ms is None
    assert found.itl_ms.middle > 0


def test_an_engine_and_a_card_that_were_never_measured_are_answered_from_all_and_say_so() -> None:
    card = replace(H100, name="new", generation="next")
    found = estimate(deployment(engine="unheard-of", card=card), load(), calibration())
    assert found.known == ()
    assert found.level == "all"


def test_a_measured_engine_on_a_new_card_is_answered_from_the_engine() -> None:
    card = replace(H100, name="new", generation="next")
    found = estimate(deployment(card=card), load(), calibration())
    assert "engine/vllm" in found.known
    assert found.level.split("/")[1] == "vllm"


def test_the_range_is_that_of_the_most_particular_level_that_was_measured() -> None:
    wide, narrow = Spread(low=-1.0, high=1.0, rows=50), Spread(low=-0.1, high=0.1, rows=20)
    made = replace(bare(), spreads={"itl": {"all": wide, "engine/vllm": wide, "engine/vllm/hopper": narrow}})
    assert spread(made, "itl", "vllm", H100, "16") == (narrow, "engine/vllm/hopper")
    assert spread(made, "itl", "vllm", replace(H100, generation="next"), "16") == (wide, "engine/vllm")


def test_effects_of_all_levels_add_up() -> None:
    made = calibration()
    reached = efficiency(made, "sglang", H100, "16")
    known = [level for level in levels("sglang", H100, "16") if level in made.effects]
    total = sum(made.effects[level].speed for level in known)
    assert reached.share(Kind.DENSE) == pytest.approx(made.constants["weights"] * math.exp(total))


def test_every_stored_level_says_how_many_rows_it_was_fitted_to_and_every_quantity_has_a_range_for_all() -> None:
    made = calibration()
    assert all(effect.rows > 0 for effect in made.effects.values())
    assert {"itl", "ttft", "throughput"} <= set(made.spreads)
    for by_level in made.spreads.values():
        assert "all" in by_level
        assert all(found.low <= 0 <= found.high and found.rows > 0 for found in by_level.values())
    assert spread(made, "itl", "unheard-of", replace(H100, generation="next"), "16") == (
        made.spreads["itl"]["all"],
        "all",
    )


def test_a_calibration_without_one_of_the_constants_is_refused() -> None:
    with pytest.raises(KeyError, match="a calibration without weights"):
        parse_calibration({"constants": {}, "effects": {}, "spreads": {}, "source": ""})


@pytest.mark.parametrize("field", ["prompt_tokens", "answer_tokens", "concurrent"])
def test_a_load_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="positive"):
        estimate(deployment(), replace(load(), **{field: 0}), calibration())  # type: ignore[arg-type]
