"""The checklist on a terminal: ✓ ✗ ? – lines by condition, with numbers, what to do, and which page explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, Mapping

from gonogo.api.report.checklist import by_condition, latest
from gonogo.words import finding_text

if TYPE_CHECKING:
    from rich.table import Table

    from gonogo.cli.session import Session

SIGNS = {
    "pass": ("✓", "green"),
    "fail": ("✗", "bold red"),
    "unknown": ("?", "bold yellow"),
    "not_applicable": ("–", "dim"),
}
ADVICE = "yellow"


def print_checklist(session: Session, answers: Iterable[Mapping[str, Any]]) -> None:
    """The latest answer to each question."""
    for condition, group in by_condition(latest(answers)):
        session.line()
        session.out.print(session.told(f"condition.{condition}"), style="bold", markup=False)
        session.out.print(_table(session, group))


def _table(session: Session, answers: Iterable[Mapping[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    found = tuple(_once(session, answers))
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, min_width=_widest(found) if session.out.width >= 72 else None)
    table.add_column(ratio=1, overflow="fold")
    for answer in found:
        sign, style = SIGNS[answer["verdict"]]
        text = finding_text(answer["reason"], answer["values"], session.lang)
        if answer["verdict"] in ("fail", "unknown"):
            told = _told(session, answer, text.seen, text.remedy)
            style = style if answer["blocks"] else ADVICE
        else:
            told = Text(f"{answer['titles']}: {text.seen}" if "titles" in answer else text.seen)
        table.add_row(Text(f" {sign}", style=style), Text(answer["reason"], style=style), told)
    return table


def _once(session: Session, answers: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Questions that do not arise for one and the same reason share a line, which names them."""
    kept: list[dict[str, Any]] = []
    for answer in answers:
        if answer["verdict"] != "not_applicable":
            kept.append(dict(answer))
            continue
        title, why = session.told(f"check.{answer['check']}"), answer["values"].get("why")
        same = [one for one in kept if one["verdict"] == "not_applicable" and one["values"].get("why") == why]
        if same:
            same[0]["titles"] += f"{'、' if session.lang == 'zh' else ', '}{title}"
        else:
            kept.append({**answer, "titles": title})
    return kept


def _told(session: Session, answer: Mapping[str, Any], seen: str, remedy: str | None) -> Any:
    from rich.text import Text

    told = Text(seen)
    told.append(f"  ({answer['subject']})", style="dim")
    if not answer["blocks"]:
        told.append("  " + session.told("checklist.advice"), style="dim")
    if remedy:
        told.append(f"\n→ {remedy}")
    told.append(f"\ngonogo explain {answer['reason']}", style="dim")
    return told


def _widest(answers: Iterable[Mapping[str, Any]]) -> int:
    return max((len(answer["reason"]) for answer in answers), default=0)
