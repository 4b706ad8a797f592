"""Which cards a plan is made for: `--on 1xRTX4090`, `8xH100`, `4xA100-80GB` by name, or those of this machine. Pure."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Sequence

from gonogo.engines.serving import Device
from gonogo.facts.accelerator import Accelerator
from gonogo.facts.accelerator_class import CLASSES, AcceleratorClass, accelerator_class
from gonogo.facts.card_limits import CARD_LIMITS, CardLimits

GIB = 1024**3
MOST_CARDS = 1024
USABLE_OF_REPORTED = 0.98
"""Of the memory that a driver reports, what an engine sees: 23.53 of 23.99 GiB (RTX 4090), 79.19 of 79.65 (H100)."""
HELD_BELOW = 0.95
"""Of a card's memory: with less of it free something else is there. An idle card shows 98 to 99 % after the context."""
CONTEXT_BYTES = 512 * 1024**2
"""Taken by the driver's context before an engine looks at what is free (612 MiB on an H100 of driver 580)."""
MOST_PROCESSORS = 192
"""Of a card that no table knows: more multiprocessors take more buffers, so that a plan errs on the safe side."""
_FORM = re.compile(r"(?:(\d{1,4})\s*[x×*]\s*)?([A-Za-z0-9][A-Za-z0-9 ._-]{1,60})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """So many cards of one kind in one machine."""

    count: int
    card: AcceleratorClass
    limits: CardLimits
    free_bytes: int | None = None
    """On the fullest of them, where they were looked at, less the context of what is started; None: idle cards."""

    @property
    def held_free_gib(self) -> float | None:
        """GiB free on the fullest of them where something else holds memory; None: idle cards."""
        if self.free_bytes is None or self.free_bytes >= HELD_BELOW * self.limits.usable_bytes:
            return None
        return self.free_bytes / GIB

    @property
    def device(self) -> Device:
        """One of them."""
        return Device(
            name=self.card.name,
            total_bytes=self.limits.usable_bytes,
            free_bytes=self.free_bytes,
            processors=self.limits.processors,
            capability=self.limits.capability,
        )


class HardwareError(ValueError):
    """What stands in `--on` names no card that can be planned for. `reason` is a stable code, `values` its numbers."""

    def __init__(self, reason: str, **values: str | int) -> None:
        super().__init__(f"{reason}: {values}")
        self.reason, self.values = reason, values


def parse_hardware(text: str) -> Hardware:
    """`COUNTxCARD`, the count 1 when absent. Raises HardwareError: not of this form, too many, an unknown card."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise HardwareError("HardwareMistaken", asked=text[:80])
    count = int(found.group(1) or 1)
    if not 1 <= count <= MOST_CARDS:
        raise HardwareError("CardCountImpossible", asked=text[:80], count=count, most=MOST_CARDS)
    card = card_named(found.group(2))
    if card is None:
        raise HardwareError("CardUnknown", asked=found.group(2).strip(), nearest=", ".join(nearest(found.group(2))))
    if card.name not in CARD_LIMITS:
        raise HardwareError("CardNotPlanned", asked=card.name)
    return Hardware(count=count, card=card, limits=CARD_LIMITS[card.name])


def hardware_here(accelerators: Sequence[Accelerator] | None) -> Hardware:
    """The cards of this machine: of several kinds those that there are most of. What is in use on them is not free.

    Raises HardwareError: not known, none, all cut into slices (MIG), lost, or without memory of their own, or a card
    that neither a table nor its driver says enough of.
    """
    if accelerators is None:
        raise HardwareError("CardsHereUnknown")
    if not accelerators:
        raise HardwareError("NoCardsHere")
    whole = [one for one in accelerators if is_whole(one)]
    if not whole:
        trouble = next((one.health.trouble for one in accelerators if one.health.trouble is not None), None)
        if trouble is not None:
            raise HardwareError("CardsHereUnknown", words=trouble)
        seen: dict[str, str | int] = {"count": len(accelerators), "card": accelerators[0].name}
        if any(one.partitioned for one in accelerators):
            raise HardwareError("CardsHereCut", **seen)
        raise HardwareError("CardsHereShareMemory", **seen)
    names = [one.name for one in whole]
    name = max(dict.fromkeys(names), key=names.count)
    alike = [one for one in whole if one.name == name]
    total = min(one.memory_total_bytes or 0 for one in alike)
    free = [one.memory_free_bytes for one in alike if one.memory_free_bytes is not None]
    known = accelerator_class(name)
    limits = CARD_LIMITS.get(known.name) if known is not None else None
    if limits is None and alike[0].compute_capability is None:
        raise HardwareError("CardUnknown", asked=name, nearest=", ".join(nearest(name)))
    usable = limits.usable_bytes if limits is not None else round(total * USABLE_OF_REPORTED)
    return Hardware(
        count=len(alike),
        card=known or _unlisted(alike[0], total),
        limits=limits or _limits(alike[0], usable),
        free_bytes=max(0, min([usable, *free]) - CONTEXT_BYTES) if free else None,
    )


def is_whole(card: Accelerator) -> bool:
    """Whether a replica can be given this card: not cut into slices, not lost, with memory of its own."""
    return not card.partitioned and bool(card.memory_total_bytes) and card.health.trouble is None


def card_named(name: str) -> AcceleratorClass | None:
    """The card that people call so. Of several that fit (`A100`, `H100`) the first of the catalogue: smallest, SXM.

    Every word must be one of the card's own, so that an A10 is no A100; left out may be its size, its form and `RTX`.
    """
    words = _words(name)
    return next((card for card in CLASSES if _names(words, _words(card.name))), None)


def card_limits(card: AcceleratorClass) -> CardLimits | None:
    """What an engine finds on such a card; None: no engine here plans for it."""
    return CARD_LIMITS.get(card.name)


def nearest(name: str) -> tuple[str, ...]:
    """Cards whose names look like this one; all of them when none does."""
    plain = {_plain(card.name): card.name for card in CLASSES if card.name in CARD_LIMITS}
    close = difflib.get_close_matches(_plain(name), list(plain), n=3, cutoff=0.4)
    return tuple(plain[one] for one in close) or tuple(plain.values())


def _unlisted(seen: Accelerator, total_bytes: int) -> AcceleratorClass:
    """A card that no table knows: its name and memory, and nothing that was not seen."""
    return AcceleratorClass(
        name=seen.name,
        pattern="",
        nominal_gib=total_bytes / GIB,
        flops_fp16=None,
        memory_bytes_per_s=None,
        compute_capability=seen.compute_capability,
        interconnect="",
        link_bytes_per_s=None,
        source="as its driver says",
    )


def _limits(seen: Accelerator, usable_bytes: int) -> CardLimits:
    major, _, minor = (seen.compute_capability or "0.0").partition(".")
    return CardLimits(
        usable_gib=usable_bytes / GIB,
        printed=False,
        processors=MOST_PROCESSORS,
        capability=(int(major or 0), int(minor or 0)),
        flops_8bit=None,
    )


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", _SILENT.sub("", name.lower())) if word]


def _names(asked: list[str], own: list[str]) -> bool:
    """Whether all that is asked is of this card (several words may be written as one), and nothing that matters is
    missing."""
    said: set[str] = set()
    for word in asked:
        rest = word
        while rest:
            found = next((one for one in own if rest.startswith(one) or f"{rest}b" == one), None)
            if found is None:
                return False
            said.add(found)
            rest = rest[len(found) :]
    return bool(said) and all(_MAY_MISS.fullmatch(one) for one in own if one not in said)


_SILENT = re.compile(r"nvidia|geforce|tesla|amd|instinct|hbm\d\w?|(?<=sxm)\d")
_MAY_MISS = re.compile(r"\d+gb|sxm|pcie|rtx|blackwell|server|ascend|class")
