"""`gonogo fit --printed LOG`: planned beside what the engine printed, and what later plans take from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gonogo.cli.refusal import WRONG_INPUT, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.engines.capacity import Capacity
    from gonogo.engines.printed import Beside, Printed
    from gonogo.engines.replica_memory import ReplicaMemory
    from gonogo.plan.answer import Answer

GIB = 1024**3
SAME_BUDGET = 0.01
LARGEST_BYTES = 64 * 1024**2


def learn(session: Session, found: Answer, file: str, version_said: bool) -> dict[str, Any]:
    """Compare, print, keep. Raises Refusal: unreadable, nothing in it, another engine or version, nothing planned."""
    from gonogo.engines.printed import beside, corrections, lesson_key
    from gonogo.runtimes.lessons import keep_lesson

    printed = _printed(file)
    seen, memory = _planned(found)
    _same_engine(seen, printed)
    compared = beside(memory, printed)
    _table(session, compared, file)
    _other_share(session, memory, printed)
    key = lesson_key(seen.planner.name, seen.serving.version, seen.device.name, seen.serving.devices)
    learned = corrections(printed, memory, seen.serving.corrections)
    numbers = {"non_torch": learned.non_torch_bytes, "graphs": learned.graphs_factor}
    what = [name for name, number in numbers.items() if number is not None]
    if what and printed.version is None and not version_said:
        what = []
        session.say("fit.printed.no_version")
    elif what:
        keep_lesson(session.paths.root, key, learned)
        named = ", ".join(session.told(f"term.{name}") for name in what)
        session.say("fit.printed.learned", key=key, what=named)
    else:
        session.say("fit.printed.nothing")
    rows = [
        {"name": one.name, "unit": one.unit, "planned": one.planned, "printed": one.printed, "error": one.error}
        for one in compared
    ]
    return {"file": file, "beside": rows, "learned": what, "key": key}


def _printed(file: str) -> Printed:
    from gonogo.engines.printed import parse_printed

    try:
        with Path(file).open("rb") as opened:
            text = opened.read(LARGEST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        words = error.strerror or str(error)
        raise Refusal("LogUnreadable", WRONG_INPUT, {"file": file, "words": words}) from None
    printed = parse_printed(text)
    if printed.empty:
        raise Refusal("LogSaysNothing", WRONG_INPUT, {"file": file})
    return printed


def _planned(found: Answer) -> tuple[Capacity, ReplicaMemory]:
    """What is compared: the chosen option, or where none fits the first way that could be added up."""
    tried = [option.capacity for option in found.choice.options]
    tried += [one.capacity for one in found.choice.fallen if one.capacity is not None]
    for capacity in tried:
        if capacity.memory is not None:
            return capacity, capacity.memory
    hardware = found.hardware
    values = {"model": found.name, "count": hardware.count, "card": hardware.card.name}
    raise Refusal("FitsNot", WRONG_INPUT, values)


def _same_engine(seen: Capacity, printed: Printed) -> None:
    planned = ".".join(map(str, seen.serving.version))
    version = ".".join(map(str, printed.version)) if printed.version is not None else None
    if printed.engine not in (None, seen.planner.name) or version not in (None, planned):
        values = {"seen": f"{printed.engine} {version or ''}".strip(), "planned": f"{seen.planner.title} {planned}"}
        raise Refusal("LogOfAnother", WRONG_INPUT, values)


def _other_share(session: Session, memory: ReplicaMemory, printed: Printed) -> None:
    """Tells when the start was made with another share of the card than the plan."""
    if not printed.budget_bytes or not printed.card_bytes:
        return
    planned = memory.ranks[0].budget_bytes
    if abs(planned / printed.budget_bytes - 1) > SAME_BUDGET:
        share = printed.budget_bytes / printed.card_bytes
        words = {"budget": printed.budget_bytes / GIB, "planned": planned / GIB, "share": share}
        session.say("fit.printed.other_share", **words)


def _table(session: Session, compared: tuple[Beside, ...], file: str) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2), show_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("planned", "printed", "off"):
        table.add_column(session.told(f"fit.printed.{name}"), justify="right", no_wrap=True)
    for one in compared:
        term = f"term.{one.name}" if one.unit == "bytes" and one.name != "cache" else f"fit.term.{one.name}"
        table.add_row(
            "  " + session.told(term), _shown(one, one.planned), _shown(one, one.printed), f"{one.error:+.2%}"
        )
    session.out.print(session.told("fit.printed", file=file), style="bold", markup=False)
    session.out.print(table)


def _shown(one: Beside, value: float) -> str:
    if one.unit == "bytes":
        return f"{value / GIB:.2f} GiB"
    return f"{value:,.2f}" if one.unit == "requests" else f"{value:,.0f}"
