"""`--on`: the spellings that people use, and what names no card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.engines.hardware import MOST_CARDS, HardwareError, card_named, nearest, parse_hardware
from gonogo.facts.accelerator_class import CLASSES
from gonogo.facts.card_limits import CARD_LIMITS

SPELLINGS = {
    "1xRTX4090": (1, "RTX 4090 24GB"),
    "RTX 4090": (1, "RTX 4090 24GB"),
    "4090": (1, "RTX 4090 24GB"),
    "2x4090": (2, "RTX 4090 24GB"),
    "2 x rtx 4090": (2, "RTX 4090 24GB"),
    "rtx-4090-24g": (1, "RTX 4090 24GB"),
    "NVIDIA GeForce RTX 4090": (1, "RTX 4090 24GB"),
    "4×RTX3090": (4, "RTX 3090 24GB"),
    "3090": (1, "RTX 3090 24GB"),
    "1*5090": (1, "RTX 5090 32GB"),
    "8xH100": (8, "H100 SXM 80GB"),
    "8x h100-80gb": (8, "H100 SXM 80GB"),
    "H100-SXM5-80GB": (1, "H100 SXM 80GB"),
    "NVIDIA H100 80GB HBM3": (1, "H100 SXM 80GB"),
    "8xH100PCIe": (8, "H100 PCIe 80GB"),
    "8xH200": (8, "H200 SXM 141GB"),
    "8xH20": (8, "H20 96GB"),
    "8xH800": (8, "H800 80GB"),
    "4xA100": (4, "A100 40GB SXM"),
    "4xA100-80GB": (4, "A100 80GB SXM"),
    "4xA100_80G": (4, "A100 80GB SXM"),
    "4xA100-SXM4-80GB": (4, "A100 80GB SXM"),
    "4xA100 80GB PCIe": (4, "A100 80GB PCIe"),
    "2xA10": (2, "A10 24GB"),
    "L4": (1, "L4"),
    "4xL40S": (4, "L40S"),
    "1xT4": (1, "T4 16GB"),
    "Tesla T4": (1, "T4 16GB"),
    "8xB200": (8, "B200 SXM"),
    "4xGB200": (4, "GB200"),
    "RTX PRO 6000": (1, "RTX PRO 6000 Blackwell Server"),
    "1024xH100": (1024, "H100 SXM 80GB"),
    "  8xH100  ": (8, "H100 SXM 80GB"),
    "008xH100": (8, "H100 SXM 80GB"),
}
NO_CARD = (
    *("", " ", "x", "8x", "8", "x H100", "8xx", "-1xH100", "1.5xH100", "8xH100+8xA100", "H100x8", "8xH\x00100"),
    *("8xH100; rm -rf /", "八xH100", "8xH１００", "1xH100\n8xH200", "99999xH100", "a" * 5000),
)
UNKNOWN = (
    *("H10", "A1", "RTX", "RTX40", "RTX 40", "80GB", "SXM", "6000", "RTX 6000", "RTX A6000", "RTX 6000 Ada", "L40"),
    *("H100 NVL", "H100-94GB", "RTX 4090 Laptop GPU", "RTX 3090 Ti", "4090D", "V100", "TPU v5", "2xGTX1080", "A800"),
)


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_spelling_that_people_use_is_understood(text: str) -> None:
    seen = parse_hardware(text)
    assert (seen.count, seen.card.name) == SPELLINGS[text]
    assert seen.device.total_bytes == seen.limits.usable_bytes > 0


@pytest.mark.parametrize("text", NO_CARD)
def test_nonsense_is_refused_with_a_form_that_works(text: str) -> None:
    with pytest.raises(HardwareError) as caught:
        parse_hardware(text)
    assert caught.value.reason in ("HardwareMistaken", "CardUnknown")
    assert len(str(caught.value.values["asked"])) <= 80


@pytest.mark.parametrize("text", UNKNOWN)
def test_a_card_that_is_not_known_is_never_taken_for_another(text: str) -> None:
    with pytest.raises(HardwareError) as caught:
        parse_hardware(text)
    assert caught.value.reason == "CardUnknown"
    assert caught.value.values["nearest"]


@pytest.mark.parametrize(("text", "count"), [("0xH100", 0), ("1025xH100", 1025), ("9999xH100", 9999)])
def test_a_number_of_cards_has_its_bounds(text: str, count: int) -> None:
    with pytest.raises(HardwareError) as caught:
        parse_hardware(text)
    assert caught.value.reason == "CardCountImpossible"
    assert (caught.value.values["count"], caught.value.values["most"]) == (count, MOST_CARDS)


@pytest.mark.parametrize("text", ["8xMI300X", "Ascend 910B", "MI300X 192GB"])
def test_a_known_card_that_no_engine_plans_for_is_named(text: str) -> None:
    with pytest.raises(HardwareError) as caught:
        parse_hardware(text)
    assert caught.value.reason == "CardNotPlanned"


def test_each_card_of_the_catalogue_is_found_by_its_own_name_and_every_limit_has_its_card() -> None:
    for card in CLASSES:
        found = card_named(card.name)
        assert found is not None and found.name == card.name
    assert set(CARD_LIMITS) <= {card.name for card in CLASSES}


def test_what_a_card_has_for_an_engine_is_a_little_less_than_its_class() -> None:
    for card in CLASSES:
        if card.name in CARD_LIMITS:
            limits = CARD_LIMITS[card.name]
            assert 0.9 * card.nominal_gib < limits.usable_gib <= card.nominal_gib, card.name
            assert ".".join(map(str, limits.capability)) == card.compute_capability, card.name


def test_names_near_a_misspelt_card_are_told() -> None:
    assert nearest("L40")[0] in ("L40S", "L4")
    assert "RTX 4090 24GB" in nearest("RTX 4080")
    assert set(nearest("qqqqqq")) == set(CARD_LIMITS)


@given(st.text(max_size=80))
def test_any_text_names_cards_or_is_refused(text: str) -> None:
    try:
        seen = parse_hardware(text)
    except HardwareError as error:
        assert error.reason in ("HardwareMistaken", "CardCountImpossible", "CardUnknown", "CardNotPlanned")
    else:
        assert 1 <= seen.count <= MOST_CARDS
