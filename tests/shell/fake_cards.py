"""A host with other cards: an nvidia-smi on the search path, made of a recorded output with these words replaced."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

RECORDED = Path(__file__).parents[1] / "cases" / "facts" / "accelerators" / "two-h100.txt"
NEWEST_DRIVER = "580.105.08"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What its driver says of a kind of card."""

    name: str
    total_mib: int
    free_mib: int
    capability: str


RTX_4090 = Card(name="NVIDIA GeForce RTX 4090", total_mib=24564, free_mib=24080, capability="8.9")
H100 = Card(name="NVIDIA H100 80GB HBM3", total_mib=81559, free_mib=81080, capability="9.0")
V100 = Card(name="Tesla V100-SXM2-32GB", total_mib=32768, free_mib=32480, capability="7.0")


def with_cards(folder: Path, card: Card, count: int = 1, driver: str = NEWEST_DRIVER) -> Mapping[str, str]:
    """The environment of a host with so many of these cards, all of them idle."""
    made = folder / "cards"
    made.mkdir(exist_ok=True)
    (made / "seen.xml").write_text(_seen(card, count, driver))
    (made / "capabilities.txt").write_text("".join(f"{uuid(index)}, {card.capability}\n" for index in range(count)))
    program = made / "nvidia-smi"
    answers = f'"-q -x") cat {made}/seen.xml;; "topo -m") exit 1;; *) cat {made}/capabilities.txt;;'
    program.write_text(f'#!/bin/sh\ncase "$*" in {answers} esac\n')
    program.chmod(0o755)
    return {"PATH": f"{made}{os.pathsep}{os.environ['PATH']}"}


def uuid(index: int) -> str:
    """The name of one of them to the driver."""
    return f"GPU-{index:08x}-0000-0000-0000-{index:012x}"


def _seen(card: Card, count: int, driver: str) -> str:
    head, one, _, tail = re.split(r"(?=\t<gpu )|(?<=</gpu>\n)(?!\t<gpu )", RECORDED.read_text())
    for before, after in (
        ("NVIDIA H100 80GB HBM3", card.name),
        ("<total>81559 MiB</total>", f"<total>{card.total_mib} MiB</total>"),
        ("<free>81080 MiB</free>", f"<free>{card.free_mib} MiB</free>"),
    ):
        assert before in one
        one = one.replace(before, after, 1)
    gpus = "".join(one.replace(uuid(0), uuid(index)) for index in range(count))
    head = head.replace(NEWEST_DRIVER, driver).replace("<attached_gpus>2<", f"<attached_gpus>{count}<")
    return f"{head}{gpus}{tail}"
