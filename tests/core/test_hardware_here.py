"""The cards of this machine as plans take them: what the driver said, what is in use, and what is not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gonogo.engines.hardware import CONTEXT_BYTES, HardwareError, hardware_here
from gonogo.facts.accelerator import Accelerator
from gonogo.facts.catalogue import known_models
from gonogo.facts.parse_accelerators import parse_accelerators
from gonogo.plan.answer import answer
from gonogo.plan.capacity import Ask, Fit
from gonogo.plan.choose import Demand
from gonogo.plan.ways import ways_of_config

CASES = Path(__file__).parents[1] / "cases" / "facts" / "accelerators"
GIB = 1024**3
H100 = Accelerator(
    index=0,
    name="NVIDIA H100 80GB HBM3",
    memory_total_bytes=85_520_809_984,
    memory_used_bytes=0,
    memory_free_bytes=85_520_809_984,
    compute_capability="9.0",
)


def test_known_cards_are_planned_with_what_an_engine_sees_of_them() -> None:
    hardware = hardware_here((H100, replace(H100, index=1)))
    assert (hardware.count, hardware.card.name) == (2, "H100 SXM 80GB")
    assert hardware.device.total_bytes == pytest.approx(79.19 * GIB, rel=1e-3)
    assert hardware.device.free_bytes == hardware.device.total_bytes - CONTEXT_BYTES


def test_the_fullest_card_decides_what_is_free() -> None:
    held = replace(H100, index=1, memory_free_bytes=10 * GIB)
    assert hardware_here((H100, held)).device.free_bytes == 10 * GIB - CONTEXT_BYTES


def test_of_several_kinds_those_are_taken_that_there_are_most_of() -> None:
    other = replace(H100, name="NVIDIA L4", memory_total_bytes=24 * GIB, memory_free_bytes=24 * GIB)
    assert hardware_here((other, H100, replace(H100, index=2))).card.name == "H100 SXM 80GB"


def test_a_card_that_no_table_knows_is_planned_from_its_driver_and_on_the_safe_side() -> None:
    unlisted = replace(H100, name="NVIDIA RTX 9999", memory_total_bytes=48 * GIB, memory_free_bytes=48 * GIB)
    hardware = hardware_here((unlisted,))
    assert hardware.card.name == "NVIDIA RTX 9999"
    assert 46 * GIB < hardware.device.total_bytes < 48 * GIB
    assert not hardware.limits.printed
    assert hardware.limits.processors >= 188, "more than the largest card that is known"


@pytest.mark.parametrize(
    ("accelerators", "reason"),
    [
        (None, "CardsHereUnknown"),
        ((), "NoCardsHere"),
        ((replace(H100, partitioned=True),), "CardsHereCut"),
        ((replace(H100, memory_total_bytes=None),), "CardsHereShareMemory"),
        ((replace(H100, name="NVIDIA Odd", compute_capability=None),), "CardUnknown"),
    ],
)
def test_what_cannot_be_planned_for_is_said_and_never_guessed(
    accelerators: tuple[Accelerator, ...] | None, reason: str
) -> None:
    with pytest.raises(HardwareError) as refused:
        hardware_here(accelerators)
    assert refused.value.reason == reason


def test_what_drivers_really_printed_gives_cards_or_a_reason() -> None:
    seen = {path.stem: parse_accelerators(path.read_text()).accelerators for path in CASES.glob("*.txt")}
    outcomes = {}
    for name, accelerators in seen.items():
        try:
            outcomes[name] = hardware_here(accelerators).card.name
        except HardwareError as error:
            outcomes[name] = error.reason
    assert outcomes["driver-mismatch"] == "CardsHereUnknown"
    assert outcomes["no-devices"] == "NoCardsHere"
    assert outcomes["a100-mig"] == "CardsHereCut"
    assert outcomes["h100-held"] == "H100 SXM 80GB"
    assert outcomes["gb10-unified-memory"] == "CardsHereShareMemory"


def test_a_card_that_something_else_holds_is_said_to_be_in_use_and_freeing_it_is_a_remedy() -> None:
    name = "Qwen/Qwen3-8B"
    hardware = hardware_here((replace(H100, memory_free_bytes=12 * GIB),))
    ways = ways_of_config(name, known_models()[name].config, engine="vllm")
    found = answer(name, ways[:1], hardware, Demand(concurrent_requests=1, context_tokens=8192), Ask())
    assert found.fit is Fit.DOES_NOT_FIT
    assert [fallen.reason for fallen in found.choice.fallen] == ["CardInUse"]
    assert "RemedyFreeCards" in [remedy.reason for remedy in found.remedies]


def test_a_card_of_which_enough_is_free_needs_only_a_smaller_share() -> None:
    name = "Qwen/Qwen3-8B"
    hardware = hardware_here((replace(H100, memory_free_bytes=60 * GIB),))
    ways = ways_of_config(name, known_models()[name].config, engine="vllm")
    found = answer(name, ways[:1], hardware, Demand(concurrent_requests=1, context_tokens=8192), Ask())
    first = found.remedies[0]
    assert first.reason == "RemedyShare"
    assert float(first.values["share"]) == 0.75
    assert first.capacity.fit in (Fit.FITS, Fit.TIGHT)
