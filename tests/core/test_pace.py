"""Speed and price of an option of `gonogo fit`: what the plan hands on to the roofline, and what is shown of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gonogo.engines.hardware import Hardware, parse_hardware
from gonogo.facts.catalogue import known_models
from gonogo.plan.answer import answer, as_plain, with_paces
from gonogo.plan.calibration import calibration
from gonogo.plan.capacity import Ask
from gonogo.plan.choose import Choice, Demand, choose
from gonogo.plan.pace import Pace, Promise, Wanted, deployment_of, lengths_of, pace_of
from gonogo.plan.price_list import texts
from gonogo.plan.prices import CardPrice, Offer, load_prices
from gonogo.plan.ways import ways_of_config, ways_of_recipe
from gonogo.spec.mistakes import SpecMistakes
from gonogo.spec.recipes import recipes

PRICE = CardPrice(
    card="H100 SXM 80GB",
    on_demand=Offer(usd_per_hour=2.0, source="us, list", date="2026-11-01"),
    spot=Offer(usd_per_hour=1.0, source="us, list", date="2026-11-01"),
)
PRICES = {PRICE.card: PRICE}


def chosen(
    name: str, on: str, requests: int = 1, tokens: int = 8192, tensor: int | None = None
) -> tuple[Choice, Hardware]:
    hardware = parse_hardware(on)
    recipe = recipes().get(name)
    ways = ways_of_recipe(recipe) if recipe else ways_of_config(name, known_models()[name].config)
    demand = Demand(concurrent_requests=requests, context_tokens=tokens)
    return choose([replace(way, tensor=tensor) for way in ways], hardware, demand, Ask()), hardware


def pace(name: str, on: str, requests: int = 1, tokens: int = 8192, tensor: int | None = None) -> Pace:
    choice, hardware = chosen(name, on, requests, tokens, tensor)
    assert choice.best is not None
    found = pace_of(
        choice.best, hardware, Wanted(lengths=lengths_of(tokens, None), requests=requests), calibration(), PRICES
    )
    assert found is not None
    return found


def test_a_request_is_divided_into_prompt_and_answer() -> None:
    assert (lengths_of(8192, None).prompt_tokens, lengths_of(8192, None).answer_tokens) == (7936, 256)
    assert (lengths_of(400, None).prompt_tokens, lengths_of(400, None).answer_tokens) == (300, 100)
    assert (lengths_of(8192, 2000).prompt_tokens, lengths_of(8192, 2000).answer_tokens) == (6192, 2000)
    assert (lengths_of(1, None).prompt_tokens, lengths_of(1, None).answer_tokens) == (1, 1)


def test_many_requests_at_once_wait_longer_and_give_more_tokens_in_all() -> None:
    alone, many = pace("Qwen/Qwen3-8B", "1xH100"), pace("Qwen/Qwen3-8B", "1xH100", requests=16)
    assert many.concurrent == 16
    assert many.loaded.itl_ms.middle > alone.loaded.itl_ms.middle
    assert many.loaded.output_tokens_per_s.middle > alone.loaded.output_tokens_per_s.middle
    assert many.alone.itl_ms == alone.alone.itl_ms


def test_the_requests_are_shared_out_among_the_replicas() -> None:
    choice, _ = chosen("Qwen/Qwen3-8B", "2xH100", requests=46, tokens=16384)
    assert choice.best is not None and choice.best.needed > 1
    found = pace("Qwen/Qwen3-8B", "2xH100", requests=46, tokens=16384)
    assert found.concurrent * choice.best.needed >= 46 > (found.concurrent - 1) * choice.best.needed


def test_cards_in_parallel_answer_one_request_sooner() -> None:
    hardware = parse_hardware("4xH200")
    (way, *_) = ways_of_config("Qwen/Qwen3-32B", known_models()["Qwen/Qwen3-32B"].config)
    spent = {}
    for tensor in (1, 4):
        best = choose(
            (replace(way, tensor=tensor),), hardware, Demand(concurrent_requests=1, context_tokens=8192), Ask()
        )
        assert best.best is not None
        found = pace_of(best.best, hardware, Wanted(lengths=lengths_of(8192, None), requests=1), calibration(), PRICES)
        assert found is not None
        spent[tensor] = found.alone.itl_ms.middle
    assert spent[4] < spent[1]


def test_fewer_bytes_per_weight_are_read_sooner() -> None:
    hardware = parse_hardware("1xH100")
    ways = ways_of_recipe(recipes()["autoglm-phone-9b"])
    demand = Demand(concurrent_requests=1, context_tokens=8192)
    spent = {}
    for way in ways:
        best = choose((way,), hardware, demand, Ask()).best
        if best is not None and way.engine == "vllm":
            found = pace_of(best, hardware, Wanted(lengths=lengths_of(8192, None), requests=1), calibration(), PRICES)
            assert found is not None
            spent[way.quantization] = found.alone.itl_ms.middle
    assert spent["fp8"] < spent["none"]


def test_weights_of_a_gguf_file_are_read_at_their_own_size() -> None:
    hardware = parse_hardware("1xRTX4090")
    way = next(way for way in ways_of_recipe(recipes()["autoglm-phone-9b"]) if way.gguf)
    best = choose((way,), hardware, Demand(concurrent_requests=1, context_tokens=8192), Ask()).best
    assert best is not None
    made = deployment_of(best.way, best.capacity, hardware)
    assert made is not None and made.stored.bytes_per_weight is not None
    assert 0.5 < made.stored.bytes_per_weight < 0.75, "four to six bits"


def test_a_price_is_per_hour_of_all_cards_and_a_range_per_token() -> None:
    found = pace("meta-llama/Llama-3.3-70B-Instruct", "4xH100", requests=4, tensor=4)
    assert found.on_demand is not None and found.spot is not None
    assert found.on_demand.usd_per_hour == pytest.approx(8.0) and found.spot.usd_per_hour == pytest.approx(4.0)
    cost, rate = found.on_demand.per_million_output, found.loaded.output_tokens_per_s
    assert cost.low == pytest.approx(8.0 / 3600 / rate.high * 1e6, rel=1e-6)
    assert cost.high == pytest.approx(8.0 / 3600 / rate.low * 1e6, rel=1e-6)


def test_a_price_that_nobody_could_source_is_none_and_not_zero() -> None:
    choice, hardware = chosen("Qwen/Qwen3-8B", "1xH100")
    assert choice.best is not None
    found = pace_of(choice.best, hardware, Wanted(lengths=lengths_of(8192, None), requests=1), calibration(), {})
    assert found is not None and found.on_demand is None and found.spot is None


def test_a_users_price_of_a_card_replaces_ours_and_leaves_the_others() -> None:
    mine = (
        "prices:\n  - card: H100 SXM 80GB\n    on_demand: {usd_per_hour: 1.5, source: contract, date: '2026-11-01'}\n"
    )
    both, ours = load_prices({**texts(), "mine.yaml": mine}), load_prices(texts())
    assert both["H100 SXM 80GB"].on_demand is not None and both["H100 SXM 80GB"].spot is None
    assert both["H100 SXM 80GB"].on_demand.usd_per_hour == 1.5
    assert {name: one for name, one in both.items() if name != "H100 SXM 80GB"} == {
        name: one for name, one in ours.items() if name != "H100 SXM 80GB"
    }


def test_a_price_is_found_for_a_card_as_people_call_it_and_refused_for_none() -> None:
    text = "prices:\n  - card: {card}\n    on_demand: {{usd_per_hour: 1.5, source: mine, date: '2026-11-01'}}\n"
    assert list(load_prices({"mine.yaml": text.format(card="h100")})) == ["H100 SXM 80GB"]
    with pytest.raises(SpecMistakes) as refused:
        load_prices({"mine.yaml": text.format(card="H1000")})
    (mistake,) = refused.value.mistakes
    assert (mistake.line, mistake.field) == (2, "prices[0].card")


def test_every_option_has_its_pace_in_the_plain_answer() -> None:
    recipe = recipes()["autoglm-phone-9b"]
    hardware = parse_hardware("2xRTX4090")
    demand = Demand(concurrent_requests=4, context_tokens=8192)
    found = answer(recipe.name, ways_of_recipe(recipe), hardware, demand, Ask())
    plain = as_plain(with_paces(found, None, calibration(), load_prices(texts())))
    assert len(plain["options"]) > 1
    for option in plain["options"]:
        alone = option["pace"]["alone"]
        assert 0 < alone["itl_ms"]["low"] <= alone["itl_ms"]["middle"] <= alone["itl_ms"]["high"]
        assert alone["step"] and all(term["ms"] >= 0 for term in alone["step"])
    assert all(option["pace"] is None for option in as_plain(found)["options"])


def kept(requests: int, promise: Promise, on: str = "4xH100") -> Pace:
    choice, hardware = chosen("Qwen/Qwen3-8B", on, requests, 8192, tensor=1)
    assert choice.best is not None
    lengths = lengths_of(8192, None)
    found = pace_of(
        choice.best, hardware, Wanted(lengths=lengths, requests=requests, promise=promise), calibration(), PRICES
    )
    assert found is not None
    return found


def test_a_promise_takes_more_replicas_than_memory_alone_and_they_are_what_is_paid() -> None:
    free = kept(16, Promise())
    assert free.kept is None and free.on_demand is not None
    bound = (free.alone.itl_ms.high + free.loaded.itl_ms.high) / 2
    held = kept(16, Promise(itl_ms=bound))
    assert held.kept is not None and held.kept.replicas is not None and held.kept.replicas > 1
    assert held.kept.speed.itl_ms.high <= bound
    assert held.on_demand is not None
    assert held.on_demand.usd_per_hour == pytest.approx(2.0 * held.kept.replicas)


def test_a_promise_that_one_request_alone_breaks_is_kept_by_no_number_of_replicas() -> None:
    found = kept(4, Promise(ttft_ms=1.0))
    assert found.kept is not None
    assert (found.kept.replicas, found.kept.broken, found.on_demand) == (None, "ttft_ms", None)


def test_a_promise_never_takes_fewer_replicas_than_hold_the_demand() -> None:
    hardware = parse_hardware("2xH100")
    (way, *_) = ways_of_recipe(recipes()["qwen3-8b"])
    demand = Demand(concurrent_requests=16, context_tokens=8192)
    best = choose((replace(way, tensor=1),), hardware, demand, Ask(sequences=8)).best
    assert best is not None and best.needed == 2, "eight in a step at most"
    wanted = Wanted(requests=16, lengths=lengths_of(8192, None), promise=Promise(ttft_ms=3_600_000.0))
    found = pace_of(best, hardware, wanted, calibration(), PRICES)
    assert found is not None and found.kept is not None and found.kept.replicas == 2
