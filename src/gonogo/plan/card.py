"""A card's data sheet (`gonogo.facts.accelerator_class`) → what its speed follows from. Pure."""

from __future__ import annotations

from gonogo.facts.accelerator_class import AcceleratorClass
from gonogo.plan.roofline import Card


def card_of(found: AcceleratorClass) -> Card | None:
    """None where nobody could source the bandwidth of its memory: then no speed can be said."""
    if found.memory_bytes_per_s is None:
        return None
    capability = _capability(found.compute_capability)
    return Card(
        name=found.name,
        generation=generation(found.name, capability),
        memory_bytes_per_s=found.memory_bytes_per_s,
        flops_fp16=found.flops_fp16,
        link_bytes_per_s=found.link_bytes_per_s,
        capability=capability,
    )


def generation(name: str, capability: tuple[int, int] | None) -> str:
    """Cards that behave alike: the maker's generation, cards with stacked memory (HBM) apart from the others."""
    if capability is None:
        return "amd" if name.startswith("MI") else "other"
    return next((kind for since, kind in _GENERATIONS if capability >= since), "older")


def _capability(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


_GENERATIONS = (
    ((12, 0), "blackwell-gddr"),
    ((10, 0), "blackwell"),
    ((9, 0), "hopper"),
    ((8, 9), "ada"),
    ((8, 6), "ampere-gddr"),
    ((8, 0), "ampere"),
    ((7, 0), "turing"),
)
