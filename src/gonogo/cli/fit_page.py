"""How `gonogo fit` shows its answer on a terminal of 80 columns: the verdict, the addition, runners-up, remedies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

from gonogo.cli.fit_pace import print_pace
from gonogo.words import finding_text

if TYPE_CHECKING:
    from gonogo.cli.session import Session

GIB = 1024**3
CARDS_OF_A_MACHINE = 8
SIGNS = {"fits": ("✓", "green"), "tight": ("!", "bold yellow"), "unknown": ("?", "bold yellow")}
NO = ("✗", "bold red")
Plain = Mapping[str, Any]


def print_answer(session: Session, answer: Plain, terms: bool) -> None:
    """The whole answer. `terms`: with the source of each number."""
    hardware, asked = answer["hardware"], answer["asked"]
    session.line()
    title = session.told("fit.title", model=answer["model"], count=hardware["count"], card=hardware["card"])
    session.out.print(title, style="bold", markup=False)
    known = session.told(f"fit.known_from.{answer['weights_known_from']}")
    session.say("fit.model", count=_count(answer["parameters"]), known_from=known, origin=answer["origin"])
    session.say("fit.asked", requests=asked["concurrent_requests"], tokens=asked["context_tokens"])
    session.line()
    best = answer["options"][0] if answer["options"] else None
    _verdict(session, answer, best)
    if best is not None:
        _addition(session, best, asked["context_tokens"], terms)
        if best["capacity"]["fit"] != "unknown":
            print_pace(session, best["pace"], best["cards_needed"])
    elif answer["fallen"] and answer["fallen"][0]["capacity"] is not None:
        _addition(session, answer["fallen"][0], asked["context_tokens"], terms)
    _runners_up(session, answer)
    _fallen(session, answer)
    _remedies(session, answer)
    session.line()


def way_text(session: Session, entry: Plain) -> str:
    """`vLLM 0.33.0, 16 bit as trained`."""
    capacity = entry.get("capacity")
    version = capacity["engine_version"] if capacity else None
    quantization = entry["quantization"]
    if entry["online"]:
        form = session.told("fit.form.online", quantization=quantization.upper())
    elif entry["gguf"]:
        form = session.told("fit.form.gguf", quantization=quantization, source=entry["source"])
    elif quantization == "none":
        form = session.told("fit.form.none")
    else:
        form = session.told("fit.form.published", quantization=quantization, source=entry["source"])
    return session.told("fit.way", engine=entry["engine_title"], version=version, form=form)


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.2f} M"


def _verdict(session: Session, answer: Plain, best: Plain | None) -> None:
    if best is None:
        name = "fit.does_not_fit_so" if answer["narrowed"] else "fit.does_not_fit"
        _signed(session, NO, session.told(name), bold=True)
        return
    capacity = best["capacity"]
    _signed(session, SIGNS[capacity["fit"]], session.told(f"fit.{capacity['fit']}", way=way_text(session, best)), True)
    devices = capacity["tensor_parallel"] * capacity["pipeline_parallel"]
    if devices == 1:
        _more(session, "fit.one_card", replicas=best["replicas"])
    else:
        stages = capacity["pipeline_parallel"] if capacity["pipeline_parallel"] > 1 else None
        _more(session, "fit.cards", devices=devices, replicas=best["replicas"], stages=stages)
    unused = answer["hardware"]["count"] - devices * best["replicas"]
    if unused > 0:
        _more(session, "fit.unused", count=unused)
    if devices > CARDS_OF_A_MACHINE:
        _more(session, "fit.machines", count=devices)
    asked = answer["asked"]
    tokens, wanted = asked["context_tokens"], asked["concurrent_requests"]
    if answer["holds_demand"]:
        _more(session, "fit.holds", requests=best["requests_in_all"], tokens=tokens)
    else:
        _more(session, "fit.holds_less", requests=best["requests_in_all"], asked=wanted, tokens=tokens)
    if best["spare_bytes"] is not None and answer["holds_demand"]:
        _more(session, "fit.margin", gib=best["spare_bytes"] / GIB)
    _cautions(session, answer, best)


def _cautions(session: Session, answer: Plain, best: Plain) -> None:
    """What to know before relying on it."""
    capacity = best["capacity"]
    if capacity["fit"] == "tight":
        _tight(session, capacity)
    if best["online"]:
        _more(session, "fit.online_why")
    if answer["oddity"] is not None:
        _more(session, "fit.oddity", oddity=answer["oddity"])
    if not answer["hardware"]["usable_printed"]:
        _more(session, "fit.planned_card")


def _tight(session: Session, capacity: Plain) -> None:
    if not capacity["strained"]:
        _more(session, "fit.tight_why")
    elif capacity["prompt_tokens"] is not None:
        _more(session, "fit.prompt_why", tokens=capacity["prompt_tokens"])
    else:
        _more(session, "fit.strained_why", share=capacity["share"])


def _addition(session: Session, entry: Plain, context_tokens: int, terms: bool) -> None:
    """Card, budget, less each term, the cache; beside it one request of the asked length."""
    from rich.table import Table
    from rich.text import Text

    capacity = entry["capacity"]
    memory, cache = capacity.get("memory"), capacity.get("cache")
    if memory is None:
        return
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, overflow="fold", style="dim")

    def row(label: str, size_bytes: int, note: str = "", style: str = "") -> None:
        table.add_row(Text("  " + label, style=style), Text(f"{size_bytes / GIB:8.2f}", style=style), Text(note))

    row(session.told("fit.row.card"), memory["card_bytes"])
    row(_budget(session, capacity), memory["budget_bytes"], _flag(capacity))
    for term in memory["terms"]:
        row(f"− {session.told('term.' + term['name'])}", term["size_bytes"], _note(session, entry, term, terms))
    held = _held(session, cache) if cache is not None and memory["cache_bytes"] > 0 else ""
    row(session.told("fit.row.cache"), memory["cache_bytes"], held, "bold" if memory["cache_bytes"] > 0 else NO[1])
    if cache is not None:
        row("  " + session.told("fit.row.one", tokens=context_tokens), cache["request_bytes"])
    for term in memory["outside"]:
        name = session.told("term." + term["name"])
        row(session.told("fit.row.outside", name=name), term["size_bytes"], term["source"] if terms else "")
    session.line()
    session.out.print(session.told("fit.addition"), style="bold", markup=False)
    session.out.print(table)


def _budget(session: Session, capacity: Plain) -> str:
    if capacity["share_flag"] is None:
        return session.told("fit.row.free")
    return session.told("fit.row.budget", share=capacity["share"])


def _flag(capacity: Plain) -> str:
    return f"{capacity['share_flag']} {capacity['share']:.2f}" if capacity["share_flag"] else ""


def _held(session: Session, cache: Plain) -> str:
    return session.told(
        "fit.note.cache", tokens=cache["tokens"], blocks=cache["blocks"], block_tokens=cache["block_tokens"]
    )


def _note(session: Session, entry: Plain, term: Plain, terms: bool) -> str:
    if terms:
        return str(term["source"])
    if term["name"] == "weights" and entry["bytes_per_weight"] is not None:
        tensor, stages = entry["capacity"]["tensor_parallel"], entry["capacity"]["pipeline_parallel"]
        words = {"tensor": tensor, "stages": stages if stages > 1 else None}
        return session.told("fit.note.weights", bytes=entry["bytes_per_weight"], **words)
    return ""


def _runners_up(session: Session, answer: Plain) -> None:
    others = answer["options"][1:]
    if not others:
        return
    session.line()
    session.out.print(session.told("fit.also"), style="bold", markup=False)
    best = answer["options"][0]
    for entry in others:
        capacity = entry["capacity"]
        text = session.told(
            "fit.also.line",
            way=way_text(session, entry),
            devices=capacity["tensor_parallel"] * capacity["pipeline_parallel"],
            replicas=entry["replicas"],
            requests=entry["requests_in_all"],
        )
        why = session.told(f"fit.why.{_why(best, entry, answer['asked']['concurrent_requests'])}")
        _signed(session, SIGNS[capacity["fit"]], session.told("fit.why", text=text, why=why))


def _why(best: Plain, entry: Plain, wanted: int) -> str:
    """Why it was not chosen: the first of the ranking's questions that it answers worse."""
    if entry["capacity"]["fit"] == "unknown":
        return "unknown"
    if entry["requests_in_all"] < min(wanted, best["requests_in_all"]):
        return "fewer"
    if entry["bits"] < best["bits"]:
        return "quantized"
    if entry["capacity"]["fit"] == "tight" and best["capacity"]["fit"] != "tight":
        return "tight"
    return "cards" if entry["cards_needed"] > best["cards_needed"] else "later"


