"""docs/fit*.md: how each recipe fits each card, and what each form of its weights takes. Written by a test."""

from __future__ import annotations

from typing import Iterator, Sequence

from gonogo.engines.capacity import Fit
from gonogo.engines.planners import PLANNERS
from gonogo.plan.choose import NONE, Option, Way
from gonogo.plan.fit_table import Cell, FitTables
from gonogo.words.catalogue import message
from gonogo.words.language import Language

GIB = 1024**3
OTHER = {"en": "[中文](fit.zh-CN.md)", "zh": "[English](fit.md)"}
"""The page in the other language."""


def fit_page(tables: FitTables, lang: Language) -> str:
    """The whole page in Markdown."""
    return "\n".join(_lines(tables, lang)) + "\n"


def _lines(tables: FitTables, lang: Language) -> Iterator[str]:
    other = f"{OTHER[lang]} · {message('fit_table.other', lang)}"
    newest = ", ".join(f"{one.title} {one.newest_text}" for one in PLANNERS.values() if not one.alone)
    yield from (message("fit_table.title", lang), "", other, "", message("fit_table.how", lang, engines=newest), "")
    yield from (message("fit_table.cells", lang), "")
    names = [one.card.name for one in tables.cards]
    yield _row([message("fit_table.recipe", lang), *names])
    yield _row(["---", *["---"] * len(names)])
    for recipe in tables.recipes:
        row = [_cell(one, lang) for one in tables.cells[recipe.name]]
        yield _row([f"{recipe.name} ({recipe.context_tokens:,})", *row])
    yield from ("", message("fit_table.forms", lang), "", message("fit_table.forms_how", lang), "")
    heads = ("recipe", "form", "engine", "weights", "request", "alone")
    yield _row([message(f"fit_table.{head}", lang) for head in heads])
    yield _row(["---", "---", "---", "--:", "--:", "---"])
    order = [one.card.name for one in tables.cards]
    for recipe in tables.recipes:
        for form in tables.forms[recipe.name]:
            request = "—" if form.request_bytes is None else f"{form.request_bytes / GIB:.2f}"
            named = _form(form.way, lang)
            engine = PLANNERS[form.way.engine].title
            alone = _alone(form.cards, order, lang)
            yield _row([recipe.name, named, engine, f"{form.weights_bytes / GIB:.2f}", request, alone])


def _alone(cards: Sequence[str], order: Sequence[str], lang: Language) -> str:
    """`RTX 5090 32GB and larger`, or the cards by name where the larger ones are not all among them."""
    if not cards:
        return "—"
    if list(cards) == list(order[-len(cards) :]) and len(cards) > 1:
        return message("fit_table.and_larger", lang, card=cards[0])
    return ", ".join(cards)


def _cell(cell: Cell, lang: Language) -> str:
    """`2× fp8 13`: on two cards, in FP8, 13 requests. A question mark: tight."""
    if cell.option is None:
        return "✗"
    option: Option = cell.option
    count = f"{cell.count}× " if cell.count > 1 else ""
    form = "" if option.way.quantization == NONE else f"{_form(option.way, lang)} "
    tight = " !" if option.capacity.fit is Fit.TIGHT else ""
    return f"{count}{form}**{option.requests}**{tight}"


def _form(way: Way, lang: Language) -> str:
    if way.quantization == NONE:
        return message("fit_table.none", lang)
    name = "fit_table.online" if way.online else "fit_table.gguf" if way.gguf else None
    return message(name, lang, quantization=way.quantization) if name is not None else way.quantization


def _row(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"
