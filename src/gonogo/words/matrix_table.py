"""docs/matrix*.md: which release of which engine runs each recipe on which driver and card. Written by a test."""

from __future__ import annotations

from typing import Iterator, Sequence

from gonogo.facts.engine_build import EngineBuild, Matrix
from gonogo.plan.environment import Choice
from gonogo.plan.matrix_table import CARDS, DRIVERS, MatrixRow, MatrixTables
from gonogo.words.catalogue import message
from gonogo.words.language import Language

OTHER = {"en": "[中文](matrix.zh-CN.md)", "zh": "[English](matrix.md)"}

HEADS = (
    "engine", "version", "python", "torch", "cuda", "nccl", "driver", "capability", "transformers", "openai", "glibc"
)  # fmt: skip


def matrix_page(tables: MatrixTables, known: Matrix, lang: Language) -> str:
    """The whole page in Markdown."""
    return "\n".join(_lines(tables, known, lang)) + "\n"


def _lines(tables: MatrixTables, known: Matrix, lang: Language) -> Iterator[str]:
    def told(name: str) -> str:
        return message(f"matrix.{name}", lang, driver=DRIVERS[-1])

    yield from (told("title"), "", f"{OTHER[lang]} · {told('other')}", "", told("how"), "")
    yield from (told("drivers"), "", told("drivers_how"), "")
    yield from _head([told("recipe"), told("engine"), *DRIVERS])
    yield from _grouped([(row, [_cell(one, known, lang) for one in row.on_drivers]) for row in tables.rows])
    yield from ("", told("cards"), "")
    yield from _head([told("recipe"), told("engine"), *(f"{name} ({capability})" for name, capability in CARDS)])
    yield from _grouped([(row, [_cell(one, known, lang) for one in row.on_cards]) for row in tables.rows])
    yield from ("", told("builds"), "")
    heads = (
        "engine",
        "version",
        "python",
        "torch",
        "cuda",
        "nccl",
        "driver",
        "capability",
        "transformers",
        "openai",
        "glibc",
    )
    yield from _head([told(head) for head in heads])
    for builds in tables.builds.values():
        for build in builds:
            yield _row(_release(build))


def _grouped(rows: Sequence[tuple[MatrixRow, list[str]]]) -> Iterator[str]:
    """Recipes that get the same everywhere share a line."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for row, cells in rows:
        groups.setdefault((row.engine, *cells), []).append(row.recipe)
    for (engine, *cells), recipes in sorted(groups.items(), key=lambda group: (group[1][0], group[0][0])):
        yield _row([", ".join(recipes), engine, *cells])


def _cell(choice: Choice, known: Matrix, lang: Language) -> str:
    if choice.build is not None:
        bad = known.bad_release(choice.build.package, choice.build.version)
        return f"{choice.build.version}{' *' if bad is not None else ''}"
    sides = choice.clash.sides if choice.clash is not None else choice.unseen
    return "✗ " + " ⟷ ".join(message(f"matrix.kind.{side.name}", lang) for side in sides)


def _release(build: EngineBuild) -> list[str]:
    torch = build.torch
    held = [one for one in torch.capabilities if build.runs_on(one)] if torch is not None else []
    capability = ", ".join(held) + ("+" if torch is not None and torch.ptx else "") if build.capability_least else "—"
    return [
        build.title,
        build.version,
        build.python,
        torch.torch if torch is not None else "—",
        build.cuda.cuda if build.cuda is not None else "—",
        (torch.nccl if torch is not None else None) or "—",
        build.driver_least or "—",
        capability,
        (build.transformers or "—").replace(",!=5.0.*,!=5.1.*,!=5.2.*,!=5.3.*,!=5.4.*,!=5.5.0", ",!=5.0…5.5.0"),
        build.openai or "—",
        build.glibc,
    ]


def _head(names: Sequence[str]) -> Iterator[str]:
    yield _row(names)
    yield _row(["---"] * len(names))


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"
