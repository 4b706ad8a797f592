"""The classes of cards: found by the names that drivers print, and no card is taken for its neighbour."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.facts.accelerator_class import CLASSES, GIB, accelerator_class, nominal_gib

NAMES = {
    "NVIDIA A100-SXM4-40GB": "A100 40GB SXM",
    "A100-SXM4-80GB": "A100 80GB SXM",
    "NVIDIA A100 80GB PCIe": "A100 80GB PCIe",
    "NVIDIA H100 80GB HBM3": "H100 SXM 80GB",
    "NVIDIA H100 PCIe": "H100 PCIe 80GB",
    "NVIDIA H200": "H200 SXM 141GB",
    "NVIDIA B200": "B200 SXM",
    "NVIDIA GB200": "GB200",
    "NVIDIA L40S": "L40S",
    "NVIDIA L4": "L4",
    "Tesla T4": "T4 16GB",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTX PRO 6000 Blackwell Server",
    "NVIDIA H20": "H20 96GB",
    "NVIDIA H800": "H800 80GB",
    "NVIDIA A10": "A10 24GB",
    "NVIDIA A10G": "A10 24GB",
    "NVIDIA GeForce RTX 4090": "RTX 4090 24GB",
    "NVIDIA GeForce RTX 3090": "RTX 3090 24GB",
    "NVIDIA GeForce RTX 5090": "RTX 5090 32GB",
    "AMD Instinct MI300X OAM": "MI300X 192GB",
    "Ascend 910B3": "Ascend 910B (64GB class)",
}


@pytest.mark.parametrize(("name", "expected"), sorted(NAMES.items()))
def test_the_name_that_a_driver_prints_finds_its_class(name: str, expected: str) -> None:
    found = accelerator_class(name)
    assert found is not None and found.name == expected


def test_every_class_is_found_by_some_name_and_names_its_source() -> None:
    assert {one.name for one in CLASSES} == set(NAMES.values())
    assert all(one.source for one in CLASSES)


@pytest.mark.parametrize(
    "name",
    [
        *("NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D"),
        *("NVIDIA GeForce RTX 3090 Ti", "NVIDIA L40", "NVIDIA H20-3e", "NVIDIA A100-PCIE-40GB", "NVIDIA GB10", ""),
    ],
)
def test_another_card_with_a_name_alike_has_no_class(name: str) -> None:
    assert accelerator_class(name) is None


@pytest.mark.parametrize(
    ("name", "mebibytes", "nominal"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, 80),
        ("NVIDIA L40S", 46068, 45),
        ("NVIDIA A100-PCIE-40GB", 40960, 40),
        ("NVIDIA H100 NVL", 95830, 94),
        ("NVIDIA RTX A6000", 49140, 48),
        ("NVIDIA A40", 46068, 48),
        ("Tesla V100-SXM2-32GB", 32510, 32),
        ("Tesla T4", 15360, 16),
        ("Some card", 51200, 50),
    ],
)
def test_the_memory_class_is_known_by_name_or_is_the_next_common_size(name: str, mebibytes: int, nominal: int) -> None:
    assert nominal_gib(name, mebibytes * 1024**2) == nominal


def test_memory_that_a_driver_does_not_report_has_no_class() -> None:
    assert nominal_gib("NVIDIA GB10", None) is None
    assert nominal_gib("NVIDIA H100 80GB HBM3", None) == 80


@given(st.integers(min_value=1, max_value=400 * GIB))
def test_the_class_is_never_less_than_what_is_reported_nor_more_than_a_tenth_and_one_above(size: int) -> None:
    found = nominal_gib("a card nobody knows", size)
    assert found is not None
    assert size / GIB <= found <= max(size / GIB * 1.10, size / GIB + 1)