def _fallen(session: Session, answer: Plain) -> None:
    if not answer["fallen"]:
        return
    session.line()
    session.out.print(session.told("fit.fell"), style="bold", markup=False)
    for entry in answer["fallen"]:
        seen = finding_text(entry["reason"], _in_gib(entry["values"]), session.lang).seen
        cards = entry["tensor_parallel"] * entry["pipeline_parallel"]
        line = {"way": way_text(session, entry), "cards": cards if cards > 1 else None, "why": seen}
        _signed(session, NO, session.told("fit.fallen.line", **line))


def _in_gib(values: Plain) -> dict[str, Any]:
    """The values with sizes as people read them; what is left below zero is what is missing."""
    sizes = {f"{name}_gib": values[name] / GIB for name in ("slack", "reserve", "free", "budget") if name in values}
    missing = {"missing_gib": -values["left"] / GIB} if "left" in values else {}
    return {**values, **sizes, **missing}


def _remedies(session: Session, answer: Plain) -> None:
    if not answer["remedies"]:
        if not answer["options"]:
            session.line()
            session.say("fit.nothing_found")
        return
    first = next(
        (one for one in (*answer["options"], *answer["fallen"]) if _same(one, answer["first"])), answer["first"]
    )
    session.line()
    fell = any(_same(one, answer["first"]) for one in answer["fallen"])
    name = "fit.remedies" if fell else "fit.remedies_hold"
    wanted = answer["asked"]["concurrent_requests"]
    head = session.told(name, way=way_text(session, first), requests=wanted)
    session.out.print(head, style="bold", markup=False)
    for remedy in answer["remedies"]:
        values = remedy["values"]
        if remedy["reason"] == "RemedyOnline":
            values = {**values, "quantization": values["quantization"].upper()}
        if "source" in values:
            plain = values["quantization"] == "none"
            values = {**values, "form": session.told("fit.form.none") if plain else values["quantization"]}
        text = session.told(f"fit.remedy.{remedy['reason']}", **values)
        if remedy["capacity"]["fit"] == "tight":
            text = session.told("fit.why", text=text, why=session.told("fit.why.tight"))
        _signed(session, ("→", "cyan"), text)


def _same(one: Plain, other: Plain) -> bool:
    return all(one[name] == other[name] for name in ("engine", "quantization", "online", "source"))


def _signed(session: Session, sign: tuple[str, str], text: str, bold: bool = False) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_row(Text(f" {sign[0]}", style=sign[1]), Text(text, style="bold" if bold else ""))
    session.out.print(table)


def _more(session: Session, name: str, /, **values: object) -> None:
    _signed(session, (" ", ""), session.told(name, **values))
